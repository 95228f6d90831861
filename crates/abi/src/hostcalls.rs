//! What the host can be asked. Where one of its maps, buffers or streams is meant, it is that of the context whose
//! callback it is, or which [`act_for`] has named.

use std::time::Duration;

use crate::imports;
use crate::memory::Returned;
use crate::pairs::{self, Pairs};

/// Why the host did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is nothing of that name.
    NotFound,
    /// What was asked makes no sense here: no such cluster, no such context, no such message at this time.
    BadArgument,
    /// Somebody else was faster.
    VersionMismatch,
    /// The host could not: no endpoint, a circuit breaker.
    InternalFailure,
    /// Another status of the ABI's.
    Other(u32),
}

/// What the host answers.
pub type Result<T> = core::result::Result<T, Refused>;

fn done(status: u32) -> Result<()> {
    Err(match status {
        0 => return Ok(()),
        1 => Refused::NotFound,
        2 => Refused::BadArgument,
        8 => Refused::VersionMismatch,
        10 => Refused::InternalFailure,
        other => Refused::Other(other),
    })
}

/// Which headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Map {
    /// Those of the request.
    Request = 0,
    /// The trailers of the request, in their callback.
    RequestTrailers = 1,
    /// Those of the response.
    Response = 2,
    /// The trailers of the response, in their callback.
    ResponseTrailers = 3,
    /// Those of a callout's answer, in its callback.
    CallResponse = 6,
}

/// Which bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Buffer {
    /// The body of a callout's answer, in its callback.
    CallResponse = 4,
    /// The plugin's configuration, while it is configured.
    Configuration = 7,
}

/// Which half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// On its way to the upstream.
    Request = 0,
    /// On its way to the client.
    Response = 1,
}

/// What sort of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Metric {
    /// Only ever grows.
    Counter = 0,
    /// A distribution.
    Histogram = 2,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something does not work as it should.
    Warn = 3,
    /// Something does not work.
    Error = 4,
}

/// Writes a line to the host's log.
pub fn log(level: Level, text: &str) {
    // SAFETY: the pointer is good for as many bytes. There is nowhere to say that it failed.
    let _ = unsafe { imports::proxy_log(level as u32, text.as_ptr(), text.len()) };
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> Result<u64> {
    let mut time = 0;
    // SAFETY: the pointer is good for the time.
    done(unsafe { imports::proxy_get_current_time_nanoseconds(&raw mut time) })?;
    Ok(time)
}

/// Has the root's timer fire every so often, in milliseconds; never, for zero.
pub fn set_tick_period(period: Duration) -> Result<()> {
    // SAFETY: there are no pointers.
    done(unsafe { imports::proxy_set_tick_period_milliseconds(millis(period)) })
}

/// Runs a hostcall that returns bytes.
fn returned(hostcall: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>> {
    let mut returned = Returned::NOTHING;
    done(hostcall(&raw mut returned.bytes, &raw mut returned.length))?;
    // SAFETY: a hostcall has written it, and was successful.
    Ok(unsafe { returned.take() })
}

/// The bytes of a buffer, all of them.
pub fn buffer(buffer: Buffer) -> Result<Vec<u8>> {
    returned(|bytes, length| {
        // SAFETY: the pointers are good for what is returned.
        unsafe { imports::proxy_get_buffer_bytes(buffer as u32, 0, usize::MAX, bytes, length) }
    })
}

/// All headers.
pub fn headers(map: Map) -> Result<Pairs> {
    returned(|bytes, length| {
        // SAFETY: the pointers are good for what is returned.
        unsafe { imports::proxy_get_header_map_pairs(map as u32, bytes, length) }
    })
    .map(Pairs::new)
}

/// The value of the first header of this name; [`Refused::NotFound`] without one.
pub fn header(map: Map, name: &str) -> Result<Vec<u8>> {
    returned(|bytes, length| {
        // SAFETY: the pointers are good for the name, and for what is returned.
        unsafe { imports::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), bytes, length) }
    })
}

/// Replaces all headers of this name by one.
pub fn set_header(map: Map, name: &str, value: &[u8]) -> Result<()> {
    let (map, name_length) = (map as u32, name.len());
    // SAFETY: the pointers are good for the name and the value.
    done(unsafe {
        imports::proxy_replace_header_map_value(map, name.as_ptr(), name_length, value.as_ptr(), value.len())
    })
}

