//! From the upstream to the client: what the response asked for is committed before it goes out.

use super::callout::{Callout, Outcome};
use super::response::Held;
use super::session::{CookieChange, Origin, Session};
use super::{Exchange, Phase, Step};
use crate::config::{CreatePolicy, OnStoreFailure, OnWriteFailure};
use crate::counter::Counter;
use crate::edit::LocalReply;
use crate::id::SessionId;
use crate::time::UnixSeconds;
use crate::token::{Token, Verified};
use crate::upstream_api::ERROR;
use crate::version::Version;

/// What is being committed, and for which session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Commit {
    Create(SessionId),
    /// With a token of this version.
    Change {
        id: SessionId,
        seen: Version,
    },
    Destroy,
}

impl Commit {
    /// The id that the callout was about.
    pub(super) const fn id(&self, session: &Session) -> SessionId {
        match self {
            Self::Create(id) | Self::Change { id, .. } => *id,
            Self::Destroy => session.id,
        }
    }
}

/// Why a write was not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteFailure {
    Unavailable,
    Invalid,
    TooLarge,
    Ended,
    Refused,
    TooMany,
}

impl Exchange {
    /// A session that was stored while the upstream worked.
    pub(super) fn created(
        &mut self,
        mut session: Session,
        held: Option<Held>,
        outcome: Outcome,
        now: UnixSeconds,
    ) -> Step {
        session.origin = if let Outcome::Found(found) = outcome {
            self.keep(session.id, now, Some(&found));
            self.effects.counts.add(Counter::WriteCreated);
            Origin::JustStored(found.version)
        } else {
            self.effects.counts.add(Counter::WriteUnavailable);
            Origin::NotStored
        };
        if let Some(held) = held {
            self.respond(session, held, now)
        } else {
            self.phase = Phase::Upstream(session);
            Step::Wait
        }
    }

    /// The upstream has answered, and no callout is open.
    pub(super) fn respond(&mut self, session: Session, held: Held, now: UnixSeconds) -> Step {
        let instructions = &held.instructions;
        if instructions.is_invalid {
            self.effects.counts.add(Counter::WriteInvalid);
        }
        if instructions.destroy {
            return match session.origin {
                Origin::Stored { .. } | Origin::JustStored(_) => {
                    let callout = Callout::destroy(&self.config, session.id);
                    self.phase = Phase::Committing { session, held, commit: Commit::Destroy };
                    Step::Call(callout)
                }
                Origin::Fresh | Origin::Late | Origin::Anonymous(_) | Origin::NotStored => {
                    let cookie = session.has_cookie.then(|| self.change_cookie(&session, CookieChange::Clear));
                    Step::Deliver(held.into_edits(cookie, None))
                }
            };
        }
        if instructions.is_invalid {
            return self.write_failed(&session, held, WriteFailure::Invalid, now);
        }
        if instructions.is_write() {
            return self.write(session, held, now);
        }
        if matches!(session.origin, Origin::NotStored) && self.config.on_store_failure == OnStoreFailure::Deny {
            self.effects.counts.add(Counter::RequestDenied);
            return Step::Reply(WriteFailure::Unavailable.reply(None));
        }
        let cookie = self.unchanged_cookie(&session, now);
        Step::Deliver(held.into_edits(cookie, None))
    }

    fn write(&mut self, session: Session, held: Held, now: UnixSeconds) -> Step {
        let instructions = &held.instructions;
        let upstream_cookie = instructions.upstream_cookie.as_deref();
        let (callout, commit) = match &session.origin {
            // Nobody has a token for this id yet: it can be the session's own.
            Origin::Fresh | Origin::Late => {
                let data = instructions.initial_data();
                (Callout::create(&self.config, session.id, &data, false, upstream_cookie), Commit::Create(session.id))
            }
            Origin::Anonymous(verified) => {
                let id = self.config.keyring.promoted_id(verified);
                let data = instructions.initial_data();
                (Callout::create(&self.config, id, &data, true, upstream_cookie), Commit::Create(id))
            }
            Origin::Stored { verified: Verified { token: Token { version: seen, .. }, .. }, .. }
            | Origin::JustStored(seen) => {
                let patches = instructions.patches_json();
                let rotation = instructions.rotation();
                (
                    Callout::change(&self.config, session.id, *seen, patches, rotation, upstream_cookie),
                    Commit::Change { id: session.id, seen: *seen },
                )
            }
            Origin::NotStored => return self.write_failed(&session, held, WriteFailure::Unavailable, now),
        };
        self.phase = Phase::Committing { session, held, commit };
        Step::Call(callout)
    }

