//! From the upstream to the client: the change that a response asks for is committed before the response is sent.

use super::admission::{Admission, admit};
use super::callout::{CallOutcome, Callout};
use super::current::{CookieChange, CurrentSession, Origin};
use super::response::HeldResponse;
use super::write_failure::WriteFailure;
use super::{Exchange, LookUp, Phase, Step};
use crate::cache::{SlotWrite, Slots, is_replaced};
use crate::config::{CreatePolicy, OnStoreFailure, OnWriteFailure};
use crate::counter::Counter;
use crate::renewals::Renewal;
use crate::token::{Token, Verified};
use session::id::SessionId;
use session::rotation::{Rotation, Standing};
use session::time::UnixSeconds;
use session::version::Version;

/// What is being committed, and for which session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Commit {
    Create(SessionId),
    /// The version of the token that the change is made with.
    Change {
        id: SessionId,
        seen: Version,
    },
    Destroy,
    /// Another session for which the client has a token.
    DestroyRival(SessionId),
}

impl Commit {
    /// The id that the callout was about.
    pub(super) const fn id(&self, session: &CurrentSession) -> SessionId {
        match self {
            Self::Create(id) | Self::Change { id, .. } | Self::DestroyRival(id) => *id,
            Self::Destroy => session.id,
        }
    }
}

impl Exchange {
    /// A session that was stored while the upstream worked.
    pub(super) fn created(
        &mut self,
        mut session: CurrentSession,
        held: Option<HeldResponse>,
        outcome: CallOutcome,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        session.origin = if let CallOutcome::Found(found) = outcome {
            self.keep(session.id, now, Some(&found));
            self.effects.counts.add(Counter::WriteCreated);
            self.uses(Token { id: session.id, version: found.version, issued_at: now }, now);
            Origin::JustStored(found.version)
        } else {
            self.effects.counts.add(Counter::WriteUnavailable);
            Origin::NotStored
        };
        if let Some(held) = held {
            self.respond(session, held, slots, now)
        } else {
            self.phase = Phase::Upstream(session);
            Step::Hold
        }
    }

    /// The upstream has responded, and no callout is open.
    pub(super) fn respond(
        &mut self,
        session: CurrentSession,
        mut held: HeldResponse,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        if session.clears_rivals() {
            held.clear(self.config.cookie.variants());
        }
        let instructions = &held.instructions;
        if instructions.is_invalid {
            self.effects.counts.add(Counter::WriteInvalid);
        }
        if instructions.destroy {
            return self.destroy(session, held, slots, now);
        }
        if instructions.is_invalid {
            return self.write_failed(&session, held, WriteFailure::Invalid, slots, now);
        }
        if instructions.upstream_cookie.is_some() && self.is_renewed_again(&session, now) {
            held.instructions.upstream_cookie = None;
        }
        if held.instructions.is_mere_renewal() && self.is_abandoned(&session, slots, now) {
            held.instructions.upstream_cookie = None;
        }
        if held.instructions.is_write() {
            return self.write(session, held, slots, now);
        }
        if matches!(session.origin, Origin::NotStored) && self.config.on_store_failure == OnStoreFailure::Deny {
            self.effects.counts.add(Counter::RequestDenied);
            return Step::Reply(held.replace_by(WriteFailure::Unavailable.reply(None)));
        }
        if let Some(verified) = session.renewable(&self.config, now) {
            let callout = LookUp { id: session.id, seen: verified.token.version }.callout(&self.config);
            self.phase = Phase::Renewing { session, verified, held, asked: now };
            return Step::Call(callout);
        }
        let cookie = self.unchanged_cookie(&session, slots, now);
        Step::Deliver(held.into_edits(cookie, None))
    }

    /// Ends the session, and before it the other sessions for which the client has a token. A user who logs out means
    /// the browser as a whole, and without this session's cookie the next request would use another one's.
    fn destroy(
        &mut self,
        mut session: CurrentSession,
        mut held: HeldResponse,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        let rival = session.rivals.pop();
        if session.clears_rivals() {
            held.clear(self.config.cookie.variants());
        }
        let (callout, commit) = match (session.origin, rival) {
            (_, Some(rival)) => {
                (Callout::destroy(&self.config, rival.id, rival.version), Commit::DestroyRival(rival.id))
            }
            (
                Origin::Stored { verified: Verified { token: Token { version: seen, .. }, .. }, .. }
                | Origin::JustStored(seen),
                None,
            ) => (Callout::destroy(&self.config, session.id, seen), Commit::Destroy),
            // The client has a better token than the one that it sent, and this logout must not remove it.
            (Origin::Late, None) => {
                self.effects.counts.add(Counter::WriteRotated);
                return Step::Deliver(held.into_edits(None, None));
            }
            (Origin::Fresh | Origin::Anonymous(_) | Origin::NotStored, None) => {
                let change = session.has_cookie.then_some(CookieChange::Clear);
                let cookie = self.replace_cookie(&session, change, slots, now);
                return Step::Deliver(held.into_edits(cookie, None));
            }
        };
        self.phase = Phase::Committing { session, held, commit, again: None };
        Step::Call(callout)
    }

