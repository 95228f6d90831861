//! Carries out what the exchanges of one configuration decide.

use std::collections::HashMap;
use std::rc::Rc;

use session::id::SessionId;
use session::time::UnixSeconds;
use session_filter::binding::Binding;
use session_filter::config::Config;
use session_filter::counter::Counts;
use session_filter::exchange::{Answer, Callout, Exchange, Identity, LookUp, Step, Trace};

use crate::callback::Callback;
use crate::calls::{Calls, Purpose, Unsent};
use crate::entropy::Entropy;
use crate::host::{Host, Side};
use crate::ids::ById;
use crate::metrics::Metrics;
use crate::slots::SharedSlots;
use crate::stream::Stream;
use crate::touches::{MOST_TOUCHES, Touches};

/// How long counts may be collected before the host sees them, in milliseconds. Also the shortest time between two
/// checks of the open streams.
const GATHER_MS: u64 = 1000;

/// The shortest period of the timer, in milliseconds.
const SOON_MS: u64 = 1;

/// The longest, in milliseconds: the host counts them in 32 bits.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;

pub(crate) struct Executor<H> {
    host: H,
    config: Rc<Config>,
    entropy: Entropy,
    metrics: Metrics,
    calls: Calls,
    /// Whether there are counts that the host has not seen. Then the timer runs that will pass them on.
    is_counting: bool,
    /// Whether the timer fires as soon as it can.
    is_soon: bool,
    /// When to check the open streams again, in milliseconds since the Unix epoch.
    next_look_ms: u64,
}

impl<H: Host + Clone> Executor<H> {
    pub(crate) fn new(config: Config, host: H) -> Self {
        Self {
            metrics: Metrics::define(&host),
            host,
            config: Rc::new(config),
            entropy: Entropy::default(),
            calls: Calls::default(),
            is_counting: false,
            is_soon: false,
            next_look_ms: 0,
        }
    }

