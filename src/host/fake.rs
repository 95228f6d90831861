//! A host for tests, which models what Envoy and the SDK do.
//!
//! It panics where the SDK would, when headers or trailers are accessed that the filter does not have. An answer is
//! delivered to the context that made the callout, and dropped if that context is gone. A message is held as a whole
//! whatever the plugin's options, because `tools/wasm-trim` ensures that: its trailers arrive only after it is
//! released. Milliseconds have 32 bits. Nothing here depends on the order of hostcalls.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use session_filter::edit::{Edit, LocalReply};
use session_filter::exchange::{Callout, Trace};
use session_filter::testing::apply;

use super::{HeaderList, Host, NotSent, Side};

/// One stream, as its client and its upstream see it.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    /// The headers of both messages, as far as they have arrived.
    pub(crate) messages: [Option<HeaderList>; 2],
    /// The message that the filter has.
    pub(crate) in_hand: Option<Side>,
    /// The trailers in whose callback the filter is.
    pub(crate) trailers: Option<(Side, HeaderList)>,
    /// The messages that the filter has held and then released.
    pub(crate) resumed: Vec<Side>,
    /// The status of the filter's response in place of the upstream's.
    pub(crate) reply: Option<u16>,
    /// The filter state.
    pub(crate) state: BTreeMap<String, Vec<u8>>,
}

/// A callout that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: u32,
    /// The stream whose context made it; `None` for the root.
    pub(crate) asked_by: Option<u32>,
    pub(crate) callout: Callout,
}

impl Sent {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.callout.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_ref())
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) now_ms: u64,
    pub(crate) streams: BTreeMap<u32, Passage>,
    /// The context that the callback belongs to: a stream's, or the root's.
    pub(crate) active: Option<u32>,
    /// The context that hostcalls act for.
    pub(crate) effective: Option<u32>,
    pub(crate) sent: Vec<Sent>,
    /// No callout can be sent: there is no such cluster.
    pub(crate) is_cut_off: bool,
    /// The answer in whose callback the filter is.
    pub(crate) answer: Option<(HeaderList, Vec<u8>)>,
    /// The timer's period in milliseconds, if it runs.
    pub(crate) timer_ms: Option<u64>,
    pub(crate) counters: BTreeMap<String, i64>,
    names: Vec<String>,
    shared: BTreeMap<String, (Vec<u8>, u32)>,
    last_call: u32,
}

/// The host, shared by all contexts.
#[derive(Clone, Default)]
pub(crate) struct FakeHost(Rc<RefCell<State>>);

impl FakeHost {
    pub(crate) fn state(&self) -> Ref<'_, State> {
        self.0.borrow()
    }

    pub(crate) fn state_mut(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    fn in_trailers<T>(&self, side: Side, of: impl FnOnce(&mut HeaderList) -> T) -> T {
        let mut state = self.state_mut();
        let id = state.effective.expect("the root has no trailers");
        let passage = state.streams.get_mut(&id).expect("the stream is gone");
        let (coming, trailers) = passage.trailers.as_mut().expect("no trailers have come");
        assert_eq!(*coming, side, "these trailers are not in the filter's hands");
        of(trailers)
    }

    fn message<T>(&self, side: Side, of: impl FnOnce(&mut HeaderList) -> T) -> T {
        let mut state = self.state_mut();
        let id = state.effective.expect("the root has no messages");
        let passage = state.streams.get_mut(&id).expect("the stream is gone");
        assert_eq!(passage.in_hand, Some(side), "this message is not in the filter's hands");
        of(passage.messages[side as usize].as_mut().expect("it has come"))
    }
}

/// Milliseconds as the SDK passes them on.
fn cut(millis: u128) -> u64 {
    u64::try_from(millis & u128::from(u32::MAX)).expect("32 bits")
}

impl Host for FakeHost {
    fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    fn headers(&self, side: Side) -> HeaderList {
        self.message(side, |headers| headers.clone())
    }

