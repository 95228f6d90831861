//! Hostcalls, as this filter uses them: what can't be done is logged or left out.

use std::cell::OnceCell;
use std::time::Duration;

use session::time::UnixSeconds;
use session_abi::hostcalls::{self, Buffer, Level, Map, Refused, Side};
use session_abi::pairs::Pairs;
use session_filter::binding::Binding;
use session_filter::cache::{self, SlotWrite, Slots};
use session_filter::edit::{Edit, Headers, LocalReply};
use session_filter::exchange::{Callout, Identity, ResponseHeaders, Trace};

/// The time of one callback, read from the host once it is needed.
#[derive(Default)]
pub(crate) struct Moment(OnceCell<u64>);

impl Moment {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn millis(&self) -> u64 {
        *self.0.get_or_init(|| hostcalls::now().unwrap_or_default() / 1_000_000)
    }

    pub(crate) fn seconds(&self) -> UnixSeconds {
        UnixSeconds::new(self.millis() / 1000)
    }
}

pub(crate) fn error(text: &str) {
    hostcalls::log(Level::Error, text);
}

pub(crate) fn warn(text: &str) {
    hostcalls::log(Level::Warn, text);
}

pub(crate) fn configuration() -> Vec<u8> {
    hostcalls::buffer(Buffer::Configuration).unwrap_or_default()
}

pub(crate) fn request_headers() -> Pairs {
    hostcalls::headers(Map::Request).unwrap_or_default()
}

/// The answer to a callout.
pub(crate) struct Received {
    pub(crate) headers: Pairs,
    pub(crate) body: Vec<u8>,
}

/// The answer to a callout, in its callback.
pub(crate) fn answer(headers_count: usize, body_size: usize) -> Received {
    let headers = (headers_count > 0).then(|| hostcalls::headers(Map::CallResponse).unwrap_or_default());
    let body = (body_size > 0).then(|| hostcalls::buffer(Buffer::CallResponse).unwrap_or_default());
    Received { headers: headers.unwrap_or_default(), body: body.unwrap_or_default() }
}

/// Applies edits in order. The host refuses none of them: the names are the filter's own or the request's.
pub(crate) fn apply(side: Side, edits: &[Edit]) {
    let map = match side {
        Side::Request => Map::Request,
        Side::Response => Map::Response,
    };
    edit(map, edits);
}

/// Has the trailers that are passing changed.
pub(crate) fn edit_trailers(side: Side, editor: impl FnOnce(&Headers<'_>) -> Vec<Edit>) {
    let map = match side {
        Side::Request => Map::RequestTrailers,
        Side::Response => Map::ResponseTrailers,
    };
    let pairs = hostcalls::headers(map).unwrap_or_default();
    edit(map, &editor(&pairs.to_vec()));
}

fn edit(map: Map, edits: &[Edit]) {
    for edit in edits {
        let applied = match edit {
            Edit::Set(name, value) => hostcalls::set_header(map, name, value),
            Edit::Add(name, value) => hostcalls::add_header(map, name, value),
            Edit::Remove(name) => hostcalls::remove_header(map, name),
        };
        if applied.is_err() {
            error("a header could not be changed");
        }
    }
}

/// Takes the request's cookies away, where nobody has looked which of them is the token. In the response's callback there is
/// no request any more to take them from.
pub(crate) fn remove_cookies() {
    let _ = hostcalls::remove_header(Map::Request, "cookie");
}

pub(crate) fn http_call(cluster: &str, callout: &Callout, trace: &Trace, timeout: Duration) -> Result<u32, Refused> {
    let own = callout.headers.iter().map(|(name, value)| (*name, value.as_ref()));
    let headers: Vec<_> = own.chain(trace.headers()).collect();
    hostcalls::http_call(cluster, &headers, &callout.body, timeout)
}

/// Lets the next hostcalls act for another context; `false` if there is none of that id any more.
pub(crate) fn act_for(context: u32) -> bool {
    hostcalls::act_for(context).is_ok()
}

/// Has the root's timer fire every so often; never, for zero.
pub(crate) fn tick(period: Duration) {
    if hostcalls::set_tick_period(period).is_err() {
        error("the timer could not be set");
    }
}

pub(crate) fn reply(reply: &LocalReply) {
    let headers: Vec<_> = reply.headers.iter().map(|(name, value)| (name.as_ref(), value.as_slice())).collect();
    if hostcalls::reply(reply.status, reply.grpc_status as u8, &headers, reply.body.as_bytes()).is_err() {
        error("a local reply could not be sent");
    }
}

pub(crate) fn resume(side: Side) {
    if hostcalls::resume(side).is_err() {
        error("a stream could not be resumed");
    }
}

/// The response that is passing, read where it lies.
pub(crate) struct PassingResponse;

impl ResponseHeaders for PassingResponse {
    fn contains(&self, name: &str) -> bool {
        hostcalls::header(Map::Response, name).is_ok()
    }

    fn read<T>(&self, reader: impl FnOnce(&Headers<'_>) -> T) -> T {
        let pairs = hostcalls::headers(Map::Response).unwrap_or_default();
        reader(&pairs.to_vec())
    }
}

/// The values of the properties that tokens are bound to.
pub(crate) fn binding(properties: &[Vec<String>]) -> Binding {
    if properties.is_empty() {
        return Binding::NONE;
    }
    Binding::of(&properties.iter().map(|path| hostcalls::property(path).ok()).collect::<Vec<_>>())
}

/// Makes the session known to the rest of Envoy as the filter states `wasm.session_id` and `wasm.session_state`.
pub(crate) fn publish(identity: &Identity) {
    let id = identity.id.to_hex();
    for (name, value) in [("session_id", id.as_str()), ("session_state", identity.state.as_str())] {
        if hostcalls::set_property(name, value.as_bytes()).is_err() {
            error(&format!("{name} could not be published"));
        }
    }
}

/// The cache's slots in Envoy's shared data, which all workers share. So do all plugins of one `vm_id`, and
/// Istio gives none: hence the prefix.
pub(crate) struct SharedSlots;

/// A key of a fixed length: the prefix and the slot's number.
fn slot_key(slot: u32) -> [u8; 21] {
    let mut key = *b"session-mesh.slot####";
    if let Some(number) = key.last_chunk_mut() {
        *number = slot.to_be_bytes();
    }
    key
}

impl Slots for SharedSlots {
    fn read(&self, slot: u32) -> Option<Vec<u8>> {
        hostcalls::shared_data(&slot_key(slot)).ok().map(|(value, _)| value)
    }
}

/// How often a slot is tried when other workers write to it at the same time. A copy that isn't kept
/// costs a lookup later, nothing else.
const SLOT_ATTEMPTS: usize = 3;

/// Puts a copy into its slot, unless there is a better one.
pub(crate) fn write_slot(write: &SlotWrite) {
    let key = slot_key(write.slot);
    for _ in 0..SLOT_ATTEMPTS {
        let version = match hostcalls::shared_data(&key) {
            Ok((existing, _)) if !cache::replaces(&existing, &write.value) => return,
            Ok((_, version)) => version,
            Err(Refused::NotFound) => 0,
            Err(_) => return,
        };
        if hostcalls::set_shared_data(&key, &write.value, version).is_ok() {
            return;
        }
    }
}