    pub(super) fn committed(
        &mut self,
        session: &Session,
        held: Held,
        commit: Commit,
        outcome: Outcome,
        now: UnixSeconds,
    ) -> Step {
        let failure = match (commit, outcome) {
            (Commit::Create(id), Outcome::Found(found)) => {
                self.effects.counts.add(Counter::WriteCreated);
                self.keep(id, now, Some(&found));
                let cookie = self.issue(session, id, found.version, now);
                return Step::Deliver(held.into_edits(Some(cookie), None));
            }
            (Commit::Change { id, seen }, Outcome::Found(found)) => {
                self.effects.counts.add(Counter::WriteChanged);
                self.keep(id, now, Some(&found));
                // A token that only a grace spares does not become a good one by a write.
                let cookie = found.was_good(seen).then(|| self.issue(session, id, found.version, now));
                return Step::Deliver(held.into_edits(cookie, None));
            }
            (_, Outcome::Rotated) => {
                self.effects.counts.add(Counter::WriteRotated);
                WriteFailure::Ended
            }
            (_, Outcome::TooMany) => {
                self.effects.counts.add(Counter::WriteTooMany);
                WriteFailure::TooMany
            }
            (Commit::Destroy, Outcome::Destroyed | Outcome::Missing) => {
                self.effects.counts.add(Counter::WriteDestroyed);
                self.keep(session.id, now, None);
                let cookie = self.change_cookie(session, CookieChange::Clear);
                return Step::Deliver(held.into_edits(Some(cookie), None));
            }
            (_, Outcome::Missing) => {
                self.effects.counts.add(Counter::WriteEnded);
                self.keep(session.id, now, None);
                WriteFailure::Ended
            }
            (Commit::Create(_), Outcome::Taken(created)) => {
                self.effects.counts.add(Counter::WriteRefused);
                return self.refused(session, held, created, now);
            }
            (_, Outcome::Invalid) => {
                self.effects.counts.add(Counter::WriteInvalid);
                WriteFailure::Invalid
            }
            (_, Outcome::TooLarge) => {
                self.effects.counts.add(Counter::WriteTooLarge);
                WriteFailure::TooLarge
            }
            _ => {
                self.effects.counts.add(Counter::WriteUnavailable);
                WriteFailure::Unavailable
            }
        };
        self.write_failed(session, held, failure, now)
    }

    /// The anonymous token of this client was promoted before, by this client long ago or by somebody else.
    ///
    /// Its session is not this write's to join. Once the grace is over no response with a newer token can
    /// be on its way any more, so the client gets a new anonymous token, and its next try succeeds.
    fn refused(&mut self, session: &Session, held: Held, created: Option<UnixSeconds>, now: UnixSeconds) -> Step {
        let is_late = created.is_some_and(|created| now.since(created) <= self.config.timeouts.rotation_grace);
        if is_late {
            return self.write_failed(session, held, WriteFailure::Refused, now);
        }
        let cookie = match self.config.create {
            CreatePolicy::Lazy => self.issue(session, session.fresh_id, Version::UNSTORED, now),
            CreatePolicy::OnWrite | CreatePolicy::Eager => self.change_cookie(session, CookieChange::Clear),
        };
        match self.config.on_write_failure {
            OnWriteFailure::Fail => Step::Reply(WriteFailure::Refused.reply(Some(cookie))),
            OnWriteFailure::Deliver => Step::Deliver(held.into_edits(Some(cookie), Some(WriteFailure::Refused.code()))),
        }
    }

    fn write_failed(&mut self, session: &Session, held: Held, failure: WriteFailure, now: UnixSeconds) -> Step {
        match self.config.on_write_failure {
            OnWriteFailure::Fail => Step::Reply(failure.reply(None)),
            OnWriteFailure::Deliver => {
                // The user asked to be logged out: the cookie goes even if the store could not be told.
                let cookie = if held.instructions.destroy {
                    Some(self.change_cookie(session, CookieChange::Clear))
                } else {
                    self.unchanged_cookie(session, now)
                };
                Step::Deliver(held.into_edits(cookie, Some(failure.code())))
            }
        }
    }

    fn unchanged_cookie(&mut self, session: &Session, now: UnixSeconds) -> Option<String> {
        let change = session.cookie_if_unchanged(&self.config, now)?;
        Some(self.change_cookie(session, change))
    }

    fn issue(&mut self, session: &Session, id: SessionId, version: Version, now: UnixSeconds) -> String {
        self.change_cookie(session, CookieChange::Issue(Token { id, version, issued_at: now }))
    }

    fn change_cookie(&mut self, session: &Session, change: CookieChange) -> String {
        self.effects.counts.add(change.counter());
        session.set_cookie(&self.config, change)
    }
}

impl WriteFailure {
    /// What `x-session-error` says.
    const fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "store-unavailable",
            Self::Invalid => "invalid-patch",
            Self::TooLarge => "data-too-large",
            Self::Ended => "session-ended",
            Self::Refused => "promotion-refused",
            Self::TooMany => "too-many-sessions",
        }
    }

    /// The client's answer in place of the response. Who is to blame decides the status: the upstream for what
    /// can't be saved (502), nobody it could complain to for the rest (503, worth another try).
    pub(super) fn reply(self, set_cookie: Option<String>) -> LocalReply {
        let (status, body) = match self {
            Self::Unavailable => (503, "The session store does not answer. Try again in a moment.\n"),
            Self::Invalid => (502, "The server sent a session change that can't be understood.\n"),
            Self::TooLarge => (502, "The server sent a session change that is too large.\n"),
            Self::Ended => (503, "The session has ended. Try again.\n"),
            Self::Refused => (503, "The session could not be stored. Try again.\n"),
            Self::TooMany => (403, "There are too many sessions of this user. Log out elsewhere first.\n"),
        };
        let mut headers = vec![
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("cache-control", "no-store".to_owned()),
            (ERROR, self.code().to_owned()),
        ];
        if status == 503 {
            headers.push(("retry-after", "1".to_owned()));
        }
        headers.extend(set_cookie.map(|value| ("set-cookie", value)));
        LocalReply { status, headers, body }
    }
}
