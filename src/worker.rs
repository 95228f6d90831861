//! One configuration in one VM: carries out what the exchanges of its streams decide.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use session::id::SessionId;
use session::time::UnixSeconds;
use session_abi::hostcalls::Side;
use session_filter::config::Config;
use session_filter::counter::Counts;
use session_filter::edit::{GrpcStatus, LocalReply};
use session_filter::exchange::{Answer, Callout, Exchange, LookUp, Step, Trace};

use crate::calls::{Caller, Calls};
use crate::entropy::Entropy;
use crate::host::{self, Moment};
use crate::metrics::Metrics;
use crate::touches::{MOST_TOUCHES, Touches};

/// How long counts may be gathered before Envoy sees them, in milliseconds; also the time between two looks at the streams
/// in progress at least.
const GATHER_MS: u64 = 1000;

/// The answer where the filter itself can't do its work.
pub(crate) const UNABLE: LocalReply = LocalReply {
    status: 500,
    grpc_status: GrpcStatus::Internal,
    headers: Vec::new(),
    body: "The session filter is not able to work.\n",
};

pub(crate) struct Worker {
    pub(crate) config: Rc<Config>,
    entropy: Entropy,
    metrics: Metrics,
    calls: Calls,
    /// Whether there are counts that Envoy has not seen, and the timer runs that will show them.
    is_counting: bool,
    /// When to look at the streams in progress again, in milliseconds since the Unix epoch.
    next_look_ms: u64,
}

/// What became of a step.
pub(crate) enum Flow {
    /// The message in hand goes on: the request or the response.
    Released(Side),
    /// It stays here, or was answered in place.
    Kept,
}

