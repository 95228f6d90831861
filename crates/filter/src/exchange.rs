//! One request and its response: events in, steps out.
//!
//! There is one [`Exchange`] for each HTTP stream. Its methods are called in the order of the stream's events:
//! [`request`](Exchange::request) once, [`answer`](Exchange::answer) for each callout that a step asked for, and
//! [`response`](Exchange::response) once. It tolerates any other order: streams end early, local replies skip the
//! request, answers arrive late. Each call returns the [`Step`] to take, and [`take_effects`](Exchange::take_effects)
//! then returns what else to do. At most one callout is open at a time, apart from the touches that keep a session in
//! use while its stream is open, for which nothing waits: [`due_touch`](Exchange::due_touch),
//! [`touched`](Exchange::touched). When the stream is over, [`end`](Exchange::end) returns what is left to do.

mod admission;
mod caching;
mod callout;
mod commit;
mod current;
mod event;
mod in_use;
mod login;
mod look_up;
mod request;
mod response;
mod step;
#[cfg(test)]
mod tests;
mod trace;
mod trailers;
mod write_failure;

use core::mem;
use std::rc::Rc;

pub use callout::{Answer, Callout};
pub use event::{Request, ResponseHeaders};
pub use step::{Effects, Identity, LookUp, Step};
pub use trace::Trace;

use crate::cache::{SlotWrite, Slots};
use crate::config::{Access, Config};
use crate::counter::Counter;
use crate::edit::{Edit, values};
use crate::found::FoundSession;
use crate::token::Verified;
use crate::upstream_api::SessionState;
use callout::CallOutcome;
use commit::Commit;
use current::{CurrentSession, Origin};
use in_use::InUse;
use request::Incoming;
use response::HeldResponse;
use session::time::UnixSeconds;
use session::version::Version;

/// The session layer of one HTTP stream.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    phase: Phase,
    effects: Effects,
    /// See [`due_touch`](Self::due_touch).
    in_use: Option<InUse>,
    trace: Trace,
}

#[derive(Debug)]
enum Phase {
    /// No request has been seen yet.
    Idle,
    /// The request is held until its session was looked up.
    LookingUp { incoming: Incoming, verified: Verified, stale: Option<FoundSession>, asked: UnixSeconds },
    /// The upstream has the request, which has no session.
    Off,
    /// The upstream has the request.
    Upstream(CurrentSession),
    /// The upstream has the request while its session is being stored; it may have responded already.
    Creating { session: CurrentSession, held: Option<HeldResponse> },
    /// The response is held until it is known whether the client's token is still good and may be re-issued.
    Renewing { session: CurrentSession, verified: Verified, held: HeldResponse, asked: UnixSeconds },
    /// The response is held until the change that it asked for is committed. If the answer gets lost, the callout
    /// `again` is made.
    Committing { session: CurrentSession, held: HeldResponse, commit: Commit, again: Option<Callout> },
    /// Nothing is left to decide.
    Finished,
}