    /// Another session of the client has ended, or could not be ended.
    pub(super) fn rival_destroyed(
        &mut self,
        session: CurrentSession,
        held: HeldResponse,
        id: SessionId,
        outcome: &CallOutcome,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        match outcome {
            CallOutcome::Destroyed | CallOutcome::Missing => {
                self.effects.counts.add(Counter::WriteDestroyed);
                self.keep(id, now, None);
                self.destroy(session, held, slots, now)
            }
            // A login or rotation has already invalidated the token.
            CallOutcome::Rotated => self.destroy(session, held, slots, now),
            _ => {
                self.effects.counts.add(Counter::WriteUnavailable);
                self.write_failed(&session, held, WriteFailure::Unavailable, slots, now)
            }
        }
    }

    /// A token that should be re-issued was checked again. Only a good one is re-issued: this response may be late, and
    /// a login may have given the client a better one.
    pub(super) fn renewed(
        &mut self,
        session: &CurrentSession,
        verified: Verified,
        held: HeldResponse,
        outcome: CallOutcome,
        (asked, now): (UnixSeconds, UnixSeconds),
    ) -> Step {
        let token = verified.token;
        let cookie = match outcome {
            CallOutcome::Found(found) => {
                self.keep(token.id, asked, Some(&found));
                let admission = admit(&token, &found, self.config.timeouts.rotation_grace, now);
                let is_good = admission == Admission::Own(Standing::Good);
                is_good.then(|| self.issue(session, token.id, token.version, now))
            }
            _ => None,
        };
        Step::Deliver(held.into_edits(cookie, None))
    }

    /// Whether no client will return to this session unless an upstream writes to it: it could not be stored, it
    /// belongs to a part of a page, or an earlier response has given the client a different one.
    fn is_abandoned(&self, session: &CurrentSession, slots: &impl Slots, now: UnixSeconds) -> bool {
        session.is_unstored_part()
            || matches!(session.origin, Origin::NotStored)
            || session.replaces().is_some_and(|id| is_replaced(slots, id, &self.config.cache, session.began, now))
    }

    /// Whether a renewal of the upstream's cookie is ignored, because it is renewed with each request.
    fn is_renewed_again(&mut self, session: &CurrentSession, now: UnixSeconds) -> bool {
        let renewal = self.config.renewals.try_borrow_mut().map(|mut renewals| renewals.add(session.id, now));
        let Ok(Renewal::Ignored { is_worth_a_line }) = renewal else { return false };
        self.effects.counts.add(Counter::AdoptionRenewedAgain);
        if let Some(name) = self.config.upstream.cookie.as_deref().filter(|_| is_worth_a_line) {
            self.effects.warning =
                Some(format!("upstream.cookie {name}: the upstream renews its id with each request"));
        }
        true
    }

