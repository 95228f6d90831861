//! One request and its response: events in, steps out.
//!
//! An [`Exchange`] is made for each HTTP stream. Its methods are called in the order of a stream:
//! [`request`](Exchange::request) once, [`answer`](Exchange::answer) for each callout that a step asked for, and
//! [`response`](Exchange::response) once. Nothing bad happens when they aren't: streams end early, local replies skip
//! the request, answers come late. Each call returns the [`Step`] to take; [`take_effects`](Exchange::take_effects)
//! then says what else to do. There is never more than one callout open, but for the touches of a session while the
//! stream goes on, which nothing waits for: [`due_touch`](Exchange::due_touch), [`touched`](Exchange::touched). When
//! the stream is over, [`end`](Exchange::end) says what is left to do.

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
    /// No request was seen yet.
    Idle,
    /// The request is held until its session was looked up.
    LookingUp { incoming: Incoming, verified: Verified, stale: Option<FoundSession>, asked: UnixSeconds },
    /// The upstream has the request, which has no session.
    Off,
    /// The upstream has the request.
    Upstream(CurrentSession),
    /// The upstream has the request, while its session is being stored; maybe it has answered already.
    Creating { session: CurrentSession, held: Option<HeldResponse> },
    /// The response is held until it is known whether its client's token is still good, so that it may be renewed.
    Renewing { session: CurrentSession, verified: Verified, held: HeldResponse, asked: UnixSeconds },
    /// The response is held until what it asked for is committed.
    /// If its answer gets lost, `again` is made.
    Committing { session: CurrentSession, held: HeldResponse, commit: Commit, again: Option<Callout> },
    /// There is nothing left to decide.
    Finished,
}

impl Exchange {
    /// An exchange under this configuration.
    #[must_use]
    pub fn new(config: Rc<Config>) -> Self {
        Self { config, phase: Phase::Idle, effects: Effects::default(), in_use: None, trace: Trace::default() }
    }

    /// The edits for a request that is held, or answered in place of the upstream. To be made before that, and before
    /// the rest of the effects ([`take_effects`](Self::take_effects)): from then on an access log may be written at any
    /// time.
    pub fn take_request_edits(&mut self) -> Vec<Edit> {
        mem::take(&mut self.effects.request)
    }

    /// What the callouts of this exchange carry besides their own headers. Touches belong to no request and carry
    /// nothing.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What there is to do since this was last asked, besides the steps.
    pub fn take_effects(&mut self) -> Effects {
        mem::take(&mut self.effects)
    }

    /// The request's headers have come: [`Step::Forward`], [`Step::LookUp`] or [`Step::Reply`].
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
                    // Not if an answer was lost: then it may have been made.
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

    /// The response's headers have come: [`Step::Deliver`], [`Step::Call`], [`Step::Hold`] or [`Step::Reply`].
    /// The clock is read only if the time matters: in Envoy that is a hostcall, too.
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
                // An answer in its place has some of its headers.
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
            // A reply of Envoy's own, or of ours: there is no session to it.
            _ => Step::Deliver(Vec::new()),
        }
    }

    /// The stream is over: what to put into the cache. The answer to a write under way will reach no exchange, and the
    /// write may be made all the same. So copies from before it are good no more, nor is what a lookup finds that was
    /// under way beside it.
    pub fn end(mut self, clock: impl FnOnce() -> UnixSeconds) -> Option<SlotWrite> {
        let Phase::Committing { session, commit, .. } = &self.phase else { return None };
        let id = commit.id(session);
        self.keep(id, clock(), None);
        self.effects.cache
    }
}