    fn has_header(&self, side: Side, name: &str) -> bool {
        self.message(side, |headers| headers.iter().any(|(other, _)| other == name))
    }

    fn edit_headers(&self, side: Side, edit: &Edit) {
        self.message(side, |headers| apply(headers, vec![edit.clone()]));
    }

    fn trailers(&self, side: Side) -> HeaderList {
        self.in_trailers(side, |trailers| trailers.clone())
    }

    fn edit_trailers(&self, side: Side, edit: &Edit) {
        self.in_trailers(side, |trailers| apply(trailers, vec![edit.clone()]));
    }

    fn property(&self, _path: &[String]) -> Option<Vec<u8>> {
        None
    }

    fn set_filter_state(&self, name: &str, value: &[u8]) {
        let mut state = self.state_mut();
        let id = state.effective.expect("the root has no filter state");
        let passage = state.streams.get_mut(&id).expect("the stream is gone");
        passage.state.insert(name.to_owned(), value.to_owned());
    }

    fn shared_data(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        match self.state().shared.get(key) {
            Some((value, version)) => (Some(value.clone()), Some(*version)),
            None => (None, None),
        }
    }

    fn set_shared_data(&self, key: &str, value: &[u8], version: Option<u32>) -> bool {
        let mut state = self.state_mut();
        let current = state.shared.get(key).map_or(0, |(_, version)| *version);
        if version.is_some_and(|version| version != current) {
            return false;
        }
        state.shared.insert(key.to_owned(), (value.to_owned(), current + 1));
        true
    }

    fn send(&self, _cluster: &str, callout: &Callout, _trace: &Trace, timeout: Duration) -> Result<u32, NotSent> {
        assert!(cut(timeout.as_millis()) > 0, "a callout without a timeout");
        let mut state = self.state_mut();
        if state.is_cut_off {
            return Err(NotSent);
        }
        state.last_call += 1;
        let sent = Sent { id: state.last_call, asked_by: state.active, callout: callout.clone() };
        state.sent.push(sent);
        Ok(state.last_call)
    }

    fn answer_headers(&self) -> HeaderList {
        self.state().answer.as_ref().expect("no answer has come").0.clone()
    }

    fn answer_body(&self) -> Vec<u8> {
        self.state().answer.as_ref().expect("no answer has come").1.clone()
    }

    fn act_for(&self, stream: u32) -> bool {
        let mut state = self.state_mut();
        let is_there = state.streams.contains_key(&stream);
        if is_there {
            state.effective = Some(stream);
        }
        is_there
    }

    fn resume(&self, side: Side) {
        let mut state = self.state_mut();
        let id = state.effective.expect("the root holds no message");
        let passage = state.streams.get_mut(&id).expect("the stream is gone");
        assert_eq!(passage.in_hand.take(), Some(side), "it is not held");
        passage.resumed.push(side);
    }

    fn reply(&self, reply: &LocalReply, _is_grpc: bool) {
        let mut state = self.state_mut();
        let id = state.effective.expect("the root has no client");
        let passage = state.streams.get_mut(&id).expect("the stream is gone");
        assert_eq!(passage.reply.replace(reply.status), None, "it was answered before");
    }

    fn set_timer(&self, millis: u64) {
        let millis = cut(millis.into());
        self.state_mut().timer_ms = (millis > 0).then_some(millis);
    }

    fn define_counter(&self, name: &str) -> Option<u32> {
        let mut state = self.state_mut();
        state.names.push(name.to_owned());
        u32::try_from(state.names.len() - 1).ok()
    }

    fn define_histogram(&self, name: &str) -> Option<u32> {
        self.define_counter(name)
    }

    fn raise(&self, counter: u32, by: i64) {
        assert!(by > 0, "an increment by nothing is an error");
        let mut state = self.state_mut();
        let name = state.names[counter as usize].clone();
        *state.counters.entry(name).or_default() += by;
    }

    fn record(&self, _histogram: u32, _value: u64) {}
}