    pub(super) fn write(
        &mut self,
        session: CurrentSession,
        held: HeldResponse,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        let instructions = &held.instructions;
        let upstream_cookie = instructions.upstream_cookie.as_deref();
        let rotation = instructions.rotation();
        // If the answer to a rotation or login were lost, the client would be left with a token that soon ends.
        let rotates = rotation > Rotation::None
            || instructions.patches.iter().any(|patch| patch.contains_key(&self.config.subject_key));
        let (callout, commit) = match &session.origin {
            // No client has a token for this id yet, so the session can keep it.
            Origin::Fresh | Origin::Late => {
                let data = instructions.initial_data();
                let call = Callout::create(&self.config, session.id, &data, rotation, false, upstream_cookie);
                (call, Commit::Create(session.id))
            }
            Origin::Anonymous(verified) => {
                let id = self.config.keyring.promoted_id(verified);
                let data = instructions.initial_data();
                // Others may have this token, because it could have been planted. With a rotation none of them joins.
                let call = Callout::create(&self.config, id, &data, rotation, true, upstream_cookie);
                (call, Commit::Create(id))
            }
            Origin::Stored { verified: Verified { token: Token { version: seen, .. }, .. }, .. }
            | Origin::JustStored(seen) => {
                let patches = instructions.patches_json();
                (
                    Callout::change(
                        &self.config,
                        session.id,
                        *seen,
                        patches,
                        rotation,
                        upstream_cookie,
                        session.fresh_id.second_half(),
                    ),
                    Commit::Change { id: session.id, seen: *seen },
                )
            }
            Origin::NotStored => {
                return self.write_failed(&session, held, WriteFailure::Unavailable, slots, now);
            }
        };
        // Under the same name, so that the change is made once.
        let again = (rotates && matches!(commit, Commit::Change { .. })).then(|| callout.clone());
        self.phase = Phase::Committing { session, held, commit, again };
        Step::Call(callout)
    }

    pub(super) fn committed(
        &mut self,
        session: &CurrentSession,
        held: HeldResponse,
        commit: Commit,
        outcome: CallOutcome,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        let failure = match (commit, outcome) {
            (Commit::Create(id), CallOutcome::Found(found)) => {
                self.effects.counts.add(Counter::WriteCreated);
                self.keep(id, now, Some(&found));
                self.remember_replaced(session, now);
                self.uses(Token { id, version: found.version, issued_at: now }, now);
                let cookie = self.issue(session, id, found.version, now);
                return Step::Deliver(held.into_edits(Some(cookie), None));
            }
            (Commit::Change { id, seen }, CallOutcome::Found(found)) => {
                self.effects.counts.add(Counter::WriteChanged);
                self.keep(id, now, Some(&found));
                // A write does not turn a token that is valid only by a grace into a good one.
                let cookie = found.was_good(seen).then(|| {
                    self.remember_replaced(session, now);
                    self.uses(Token { id, version: found.version, issued_at: now }, now);
                    self.issue(session, id, found.version, now)
                });
                return Step::Deliver(held.into_edits(cookie, None));
            }
            // The client has logged in since it requested this logout, and stays logged in.
            (Commit::Destroy, CallOutcome::Rotated) => {
                self.effects.counts.add(Counter::WriteRotated);
                return Step::Deliver(held.into_edits(None, None));
            }
            // The session had ended before, and the client may have begun a new one.
            (Commit::Destroy, CallOutcome::Missing) => {
                self.in_use = None;
                self.effects.counts.add(Counter::WriteDestroyed);
                self.keep(session.id, now, None);
                let is_replaced = is_replaced(slots, session.id, &self.config.cache, session.began, now);
                let cookie = (!is_replaced).then(|| self.end_cookie(session, now));
                return Step::Deliver(held.into_edits(cookie, None));
            }
            // Parallel requests renew the id at the same time, and the first one has invalidated the tokens of the
            // others. Nothing is lost.
            (Commit::Change { .. }, CallOutcome::Rotated) if held.instructions.is_mere_renewal() => {
                self.effects.counts.add(Counter::WriteRotated);
                return Step::Deliver(held.into_edits(None, None));
            }
            (_, CallOutcome::Rotated) => {
                self.effects.counts.add(Counter::WriteRotated);
                WriteFailure::Ended
            }
            (_, CallOutcome::TooMany) => {
                self.effects.counts.add(Counter::WriteTooMany);
                WriteFailure::TooMany
            }
            (Commit::Destroy, CallOutcome::Destroyed) => {
                self.in_use = None;
                self.effects.counts.add(Counter::WriteDestroyed);
                self.keep(session.id, now, None);
                // A session that began with this very request is not the one that the client's cookie stands for.
                let cookie = match session.origin {
                    Origin::JustStored(_) => self.replace_cookie(session, Some(CookieChange::Clear), slots, now),
                    _ => Some(self.end_cookie(session, now)),
                };
                return Step::Deliver(held.into_edits(cookie, None));
            }
            (_, CallOutcome::Missing) => {
                self.effects.counts.add(Counter::WriteEnded);
                self.keep(session.id, now, None);
                // The upstream has only named a session to which no client will return.
                if held.instructions.is_mere_renewal() {
                    return Step::Deliver(held.into_edits(None, None));
                }
                WriteFailure::Ended
            }
            (Commit::Create(_), CallOutcome::Taken(created)) => {
                self.effects.counts.add(Counter::WriteRefused);
                return self.refused(session, held, created, slots, now);
            }
            (_, CallOutcome::Invalid) => {
                self.effects.counts.add(Counter::WriteInvalid);
                WriteFailure::Invalid
            }
            (_, CallOutcome::TooLarge) => {
                self.effects.counts.add(Counter::WriteTooLarge);
                WriteFailure::TooLarge
            }
            _ => {
                self.effects.counts.add(Counter::WriteUnavailable);
                WriteFailure::Unavailable
            }
        };
        self.write_failed(session, held, failure, slots, now)
    }

