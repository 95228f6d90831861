//! Hostcalls, as this filter uses them: bytes instead of text, and nothing that unwraps.

use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, Status};
use session_core::binding::Binding;
use session_core::cache::{self, SlotWrite, Slots};
use session_core::edit::{Edit, LocalReply};
use session_core::exchange::{Callout, Identity, ResponseHeaders};
use session_core::time::UnixSeconds;

/// In whose callback we are, which decides who is told of a callout's answer.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    /// The stream's own.
    Stream,
    /// The root context's, which acts for the stream.
    Root { own: u32, stream: u32 },
}

pub(crate) fn now() -> UnixSeconds {
    UnixSeconds::new(now_ms() / 1000)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    since_epoch.and_then(|duration| u64::try_from(duration.as_millis()).ok()).unwrap_or_default()
}

pub(crate) fn headers(map: MapType) -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

/// The answer to a callout.
#[derive(Default)]
pub(crate) struct OwnedAnswer {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The answer to a callout, in its callback.
pub(crate) fn answer(headers_count: usize, body_size: usize) -> OwnedAnswer {
    let body = match body_size {
        0 => None,
        size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten(),
    };
    OwnedAnswer {
        headers: if headers_count == 0 { Vec::new() } else { headers(MapType::HttpCallResponseHeaders) },
        body: body.unwrap_or_default(),
    }
}

pub(crate) fn plugin_configuration() -> Vec<u8> {
    hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

/// Applies edits in order. The host refuses none of them: the names are the core's own or the request's.
pub(crate) fn apply(map: MapType, edits: &[Edit]) {
    for edit in edits {
        let applied = match edit {
            Edit::Set(name, value) => hostcalls::set_map_value_bytes(map, name, Some(value)),
            Edit::Add(name, value) => hostcalls::add_map_value_bytes(map, name, value),
            Edit::Remove(name) => hostcalls::remove_map_value(map, name),
        };
        if applied.is_err() {
            log::error!("a header could not be changed");
        }
    }
}

pub(crate) fn dispatch(cluster: &str, callout: &Callout, timeout: Duration) -> Result<u32, Status> {
    let headers = callout.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    let body = (!callout.body.is_empty()).then_some(callout.body.as_slice());
    hostcalls::dispatch_http_call(cluster, headers, body, Vec::new(), timeout)
}

/// Sends a callout for a stream. In a callback of the root context it has to be the root context's: the SDK tells
/// the context whose callback it is of the answer, Envoy the one that it acts for.
pub(crate) fn dispatch_as(caller: Caller, cluster: &str, callout: &Callout, timeout: Duration) -> Result<u32, Status> {
    match caller {
        Caller::Stream => dispatch(cluster, callout, timeout),
        Caller::Root { own, stream } => {
            act_for(own);
            let token = dispatch(cluster, callout, timeout);
            act_for(stream);
            token
        }
    }
}

/// Lets the next hostcalls act for another context; `false` if there is none of that id any more.
pub(crate) fn act_for(context_id: u32) -> bool {
    hostcalls::set_effective_context(context_id).is_ok()
}

/// Has the root context's timer fire every so often; never, for zero.
pub(crate) fn tick(period: Duration) {
    if hostcalls::set_tick_period(period).is_err() {
        log::error!("the timer could not be set");
    }
}

pub(crate) fn reply(reply: &LocalReply) {
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if hostcalls::send_http_response(reply.status.into(), headers, Some(reply.body.as_bytes())).is_err() {
        log::error!("a local reply could not be sent");
    }
}

pub(crate) fn resume(map: MapType) {
    let resumed = match map {
        MapType::HttpRequestHeaders => hostcalls::resume_http_request(),
        _ => hostcalls::resume_http_response(),
    };
    if resumed.is_err() {
        log::error!("a stream could not be resumed");
    }
}

/// The response that is passing, read where it lies.
pub(crate) struct PassingResponse;

impl ResponseHeaders for PassingResponse {
    fn contains(&self, name: &str) -> bool {
        matches!(hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name), Ok(Some(_)))
    }

    fn all(&self) -> Vec<(String, Vec<u8>)> {
        headers(MapType::HttpResponseHeaders)
    }
}

/// The values of the properties that tokens are bound to.
pub(crate) fn binding(properties: &[Vec<String>]) -> Binding {
    if properties.is_empty() {
        return Binding::NONE;
    }
    let value = |path: &Vec<String>| {
        let path = path.iter().map(String::as_str).collect();
        hostcalls::get_property(path).ok().flatten()
    };
    Binding::of(&properties.iter().map(value).collect::<Vec<_>>())
}

/// Makes the session known to the rest of Envoy as the filter states `wasm.session_id` and `wasm.session_state`.
pub(crate) fn publish(identity: &Identity) {
    let id = identity.id.to_hex();
    let states = [("session_id", id.as_str()), ("session_state", identity.state.as_str())];
    for (name, value) in states {
        if hostcalls::set_property(vec![name], Some(value.as_bytes())).is_err() {
            log::error!("{name} could not be published");
        }
    }
}

/// The cache's slots in Envoy's shared data, which all workers share. So do all plugins of one `vm_id`, and
/// Istio gives none: hence the prefix.
pub(crate) struct SharedSlots;

fn slot_key(slot: u32) -> String {
    format!("session-mesh.slot.{slot}")
}

impl Slots for SharedSlots {
    fn read(&self, slot: u32) -> Option<Vec<u8>> {
        hostcalls::get_shared_data(&slot_key(slot)).ok()?.0
    }
}

/// How often a slot is tried when other workers write to it at the same time. A copy that isn't kept
/// costs a lookup later, nothing else.
const SLOT_ATTEMPTS: usize = 3;

/// Puts a copy into its slot, unless there is a better one.
pub(crate) fn write_slot(write: &SlotWrite) {
    let key = slot_key(write.slot);
    for _ in 0..SLOT_ATTEMPTS {
        let Ok((existing, cas)) = hostcalls::get_shared_data(&key) else { return };
        if existing.is_some_and(|existing| !cache::replaces(&existing, &write.value)) {
            return;
        }
        if hostcalls::set_shared_data(&key, Some(&write.value), cas).is_ok() {
            return;
        }
    }
}
