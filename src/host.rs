//! Hostcalls, as this filter uses them: bytes instead of text, and nothing that unwraps.

use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, Status};
use session_core::edit::{Edit, LocalReply};
use session_core::exchange::{Callout, ResponseHeaders};
use session_core::time::UnixSeconds;

pub(crate) fn now() -> UnixSeconds {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    UnixSeconds::new(since_epoch.map_or(0, |duration| duration.as_secs()))
}

pub(crate) fn headers(map: MapType) -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

pub(crate) fn callout_body(size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten().unwrap_or_default()
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

pub(crate) fn dispatch(cluster: &str, callout: &Callout, timeout: std::time::Duration) -> Result<u32, Status> {
    let headers = callout.headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    let body = (!callout.body.is_empty()).then_some(callout.body.as_slice());
    hostcalls::dispatch_http_call(cluster, headers, body, Vec::new(), timeout)
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