impl Worker {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config: Rc::new(config),
            entropy: Entropy::default(),
            metrics: Metrics::define(),
            calls: Calls::default(),
            is_counting: false,
            next_look_ms: 0,
        }
    }

    pub(crate) fn exchange(&self) -> Exchange {
        Exchange::new(Rc::clone(&self.config))
    }

    /// An id that has never been used, or `None` if the host has no entropy.
    pub(crate) fn fresh_id(&mut self) -> Option<SessionId> {
        self.entropy.session_id()
    }

    /// Carries out the step that an event of this stream led to, and those that follow from it.
    pub(crate) fn carry_out(&mut self, stream: u32, exchange: &mut Exchange, mut step: Step, now: &Moment) -> Flow {
        host::apply(Side::Request, &exchange.take_request_edits());
        let flow = loop {
            let is_sent = match step {
                Step::Hold => break Flow::Kept,
                Step::LookUp { look_up, is_shareable } => {
                    self.look_up(stream, look_up, is_shareable, exchange.trace(), now)
                }
                Step::Call(callout) => self.call(stream, &callout, exchange.trace(), now).is_some(),
                Step::Forward { edits, callout } => {
                    host::apply(Side::Request, &edits);
                    if callout.is_some_and(|callout| self.call(stream, &callout, exchange.trace(), now).is_none()) {
                        // The request goes on all the same; the response will meet the consequence.
                        exchange.answer(Answer::NotSent, &host::SharedSlots, now.seconds());
                    }
                    break Flow::Released(Side::Request);
                }
                Step::Deliver(edits) => {
                    host::apply(Side::Response, &edits);
                    break Flow::Released(Side::Response);
                }
                Step::Reply(reply) => {
                    host::reply(&reply);
                    break Flow::Kept;
                }
            };
            if is_sent {
                break Flow::Kept;
            }
            step = exchange.answer(Answer::NotSent, &host::SharedSlots, now.seconds());
        };
        self.take_effects(exchange, now);
        flow
    }

    /// Whom an answered callout was made for.
    pub(crate) fn take_caller(&mut self, token: u32, now: &Moment) -> Option<Caller> {
        let (caller, sent_ms) = self.calls.answered(token)?;
        self.metrics.callout_took(now.millis().saturating_sub(sent_ms));
        Some(caller)
    }

    /// The store has been told that a session is in use, or could not be.
    pub(crate) fn refreshed(&self, look_up: LookUp, answer: Answer<'_>, asked: UnixSeconds) {
        if let Some(write) = look_up.refresh(&self.config, answer, asked) {
            host::write_slot(&write);
        }
    }

    /// The timer has fired: for the counts, or for the streams in progress. These are looked at only now and then, since
    /// there can be many.
    pub(crate) fn tick<'a>(&mut self, streams: impl Iterator<Item = (u32, &'a Exchange)> + Clone, now: &Moment) {
        self.flush_counts();
        let period_ms = self.config.timeouts.stream_touch_after().get().saturating_mul(250).max(GATHER_MS);
        let wait_ms = self.next_look_ms.saturating_sub(now.millis());
        // Further away than a period only if the clock was set back.
        if (1..=period_ms).contains(&wait_ms) {
            let is_any = streams.take(1).next().is_some();
            host::tick(if is_any { Duration::from_millis(wait_ms) } else { Duration::ZERO });
            return;
        }
        let Touches { is_any_in_use, due } = Touches::of(streams, now.seconds());
        let all_sent = self.touch(due, now);
        let next_ms = if all_sent { period_ms } else { GATHER_MS };
        self.next_look_ms = now.millis().saturating_add(next_ms);
        host::tick(if is_any_in_use { Duration::from_millis(next_ms) } else { Duration::ZERO });
    }

    /// Tells the store of these sessions; `false` if some have to wait.
    fn touch(&mut self, due: HashMap<SessionId, (LookUp, Vec<u32>)>, now: &Moment) -> bool {
        for (look_up, streams) in due.into_values() {
            if self.calls.refreshing() >= MOST_TOUCHES {
                return false;
            }
            if self.calls.needs_refresh(&look_up) {
                // One warning is enough, and what Envoy refuses now it may not at the next look.
                let Some(token) = self.send(&look_up.touch(&self.config), &Trace::default()) else { break };
                self.calls.sent_refresh(token, look_up, streams, now.seconds(), now.millis());
            }
        }
        true
    }

    /// Brings Envoy's metrics up to date.
    pub(crate) fn flush_counts(&mut self) {
        if self.is_counting {
            self.is_counting = false;
            self.metrics.flush();
        }
    }

    /// Has a stream wait until its session was looked up, with others or by a lookup of its own; `false` if none could
    /// be sent.
    fn look_up(&mut self, stream: u32, look_up: LookUp, is_shareable: bool, trace: &Trace, now: &Moment) -> bool {
        if is_shareable && self.calls.join(&look_up, stream) {
            return true;
        }
        let Some(token) = self.call(stream, &look_up.callout(&self.config), trace, now) else { return false };
        if is_shareable {
            self.calls.share(token, &look_up);
        }
        true
    }

    /// Sends a callout for a stream.
    fn call(&mut self, stream: u32, callout: &Callout, trace: &Trace, now: &Moment) -> Option<u32> {
        let token = self.send(callout, trace)?;
        self.calls.sent(token, stream, now.millis());
        Some(token)
    }

    /// Sends a callout, unless Envoy can't, which it says at once: unknown cluster, no endpoint, circuit breaker.
    fn send(&self, callout: &Callout, trace: &Trace) -> Option<u32> {
        let gateway = &self.config.gateway;
        host::http_call(&gateway.cluster, callout, trace, gateway.timeout)
            .inspect_err(|refused| {
                host::warn(&format!("gateway.cluster {}: no callout possible ({refused:?})", gateway.cluster));
            })
            .ok()
    }

    fn take_effects(&mut self, exchange: &mut Exchange, now: &Moment) {
        let effects = exchange.take_effects();
        self.count(effects.counts);
        for write in effects.cache.iter().chain(&effects.replaced) {
            host::write_slot(write);
        }
        if let Some(warning) = effects.warning {
            host::warn(&warning);
        }
        if let Some(identity) = effects.identity {
            host::publish(&identity);
        }
        if let Some(look_up) = effects.refresh.filter(|look_up| self.calls.needs_refresh(look_up))
            && let Some(token) = self.send(&look_up.callout(&self.config), exchange.trace())
        {
            self.calls.sent_refresh(token, look_up, Vec::new(), now.seconds(), now.millis());
        }
    }

    /// Counts for Envoy to see within a second.
    fn count(&mut self, counts: Counts) {
        if counts != Counts::default() {
            self.metrics.raise(counts);
            if !self.is_counting {
                self.is_counting = true;
                host::tick(Duration::from_millis(GATHER_MS));
            }
        }
    }
}
