//! One request and its response: events in, steps out.
//!
//! An [`Exchange`] is made for each HTTP stream. Its methods are called in the order of a stream:
//! [`request`](Exchange::request) once, [`answer`](Exchange::answer) for each callout that a step asked for, and
//! [`response`](Exchange::response) once. Nothing bad happens when they aren't: streams end early, local replies
//! skip the request, answers come late. Each call returns the [`Step`] to take; [`counts`](Exchange::counts)
//! then says what to count. There is never more than one callout open.

mod admission;
mod callout;
mod commit;
mod look_up;
mod request;
mod response;
mod session;
#[cfg(test)]
mod tests;

use core::mem;
use std::rc::Rc;

pub use callout::{Answer, Callout};

use crate::config::Config;
use crate::counter::Counts;
use crate::edit::{Edit, Headers, LocalReply};
use crate::id::SessionId;
use crate::time::UnixSeconds;
use crate::token::Verified;
use crate::upstream_api::State;
use crate::version::Version;
use callout::Outcome;
use commit::Commit;
use request::Incoming;
use response::Held;
use session::Session;

/// What to do next with the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: what is held stays held, what is running goes on.
    Wait,
    /// Hold the request or the response, and make this callout.
    Call(Callout),
    /// Let the request go to the upstream after these edits, and make this callout meanwhile.
    Forward {
        /// For the request's headers.
        edits: Vec<Edit>,
        /// To be made while the upstream works; the response will wait for its answer.
        callout: Option<Callout>,
    },
    /// Let the response go to the client after these edits.
    Deliver(Vec<Edit>),
    /// Answer the client in place of the upstream.
    Reply(LocalReply),
}

/// The headers of a response, read only as far as needed: in Envoy each read is a hostcall.
pub trait ResponseHeaders {
    /// Whether there is a header of this name.
    fn contains(&self, name: &str) -> bool;
    /// All headers.
    fn all(&self) -> Vec<(String, Vec<u8>)>;
}

/// The session layer of one HTTP stream.
#[derive(Debug)]
pub struct Exchange {
    config: Rc<Config>,
    phase: Phase,
    counts: Counts,
}

#[derive(Debug)]
enum Phase {
    /// No request was seen yet.
    Idle,
    /// The request is held until its session was looked up.
    LookingUp { incoming: Incoming, verified: Verified, fresh_id: SessionId },
    /// The upstream has the request.
    Upstream(Session),
    /// The upstream has the request, while its session is being stored; maybe it has answered already.
    Creating { session: Session, held: Option<Held> },
    /// The response is held until what it asked for is committed.
    Committing { session: Session, held: Held, commit: Commit },
    /// There is nothing left to decide.
    Finished,
}

impl Exchange {
    /// An exchange under this configuration.
    #[must_use]
    pub const fn new(config: Rc<Config>) -> Self {
        Self { config, phase: Phase::Idle, counts: Counts(0) }
    }

    /// What happened since this was last asked.
    pub fn counts(&mut self) -> Counts {
        mem::take(&mut self.counts)
    }

    /// Whether the request is held, so that its body and trailers have to be held, too.
    #[must_use]
    pub const fn holds_request(&self) -> bool {
        matches!(self.phase, Phase::LookingUp { .. })
    }

    /// Whether the response is held.
    #[must_use]
    pub const fn holds_response(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. } | Phase::Creating { held: Some(_), .. })
    }

    /// The request's headers have come: [`Step::Forward`] or [`Step::Call`].
    ///
    /// `fresh_id` is random and has never been used; it names the session if this turns out to be a new one.
    pub fn request(&mut self, headers: &Headers, now: UnixSeconds, fresh_id: SessionId) -> Step {
        if !matches!(self.phase, Phase::Idle) {
            return Step::Wait;
        }
        let incoming = Incoming::read(&self.config, headers, now, &mut self.counts);
        match incoming.token {
            Some(verified) if verified.token.version == Version::UNSTORED => self.go_on(incoming, verified, fresh_id),
            Some(verified) => {
                let callout = Callout::look_up(&self.config, verified.token.id, verified.token.version);
                self.phase = Phase::LookingUp { incoming, verified, fresh_id };
                Step::Call(callout)
            }
            None => self.start(incoming, State::New, fresh_id),
        }
    }

    /// A callout has been answered, or could not be sent.
    pub fn answer(&mut self, answer: Answer<'_>, now: UnixSeconds) -> Step {
        let outcome = Outcome::of(answer);
        match mem::replace(&mut self.phase, Phase::Finished) {
            Phase::LookingUp { incoming, verified, fresh_id } => {
                self.looked_up(incoming, verified, fresh_id, outcome, now)
            }
            Phase::Creating { session, held } => self.created(session, held, outcome, now),
            Phase::Committing { session, held, commit } => self.committed(&session, held, commit, outcome, now),
            other => {
                self.phase = other;
                Step::Wait
            }
        }
    }

    /// The response's headers have come: [`Step::Deliver`], [`Step::Call`], [`Step::Wait`] or [`Step::Reply`].
    pub fn response(&mut self, headers: &impl ResponseHeaders, now: UnixSeconds) -> Step {
        match mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Upstream(session) => {
                let held = self.read_response(headers, &session, now);
                self.respond(session, held, now)
            }
            Phase::Creating { session, held: None } => {
                let held = Held::read(&self.config, &headers.all(), &session.sent_cookie);
                self.phase = Phase::Creating { session, held: Some(held) };
                Step::Wait
            }
            // A reply of Envoy's own, or of ours: there is no session to it.
            _ => Step::Deliver(Vec::new()),
        }
    }

    /// Reads the response in full only if there is something in it, or to be added to it.
    fn read_response(&self, headers: &impl ResponseHeaders, session: &Session, now: UnixSeconds) -> Held {
        let is_ours = response::NAMES.iter().any(|name| headers.contains(name));
        if is_ours || session.cookie_if_unchanged(&self.config, now).is_some() {
            Held::read(&self.config, &headers.all(), &session.sent_cookie)
        } else {
            Held::default()
        }
    }
}