impl Exchange {
    /// Makes an exchange with this configuration.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, phase: Phase::Idle, effects: Effects::default(), in_use: None, trace: Trace::default() }
    }

    /// The edits for a request that is held, or responded to in place of the upstream. They must be made before that,
    /// and before the rest of the effects ([`take_effects`](Self::take_effects)), because an access log may be written
    /// at any time after that.
    pub fn take_request_edits(&mut self) -> Vec<Edit> {
        mem::take(&mut self.effects.request)
    }

    /// What the callouts of this exchange carry besides their own headers. Touches belong to no request and carry
    /// nothing.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What else there is to do, besides the steps, since the last call.
    pub fn take_effects(&mut self) -> Effects {
        mem::take(&mut self.effects)
    }

    /// The request's headers have arrived: [`Step::Forward`], [`Step::LookUp`] or [`Step::Reply`].
    pub fn request(&mut self, request: &Request<'_>, slots: &impl Slots) -> Step {
        if !matches!(self.phase, Phase::Idle) {
            return Step::Hold;
        }
        let config = Rc::clone(&self.config);
        let header = |name| values(request.headers, name).next().unwrap_or_default();
        let access = if request::is_preflight(request.headers) {
            Access::Off
        } else {
            config.rules.access(header(":authority"), header(":path"))
        };
        let mut incoming = Incoming::read(&config, &access, request, &mut self.effects.counts);
        if access == Access::Off {
            self.effects.counts.add(Counter::RequestOff);
            self.phase = Phase::Off;
            return Step::Forward { edits: request::strip(&config, incoming), callout: None };
        }
        self.trace = Trace::read(request.headers);
        match incoming.take_token() {
            Some(verified) if verified.token.version == Version::UNSTORED => self.go_on(incoming, verified),
            Some(verified) => self.find(incoming, verified, slots, request.now),
            None if request::is_redirected(request.headers) => self.go_late(incoming, SessionState::New),
            None => self.start(incoming, SessionState::New),
        }
    }

    /// A callout has been answered, or could not be sent.
    pub fn answer(&mut self, answer: Answer<'_>, slots: &impl Slots, now: UnixSeconds) -> Step {
        match mem::replace(&mut self.phase, Phase::Finished) {
            Phase::LookingUp { incoming, verified, stale, asked } => {
                let outcome = CallOutcome::of(&self.config, verified.token.id, answer);
                self.looked_up(incoming, verified, stale, outcome, slots, (asked, now))
            }
            Phase::Creating { session, held } => {
                let outcome = CallOutcome::of(&self.config, session.id, answer);
                self.created(session, held, outcome, slots, now)
            }
            Phase::Committing { session, held, commit: Commit::DestroyRival(id), .. } => {
                let outcome = CallOutcome::of(&self.config, id, answer);
                self.rival_destroyed(session, held, id, &outcome, slots, now)
            }
            Phase::Committing { session, mut held, commit, again } => {
                let outcome = CallOutcome::of(&self.config, commit.id(&session), answer);
                match again {
                    Some(callout)
                        if outcome == CallOutcome::Unavailable && matches!(answer, Answer::Received { .. }) =>
                    {
                        self.phase = Phase::Committing { session, held, commit, again: None };
                        Step::Call(callout)
                    }
                    // Not if an answer was lost: then the change may have been made.
                    Some(_) if outcome == CallOutcome::Rotated && held.instructions.give_up_renewal() => {
                        self.write(session, held, slots, now)
                    }
                    _ => self.committed(&session, held, commit, outcome, slots, now),
                }
            }
            Phase::Renewing { session, verified, held, asked } => {
                let outcome = CallOutcome::of(&self.config, verified.token.id, answer);
                self.renewed(&session, verified, held, outcome, (asked, now))
            }
            other => {
                self.phase = other;
                Step::Hold
            }
        }
    }

    /// The response's headers have arrived: [`Step::Deliver`], [`Step::Call`], [`Step::Hold`] or [`Step::Reply`]. The
    /// clock is read only if the time matters, because in Envoy that is a hostcall, too.
    pub fn response(
        &mut self,
        headers: &impl ResponseHeaders,
        slots: &impl Slots,
        clock: impl FnOnce() -> UnixSeconds,
    ) -> Step {
        let says_something = || response::NAMES.iter().any(|name| headers.contains(name));
        match mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Upstream(session) => {
                let says_something = says_something();
                if !says_something && session.is_settled(&self.config) {
                    return Step::Deliver(Vec::new());
                }
                let now = clock();
                let may_get_a_cookie = session.cookie_if_unchanged(&self.config, now).is_some()
                    || session.renewable(&self.config, now).is_some();
                // A response that replaces this one has some of its headers.
                let may_be_replaced = session.origin == Origin::NotStored;
                let held = if says_something || may_get_a_cookie || may_be_replaced {
                    headers
                        .read(|headers| HeldResponse::read(&self.config, headers, session.sent_cookie.adopted(), now))
                } else {
                    HeldResponse::default()
                };
                self.respond(session, held, slots, now)
            }
            Phase::Creating { session, held: None } => {
                let now = clock();
                let held = headers
                    .read(|headers| HeldResponse::read(&self.config, headers, session.sent_cookie.adopted(), now));
                self.phase = Phase::Creating { session, held: Some(held) };
                Step::Hold
            }
            Phase::Off if says_something() => {
                let now = clock();
                let held = headers.read(|headers| HeldResponse::read(&self.config, headers, None, now));
                Step::Deliver(held.into_edits(None, None))
            }
            // A local reply of Envoy's or ours: it has no session.
            _ => Step::Deliver(Vec::new()),
        }
    }

    /// The stream is over: what to put into the cache. The answer to a write under way will not reach any exchange, but
    /// the write may still be made. So copies from before it are no longer good, and neither is what a concurrent
    /// lookup finds.
    pub fn end(mut self, clock: impl FnOnce() -> UnixSeconds) -> Option<SlotWrite> {
        let Phase::Committing { session, commit, .. } = &self.phase else { return None };
        let id = commit.id(session);
        self.keep(id, clock(), None);
        self.effects.cache
    }
}