/// Adds a header.
pub fn add_header(map: Map, name: &str, value: &[u8]) -> Result<()> {
    let (map, name_length) = (map as u32, name.len());
    // SAFETY: the pointers are good for the name and the value.
    done(unsafe { imports::proxy_add_header_map_value(map, name.as_ptr(), name_length, value.as_ptr(), value.len()) })
}

/// Removes all headers of this name.
pub fn remove_header(map: Map, name: &str) -> Result<()> {
    // SAFETY: the pointer is good for the name.
    done(unsafe { imports::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// The value of a property; [`Refused::NotFound`] without one.
pub fn property(path: &[String]) -> Result<Vec<u8>> {
    let path = path.join("\0");
    returned(|bytes, length| {
        // SAFETY: the pointers are good for the path, and for what is returned.
        unsafe { imports::proxy_get_property(path.as_ptr(), path.len(), bytes, length) }
    })
}

/// Sets a property, which the rest of Envoy knows as the filter state `wasm.<name>`.
pub fn set_property(name: &str, value: &[u8]) -> Result<()> {
    // SAFETY: the pointers are good for the name and the value.
    done(unsafe { imports::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// What is stored for all VMs of one `vm_id` under a key, and the version to replace it with;
/// [`Refused::NotFound`] if nothing is.
pub fn shared_data(key: &[u8]) -> Result<(Vec<u8>, u32)> {
    let mut version = 0;
    let bytes = returned(|bytes, length| {
        let version = &raw mut version;
        // SAFETY: the pointers are good for the key, and for what is returned.
        unsafe { imports::proxy_get_shared_data(key.as_ptr(), key.len(), bytes, length, version) }
    })?;
    Ok((bytes, version))
}

/// Stores something for all VMs of one `vm_id`, if it still has this version; whatever it has, for version 0.
pub fn set_shared_data(key: &[u8], value: &[u8], version: u32) -> Result<()> {
    // SAFETY: the pointers are good for the key and the value.
    done(unsafe { imports::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) })
}

/// Makes an HTTP request to a cluster. Its answer comes to the root of the context that makes it, with this token.
pub fn http_call(cluster: &str, headers: &[(&str, &str)], body: &[u8], timeout: Duration) -> Result<u32> {
    let headers = pairs::encode(headers);
    let trailers: &[u8] = b"";
    let mut token = 0;
    // SAFETY: the pointers are good for the name, the lists, the body and the token.
    done(unsafe {
        imports::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            millis(timeout),
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Answers the client in place of the upstream; a gRPC client with the gRPC status.
pub fn reply(status: u16, grpc_status: u8, headers: &[(&str, &[u8])], body: &[u8]) -> Result<()> {
    let headers = pairs::encode(headers);
    let details = "";
    // SAFETY: the pointers are good for the details, the body and the list.
    done(unsafe {
        imports::proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status.into(),
        )
    })
}

/// Lets a message go on that was held.
pub fn resume(side: Side) -> Result<()> {
    // SAFETY: there are no pointers.
    done(unsafe { imports::proxy_continue_stream(side as u32) })
}

/// Lets the next hostcalls of this callback act for another context.
pub fn act_for(context: u32) -> Result<()> {
    // SAFETY: there are no pointers.
    done(unsafe { imports::proxy_set_effective_context(context) })
}

/// Defines a metric, or finds the one of this name; its id.
pub fn define_metric(kind: Metric, name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: the pointers are good for the name and the id.
    done(unsafe { imports::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Raises a counter, by 1 or more.
pub fn increment_metric(id: u32, by: i64) -> Result<()> {
    // SAFETY: there are no pointers.
    done(unsafe { imports::proxy_increment_metric(id, by) })
}

/// Adds a value to a histogram.
pub fn record_metric(id: u32, value: u64) -> Result<()> {
    // SAFETY: there are no pointers.
    done(unsafe { imports::proxy_record_metric(id, value) })
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_everything_is_refused_and_nothing_panics() {
        assert!(now().is_err());
        assert!(headers(Map::Request).is_err());
        assert!(shared_data(b"key").is_err());
        assert!(http_call("cluster", &[(":path", "/")], b"", Duration::MAX).is_err());
        assert!(resume(Side::Request).is_err());
    }
}