    pub(crate) fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config)
    }

    /// An id that has never been used, or `None` if the host has no entropy.
    pub(crate) fn fresh_id(&mut self) -> Option<SessionId> {
        self.entropy.session_id()
    }

    /// The values that the tokens of the current stream are bound to.
    pub(crate) fn binding(&self) -> Binding {
        if self.config.bind.is_empty() {
            return Binding::NONE;
        }
        Binding::of(&self.config.bind.iter().map(|path| self.host.property(path)).collect::<Vec<_>>())
    }

    /// Carries out the step that an event of this stream led to, and those that follow from it. Returns the message
    /// that continues, if any.
    pub(crate) fn carry_out(
        &mut self,
        id: u32,
        stream: &mut Stream,
        step: Step,
        callback: &Callback<H>,
    ) -> Option<Side> {
        let edits = stream.exchange.take_request_edits();
        stream.edit(&self.host, Side::Request, &edits);
        let released = self.take_steps(id, stream, step, callback);
        if released.is_some() {
            stream.in_hand = None;
        }
        self.take_effects(&mut stream.exchange);
        released
    }

    fn take_steps(&mut self, id: u32, stream: &mut Stream, mut step: Step, callback: &Callback<H>) -> Option<Side> {
        loop {
            let is_sent = match step {
                Step::Hold => return None,
                Step::LookUp { look_up, is_shareable } => {
                    self.look_up(id, look_up, is_shareable, stream.exchange.trace(), callback)
                }
                Step::Call(callout) => self.call(id, callout, stream.exchange.trace(), callback),
                Step::Forward { edits, callout } => {
                    stream.edit(&self.host, Side::Request, &edits);
                    if callout.is_some_and(|callout| !self.call(id, callout, stream.exchange.trace(), callback)) {
                        // The request continues all the same; the response will be affected by the failure.
                        stream.exchange.answer(Answer::NotSent, &SharedSlots(&self.host), callback.seconds());
                    }
                    return Some(Side::Request);
                }
                Step::Deliver(edits) => {
                    stream.edit(&self.host, Side::Response, &edits);
                    return Some(Side::Response);
                }
                Step::Reply(reply) => {
                    self.host.reply(&reply, stream.is_grpc);
                    return None;
                }
            };
            if is_sent {
                return None;
            }
            step = stream.exchange.answer(Answer::NotSent, &SharedSlots(&self.host), callback.seconds());
        }
    }

    /// Why the callout that has now been answered was made.
    pub(crate) fn take_purpose(&mut self, call: u32, callback: &Callback<H>) -> Option<Purpose> {
        let (purpose, sent_ms) = self.calls.answered(call)?;
        self.metrics.callout_took(&self.host, callback.millis().saturating_sub(sent_ms));
        Some(purpose)
    }

    /// A stream is over. If other streams wait for its callout, the answer would be lost with it, so the root makes the
    /// callout again.
    pub(crate) fn stream_ended(&mut self, id: u32) {
        if self.calls.stream_ended(id) {
            self.fire_soon();
        }
    }

    /// Makes the callouts of the root.
    pub(crate) fn take_unsent(&mut self) -> Vec<Unsent> {
        self.is_soon = false;
        self.calls.take_unsent()
    }

    /// Looks a session up for streams that already wait; `false` if that is not possible.
    pub(crate) fn look_up_for(
        &mut self,
        look_up: LookUp,
        waiting: &[u32],
        trace: &Trace,
        callback: &Callback<H>,
    ) -> bool {
        if self.calls.join(&look_up, waiting) {
            return true;
        }
        let Some(call) = self.send(&look_up.callout(&self.config), trace) else { return false };
        self.calls.sent_by_root(call, look_up, waiting.to_vec(), callback.millis());
        true
    }

    /// Tells the store that a session is in use.
    pub(crate) fn refresh(&mut self, look_up: LookUp, trace: &Trace, callback: &Callback<H>) {
        match self.send(&look_up.callout(&self.config), trace) {
            Some(call) => self.calls.sent_refresh(call, look_up, Vec::new(), callback.seconds(), callback.millis()),
            None => self.calls.refresh_failed(&look_up),
        }
    }

    /// The store has been told that a session is in use, or could not be.
    pub(crate) fn refreshed(&self, look_up: LookUp, answer: Answer<'_>, asked: UnixSeconds) {
        if let Some(write) = look_up.refresh(&self.config, answer, asked) {
            SharedSlots(&self.host).write(&write);
        }
    }

    /// Finds the sessions that open streams keep in use, and sets the timer for the next check. This is done only from
    /// time to time, because there can be many streams.
    pub(crate) fn look_at(&mut self, streams: &ById<Stream>, callback: &Callback<H>) {
        let period_ms =
            self.config.timeouts.stream_touch_after().get().saturating_mul(250).clamp(GATHER_MS, LONGEST_MS);
        let wait_ms = self.next_look_ms.saturating_sub(callback.millis());
        // It is more than a period away only if the clock was set back.
        let look_ms = if (1..=period_ms).contains(&wait_ms) {
            (!streams.is_empty()).then_some(wait_ms)
        } else {
            let exchanges = streams.iter().map(|(id, stream)| (*id, &stream.exchange));
            let Touches { is_any_in_use, due } = Touches::of(exchanges, callback.seconds());
            let all_sent = self.touch(due, callback);
            let next_ms = if all_sent { period_ms } else { GATHER_MS };
            self.next_look_ms = callback.millis().saturating_add(next_ms);
            is_any_in_use.then_some(next_ms)
        };
        // The decisions in this callback may also have left something to count or to send.
        let count_ms = self.is_counting.then_some(GATHER_MS);
        self.is_soon = self.calls.is_any_unsent();
        let soon_ms = self.is_soon.then_some(SOON_MS);
        self.host.set_timer([look_ms, count_ms, soon_ms].into_iter().flatten().min().unwrap_or_default());
    }

    /// Tells the store about these sessions; `false` if some have to wait.
    fn touch(&mut self, due: HashMap<SessionId, (LookUp, Vec<u32>)>, callback: &Callback<H>) -> bool {
        for (look_up, streams) in due.into_values() {
            if self.calls.refreshing() >= MOST_TOUCHES {
                return false;
            }
            if self.calls.needs_refresh(&look_up) {
                // One warning is enough, and the host may accept at the next check what it refuses now.
                let Some(call) = self.send(&look_up.touch(&self.config), &Trace::default()) else { break };
                self.calls.sent_refresh(call, look_up, streams, callback.seconds(), callback.millis());
            }
        }
        true
    }

    /// Brings the host's counters up to date.
    pub(crate) fn flush_counts(&mut self) {
        if self.is_counting {
            self.is_counting = false;
            self.metrics.flush(&self.host);
        }
    }

    /// Makes a stream wait until its session has been looked up, with others or with its own lookup; `false` if none
    /// could be sent.
    fn look_up(&mut self, id: u32, look_up: LookUp, is_shareable: bool, trace: &Trace, callback: &Callback<H>) -> bool {
        if !is_shareable {
            return self.call(id, look_up.callout(&self.config), trace, callback);
        }
        if self.calls.join(&look_up, &[id]) {
            return true;
        }
        if !may_send(id, callback) {
            self.by_root(Unsent::LookUp(look_up, vec![id]));
            return true;
        }
        let Some(call) = self.send(&look_up.callout(&self.config), trace) else { return false };
        self.calls.sent(call, look_up.id, id, callback.active, callback.millis());
        self.calls.share(call, look_up);
        true
    }

    /// Sends a callout for a stream; `false` if that is not possible.
    pub(crate) fn call(&mut self, id: u32, callout: Callout, trace: &Trace, callback: &Callback<H>) -> bool {
        if !may_send(id, callback) {
            self.by_root(Unsent::Call(id, callout, trace.clone()));
            return true;
        }
        let Some(call) = self.send(&callout, trace) else { return false };
        self.calls.sent(call, callout.session, id, callback.active, callback.millis());
        true
    }

    /// Makes the root send something, as soon as it can.
    fn by_root(&mut self, unsent: Unsent) {
        self.calls.leave_to_root(unsent);
        self.fire_soon();
    }

    /// Sends a callout, unless the host refuses it, which it does at once.
    fn send(&self, callout: &Callout, trace: &Trace) -> Option<u32> {
        let gateway = &self.config.gateway;
        self.host.send(&gateway.cluster, callout, trace, gateway.timeout).ok()
    }

    fn take_effects(&mut self, exchange: &mut Exchange) {
        let effects = exchange.take_effects();
        self.count(effects.counts);
        for write in effects.cache.iter().chain(&effects.replaced) {
            SharedSlots(&self.host).write(write);
        }
        if let Some(warning) = effects.warning {
            log::warn!("{warning}");
        }
        if let Some(identity) = effects.identity {
            self.publish(&identity);
        }
        // Sent by the root: the answer would be lost if this stream ended before it arrives, and many do.
        if let Some(look_up) = effects.refresh.filter(|look_up| self.calls.needs_refresh(look_up)) {
            self.by_root(Unsent::Refresh(look_up, exchange.trace().clone()));
        }
    }

    /// Makes the session known to the rest of Envoy as the filter states `wasm.session_id` and `wasm.session_state`.
    fn publish(&self, identity: &Identity) {
        self.host.set_filter_state("session_id", identity.id.to_hex().as_str().as_bytes());
        self.host.set_filter_state("session_state", identity.state.as_str().as_bytes());
    }

    /// Counts events. The host sees them within a second.
    fn count(&mut self, counts: Counts) {
        if counts != Counts::default() {
            self.metrics.raise(counts);
            if !self.is_counting {
                self.is_counting = true;
                if !self.is_soon {
                    self.host.set_timer(GATHER_MS);
                }
            }
        }
    }

    fn fire_soon(&mut self) {
        if !self.is_soon {
            self.is_soon = true;
            self.host.set_timer(SOON_MS);
        }
    }
}

/// Whether a callout for this stream can be sent in this callback. In another stream's callback it would belong to that
/// stream, and the answer would be lost if that stream ended first.
fn may_send<H>(id: u32, callback: &Callback<H>) -> bool {
    callback.active.is_none_or(|active| active == id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use session_filter::exchange::LookUp;

    use super::*;
    use crate::host::fake::FakeHost;
    use crate::tests::{ID, config};

    #[test]
    fn what_the_root_is_to_send_keeps_the_timer_soon() {
        let host = FakeHost::default();
        let mut executor = Executor::new(config(&json!({})), host.clone());
        let callback = Callback::new(host.clone(), None);
        let look_up = LookUp { id: ID, seen: session::version::Version::new(1) };
        executor.by_root(Unsent::Refresh(look_up, Trace::default()));
        executor.look_at(&ById::default(), &callback);
        assert_eq!((host.state().timer_ms, executor.take_unsent().len()), (Some(1), 1));
        executor.look_at(&ById::default(), &callback);
        assert_eq!(host.state().timer_ms, None);
    }
}
