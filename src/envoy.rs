//! Envoy as the filter's host.
//!
//! The SDK's hostcalls panic at a status that they don't expect. Each function says why no such status can occur.
//! `root_context` makes sure that each is called only while the filter holds its message (see [`Host`]).

use std::time::{Duration, SystemTime};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType};
use session_filter::edit::{Edit, GrpcStatus, LocalReply};
use session_filter::exchange::{Callout, Trace};

use crate::host::{HeaderList, Host, NotSent, Side};

/// The Envoy around this VM.
#[derive(Clone, Copy)]
pub(crate) struct Envoy;

const fn headers_of(side: Side) -> MapType {
    match side {
        Side::Request => MapType::HttpRequestHeaders,
        Side::Response => MapType::HttpResponseHeaders,
    }
}

const fn trailers_of(side: Side) -> MapType {
    match side {
        Side::Request => MapType::HttpRequestTrailers,
        Side::Response => MapType::HttpResponseTrailers,
    }
}

/// All headers of a map. Envoy refuses a map only if there is none of that kind, which is not the case in its message's
/// callback.
///
/// The SDK panics at a name that is not UTF-8. Envoy's codecs accept only tokens (RFC 9110, section 5.6.2), from
/// clients and from upstreams. Another filter could still create such a name, and the map is the only way to see the
/// names of headers: see "Nothing panics" in `docs/design-notes.md`.
fn all(map: MapType) -> HeaderList {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

/// Envoy accepts any name and value. For refusals of a map, see [`all`].
fn edit(map: MapType, edit: &Edit) {
    let edited = match edit {
        Edit::Set(name, value) => hostcalls::set_map_value_bytes(map, name, Some(value)),
        Edit::Add(name, value) => hostcalls::add_map_value_bytes(map, name, value),
        Edit::Remove(name) => hostcalls::remove_map_value(map, name),
    };
    if edited.is_err() {
        log::error!("a header could not be changed");
    }
}

/// The HTTP status that Envoy translates into this gRPC status (`Grpc::Utility::httpToGrpcStatus`). The SDK's own
/// function for gRPC is not used: it sends the HTTP status 200 even if Envoy does not consider the call gRPC, and a 200
/// is not a refusal.
const fn http_status(status: GrpcStatus) -> u16 {
    match status {
        GrpcStatus::Internal => 400,
        GrpcStatus::Unauthenticated => 401,
        GrpcStatus::PermissionDenied => 403,
        GrpcStatus::Unavailable => 503,
    }
}

impl Host for Envoy {
    /// Envoy always knows the time.
    fn now_ms(&self) -> u64 {
        let now = hostcalls::get_current_time().unwrap_or(SystemTime::UNIX_EPOCH);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn headers(&self, side: Side) -> HeaderList {
        all(headers_of(side))
    }

    /// The status for "no such header" is expected.
    fn has_header(&self, side: Side, name: &str) -> bool {
        hostcalls::get_map_value_bytes(headers_of(side), name).is_ok_and(|value| value.is_some())
    }

    fn edit_headers(&self, side: Side, change: &Edit) {
        edit(headers_of(side), change);
    }

    fn trailers(&self, side: Side) -> HeaderList {
        all(trailers_of(side))
    }

    fn edit_trailers(&self, side: Side, change: &Edit) {
        edit(trailers_of(side), change);
    }

    /// The SDK expects every status that Envoy returns for attributes, whatever the path.
    fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        hostcalls::get_property(path.iter().map(String::as_str).collect()).ok().flatten()
    }

    /// The SDK panics at a refusal. Envoy refuses to set the state of a stream that has ended, and a name that a wasm
    /// filter in front has declared read-only (`declare_property`) and set. Other filters must not set our names.
    fn set_filter_state(&self, name: &str, value: &[u8]) {
        if hostcalls::set_property(vec![name], Some(value)).is_err() {
            log::error!("{name} could not be published");
        }
    }

    /// "Not found" is expected, and there is no other refusal.
    fn shared_data(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        hostcalls::get_shared_data(key).unwrap_or_default()
    }

    /// The status for "another write came first" is expected, and there is no other refusal.
    fn set_shared_data(&self, key: &str, value: &[u8], version: Option<u32>) -> bool {
        hostcalls::set_shared_data(key, Some(value), version).is_ok()
    }

    /// Both of Envoy's refusals are expected. The SDK panics at an id for which it is already waiting, and it never
    /// stops waiting for those of streams that have ended. Envoy increments the id by four, in 32 bits, so the first id
    /// is repeated after a billion callouts of one VM.
    fn send(&self, cluster: &str, callout: &Callout, trace: &Trace, timeout: Duration) -> Result<u32, NotSent> {
        let own = callout.headers.iter().map(|(name, value)| (*name, value.as_ref()));
        let headers = own.chain(trace.headers()).collect();
        hostcalls::dispatch_http_call(cluster, headers, Some(&callout.body), Vec::new(), timeout).map_err(|status| {
            log::warn!("gateway.cluster {cluster}: no callout possible ({status:?})");
            NotSent
        })
    }

    fn answer_headers(&self) -> HeaderList {
        all(MapType::HttpCallResponseHeaders)
    }

    /// Envoy refuses only a buffer that does not exist.
    fn answer_body(&self) -> Vec<u8> {
        hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, usize::MAX).ok().flatten().unwrap_or_default()
    }

    /// The status for "no such stream" is expected.
    fn act_for(&self, stream: u32) -> bool {
        hostcalls::set_effective_context(stream).is_ok()
    }

    /// Envoy does it once the callback is over, and refuses nothing.
    fn resume(&self, side: Side) {
        let resumed = match side {
            Side::Request => hostcalls::resume_http_request(),
            Side::Response => hostcalls::resume_http_response(),
        };
        if resumed.is_err() {
            log::error!("a stream could not be resumed");
        }
    }

    /// Envoy does this after the callback has returned, and refuses nothing. The SDK accepts only text in headers. All
    /// of ours are text, and an upstream's that are not are omitted.
    fn reply(&self, reply: &LocalReply, is_grpc: bool) {
        let headers =
            reply.headers.iter().filter_map(|(name, value)| Some((name.as_ref(), str::from_utf8(value).ok()?)));
        let status = if is_grpc { http_status(reply.grpc_status) } else { reply.status };
        if hostcalls::send_http_response(status.into(), headers.collect(), Some(reply.body.as_bytes())).is_err() {
            log::error!("a local reply could not be sent");
        }
    }

    /// Envoy has a timer for each root.
    fn set_timer(&self, millis: u64) {
        if hostcalls::set_tick_period(Duration::from_millis(millis)).is_err() {
            log::error!("the timer could not be set");
        }
    }

    /// Envoy knows these kinds of metrics.
    fn define_counter(&self, name: &str) -> Option<u32> {
        hostcalls::define_metric(MetricType::Counter, name).ok()
    }

    fn define_histogram(&self, name: &str) -> Option<u32> {
        hostcalls::define_metric(MetricType::Histogram, name).ok()
    }

    /// The status for "no such metric" is expected.
    fn raise(&self, counter: u32, by: i64) {
        if hostcalls::increment_metric(counter, by).is_err() {
            log::error!("a counter could not be raised");
        }
    }

    fn record(&self, histogram: u32, value: u64) {
        if hostcalls::record_metric(histogram, value).is_err() {
            log::error!("a histogram could not be recorded");
        }
    }
}