    /// The anonymous token of this client has been promoted before, by this client long ago or by another.
    ///
    /// This write must not join its session. A request that arrived after the grace was sent with the best token that
    /// its client has, so the client gets a new anonymous one, and its next attempt succeeds. The response to a request
    /// that arrived earlier may be late.
    fn refused(
        &mut self,
        session: &CurrentSession,
        held: HeldResponse,
        created: Option<UnixSeconds>,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        let is_late = match created {
            Some(created) => session.began.since(created) <= self.config.timeouts.rotation_grace,
            None => session.replaces().is_some_and(|id| is_replaced(slots, id, &self.config.cache, session.began, now)),
        };
        if is_late {
            return self.write_failed(session, held, WriteFailure::Refused, slots, now);
        }
        let cookie = match self.config.create {
            CreatePolicy::Lazy => self.issue(session, session.fresh_id, Version::UNSTORED, now),
            CreatePolicy::OnWrite | CreatePolicy::Eager => self.change_cookie(session, CookieChange::Clear),
        };
        match self.config.on_write_failure {
            OnWriteFailure::Fail => Step::Reply(held.replace_by(WriteFailure::Refused.reply(Some(cookie)))),
            OnWriteFailure::Deliver => Step::Deliver(held.into_edits(Some(cookie), Some(WriteFailure::Refused.code()))),
        }
    }

    fn write_failed(
        &mut self,
        session: &CurrentSession,
        held: HeldResponse,
        failure: WriteFailure,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        match self.config.on_write_failure {
            OnWriteFailure::Fail => Step::Reply(held.replace_by(failure.reply(None))),
            OnWriteFailure::Deliver => {
                // The user asked to be logged out, so the cookie is cleared even if the store could not be reached.
                let cookie = if held.instructions.destroy {
                    Some(self.change_cookie(session, CookieChange::Clear))
                } else {
                    self.unchanged_cookie(session, slots, now)
                };
                Step::Deliver(held.into_edits(cookie, Some(failure.code())))
            }
        }
    }

    fn unchanged_cookie(&mut self, session: &CurrentSession, slots: &impl Slots, now: UnixSeconds) -> Option<String> {
        self.replace_cookie(session, session.cookie_if_unchanged(&self.config, now), slots, now)
    }

    /// Changes a cookie although nothing was written, unless an earlier response has already replaced it: the client
    /// may have logged in with the token that it got then.
    fn replace_cookie(
        &mut self,
        session: &CurrentSession,
        change: Option<CookieChange>,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Option<String> {
        let change = change?;
        if session.replaces().is_some_and(|id| is_replaced(slots, id, &self.config.cache, session.began, now)) {
            return None;
        }
        self.remember_replaced(session, now);
        Some(self.change_cookie(session, change))
    }

    /// Makes later responses leave the client's cookie alone, because it is about to be replaced by another session's.
    fn remember_replaced(&mut self, session: &CurrentSession, now: UnixSeconds) {
        if let Some(id) = session.replaces() {
            self.effects.replaced = Some(SlotWrite::replaced(id, now, &self.config.cache));
        }
    }

    /// Clears the cookie of a session that has ended.
    fn end_cookie(&mut self, session: &CurrentSession, now: UnixSeconds) -> String {
        self.effects.replaced = Some(SlotWrite::replaced(session.id, now, &self.config.cache));
        self.change_cookie(session, CookieChange::Clear)
    }

    fn issue(&mut self, session: &CurrentSession, id: SessionId, version: Version, now: UnixSeconds) -> String {
        self.change_cookie(session, CookieChange::Issue(Token { id, version, issued_at: now }))
    }

    fn change_cookie(&mut self, session: &CurrentSession, change: CookieChange) -> String {
        self.effects.counts.add(change.counter());
        session.set_cookie(&self.config, change)
    }
}
