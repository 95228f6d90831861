//! From the request to the upstream: whether the client's token opens a session.

use core::mem;

use super::admission::{Admission, admit};
use super::callout::{Callout, Found, Outcome};
use super::commit::WriteFailure;
use super::request::{Incoming, Outgoing, forward};
use super::session::{Origin, Session};
use super::{Exchange, Phase, Step};
use crate::config::{CreatePolicy, OnStoreFailure};
use crate::counter::Counter;
use crate::id::SessionId;
use crate::merge_patch::Object;
use crate::time::UnixSeconds;
use crate::token::Verified;
use crate::upstream_api::State;
use crate::version::Version;

impl Exchange {
    /// An anonymous session: the client has a token, the store has nothing.
    pub(super) fn go_on(&mut self, incoming: Incoming, verified: Verified, fresh_id: SessionId) -> Step {
        self.counts.add(Counter::RequestActive);
        let session = Session::new(&self.config, &incoming, verified.token.id, Origin::Anonymous(verified), fresh_id);
        self.forward(incoming, session, State::Active, Version::UNSTORED, None)
    }

    /// A session that begins with this request.
    pub(super) fn start(&mut self, incoming: Incoming, state: State, fresh_id: SessionId) -> Step {
        self.counts.add(if state == State::New { Counter::RequestNew } else { Counter::RequestExpired });
        let session = Session::new(&self.config, &incoming, fresh_id, Origin::Fresh, fresh_id);
        if self.config.create != CreatePolicy::Eager {
            return self.forward(incoming, session, state, Version::UNSTORED, None);
        }
        let create = Callout::create(&self.config, session.id, &Object::new(), false, None);
        match self.forward(incoming, session, state, Version::UNSTORED, None) {
            Step::Forward { edits, .. } => {
                if let Phase::Upstream(session) = mem::replace(&mut self.phase, Phase::Finished) {
                    self.phase = Phase::Creating { session, held: None };
                }
                Step::Forward { edits, callout: Some(create) }
            }
            other => other,
        }
    }

    pub(super) fn looked_up(
        &mut self,
        incoming: Incoming,
        verified: Verified,
        fresh_id: SessionId,
        outcome: Outcome,
        now: UnixSeconds,
    ) -> Step {
        let token = verified.token;
        let found = match outcome {
            Outcome::Found(found) => found,
            Outcome::Missing => {
                self.counts.add(Counter::LookupMissing);
                return self.start(incoming, State::Expired, fresh_id);
            }
            _ => {
                self.counts.add(Counter::LookupUnavailable);
                return self.unavailable(incoming, verified, fresh_id);
            }
        };
        self.counts.add(if found.version < token.version { Counter::LookupOlder } else { Counter::LookupFound });
        match admit(&token, &found, now) {
            Admission::Admitted => {
                self.counts.add(Counter::RequestActive);
                let origin = Origin::Stored { verified, is_renewable: token.version >= found.min_version };
                let mut session = Session::new(&self.config, &incoming, token.id, origin, fresh_id);
                if let (Some(_), Some(cookie)) = (&self.config.upstream.cookie, &found.upstream_cookie) {
                    session.sent_cookie.clone_from(cookie);
                }
                self.forward(incoming, session, State::Active, found.version, Some(&found))
            }
            Admission::Rotated => {
                self.counts.add(Counter::TokenRotated);
                self.start(incoming, State::Expired, fresh_id)
            }
            Admission::Foreign => {
                self.counts.add(Counter::TokenForeign);
                self.start(incoming, State::Expired, fresh_id)
            }
            Admission::JustRotated => {
                self.counts.add(Counter::TokenRotated);
                self.counts.add(Counter::RequestExpired);
                let session = Session::new(&self.config, &incoming, fresh_id, Origin::Late, fresh_id);
                self.forward(incoming, session, State::Expired, Version::UNSTORED, None)
            }
        }
    }

    /// The store did not answer. The token stays what it is: an outage logs nobody out.
    fn unavailable(&mut self, incoming: Incoming, verified: Verified, fresh_id: SessionId) -> Step {
        match self.config.on_store_failure {
            OnStoreFailure::Deny => {
                self.counts.add(Counter::RequestDenied);
                self.phase = Phase::Finished;
                Step::Reply(WriteFailure::Unavailable.reply(None))
            }
            OnStoreFailure::Continue => {
                self.counts.add(Counter::RequestUnavailable);
                let token = verified.token;
                let origin = Origin::Stored { verified, is_renewable: false };
                let session = Session::new(&self.config, &incoming, token.id, origin, fresh_id);
                self.forward(incoming, session, State::Unavailable, token.version, None)
            }
        }
    }

    fn forward(
        &mut self,
        incoming: Incoming,
        session: Session,
        state: State,
        version: Version,
        found: Option<&Found>,
    ) -> Step {
        let outgoing = Outgoing { id: session.id, state, version, found, upstream_cookie: &session.sent_cookie };
        let edits = forward(&self.config, incoming, &outgoing);
        self.phase = Phase::Upstream(session);
        Step::Forward { edits, callout: None }
    }
}
