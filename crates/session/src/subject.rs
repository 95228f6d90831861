//! The subject record: which sessions of a subject are good.
//!
//! A session that belongs to a subject lives only while its subject's record [admits](Subject::admits) it. So one write
//! to the record ends all of a subject's sessions, however many there are. If the store loses a record, they end too:
//! the gateway that creates a new record draws a different [`Epoch`], and nothing that the old record had ended comes
//! back.
//!
//! [`Subject::enlist`] adds a session before the session itself is written. If the record changes between the two, the
//! session is no longer good when it is written. [`Subject::revoke`] removes all sessions of a subject,
//! [`Subject::forget`] a single one.

mod codec;

use core::fmt;
use core::num::NonZeroUsize;

pub use crate::epoch::Epoch;
use crate::id::SessionId;
use crate::principal::Principal;
use crate::record::{Session, Stored};
use crate::time::{CLOCK_TOLERANCE, Seconds, UnixSeconds};
use crate::version::Version;

/// How long it may take until an enlisted session is written. After that, it counts as one that will never be written.
const ENLISTING_TIME: Seconds = Seconds::new(60);

/// What is stored for a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    epoch: Epoch,
    /// A session of an earlier epoch that a revocation spared.
    spared: Option<(SessionId, Epoch)>,
    /// When the last of the sessions ends, used or not, plus a little because clocks differ between machines.
    until: UnixSeconds,
    /// In the order in which they were enlisted.
    members: Vec<Member>,
}

/// A session of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: SessionId,
    /// The first of its versions that belongs to the subject.
    pub version: Version,
    /// When it was enlisted.
    pub since: UnixSeconds,
    /// When it ends, used or not.
    pub until: UnixSeconds,
}

/// How many sessions a subject may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimit {
    /// The number, at most [`Subject::MAX_MEMBERS`].
    pub max: NonZeroUsize,
    /// What happens to a further session.
    pub policy: LimitPolicy,
}

/// What happens to a session beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitPolicy {
    /// The oldest ends.
    EndOldest,
    /// It is refused.
    Refuse,
}

/// The subject has as many sessions as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimitError;

impl Subject {
    /// The most sessions that a record lists. Without a limit, a subject may have more: the oldest are then missing
    /// from the list, with no other effect.
    pub const MAX_MEMBERS: usize = 1000;

    /// A record without sessions.
    #[must_use]
    pub const fn new(epoch: Epoch) -> Self {
        Self { epoch, spared: None, until: UnixSeconds::new(0), members: Vec::new() }
    }

    /// The epoch for sessions that are enlisted now.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sessions, in the order in which they were enlisted.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether a session that was enlisted in `epoch` is good. If the number of sessions is `limited`, it must also be
    /// listed: leaving the list is then what ends it, in the same write that adds another one.
    #[must_use]
    pub fn admits(&self, id: SessionId, epoch: Epoch, limited: bool) -> bool {
        let is_current = epoch == self.epoch || self.spared == Some((id, epoch));
        is_current && (!limited || self.members.iter().any(|member| member.id == id))
    }

    /// Whether there is room for one more session.
    #[must_use]
    pub fn has_room_for(&self, id: SessionId, limit: Option<SessionLimit>) -> bool {
        let others = self.members.iter().filter(|member| member.id != id).count();
        limit.is_none_or(|limit| others < limit.max.get())
    }

    /// Adds a session, and returns those that have to end in exchange.
    pub fn enlist(&mut self, member: Member, limit: Option<SessionLimit>) -> Result<Vec<Member>, SessionLimitError> {
        self.members.retain(|other| other.until.plus(CLOCK_TOLERANCE) > member.since);
        let refuses = limit.is_some_and(|limit| limit.policy == LimitPolicy::Refuse);
        if refuses && !self.has_room_for(member.id, limit) {
            return Err(SessionLimitError);
        }
        self.members.retain(|other| other.id != member.id);
        self.members.push(member);
        self.until = self.until.max(member.until.plus(CLOCK_TOLERANCE));
        let max = limit.map_or(Self::MAX_MEMBERS, |limit| limit.max.get());
        let beyond = self.members.len().saturating_sub(max);
        let left_out: Vec<_> = self.members.drain(..beyond).collect();
        Ok(if limit.is_some() { left_out } else { Vec::new() })
    }

    /// Removes these entries from the list. A session that has since been enlisted again has a different entry.
    pub fn forget(&mut self, gone: &[Member]) {
        self.members.retain(|member| !gone.contains(member));
    }

    /// Removes a session that left its subject at `version`.
    pub fn forget_before(&mut self, id: SessionId, version: Version) {
        self.members.retain(|member| member.id != id || member.version >= version);
    }

    /// Ends every session except `except`, given by its id and epoch, which is spared if it is good now. `epoch` is
    /// random; this function makes sure that it differs from the current one.
    #[must_use]
    pub fn revoke(&self, epoch: Epoch, except: Option<(SessionId, Epoch)>) -> Self {
        let spared = except.filter(|(id, epoch)| self.admits(*id, *epoch, false));
        let taken = |epoch| epoch == self.epoch || spared.is_some_and(|(_, spared)| spared == epoch);
        let mut epoch = epoch;
        while taken(epoch) {
            epoch = epoch.next();
        }
        let stays = |member: &&Member| spared.is_some_and(|(id, _)| id == member.id);
        Self { epoch, spared, until: self.until, members: self.members.iter().filter(stays).copied().collect() }
    }

    /// How long the store has to keep the record.
    #[must_use]
    pub fn lifetime_left(&self, now: UnixSeconds) -> Seconds {
        self.until.since(now).max(Seconds::new(1))
    }

    /// Whether `member` may be removed from the list, given what a store has `found` under its id: it is no longer a
    /// session of the subject, and it is not about to be written either.
    #[must_use]
    pub fn is_stale(&self, member: Member, principal: &Principal, found: Option<&Stored>, now: UnixSeconds) -> bool {
        let overdue = now.since(member.since) > ENLISTING_TIME;
        match found {
            Some(Stored::Tombstone(_)) => true,
            Some(Stored::Session(session)) if session.version() < member.version => overdue,
            Some(Stored::Session(session)) => !self.is_session_of(principal, member.id, session, now),
            // Only a creation writes where there is nothing: at the first version, or with a rotation at the second.
            None => overdue || member.version > Version::FIRST.next(),
        }
    }

    /// Whether this is a good session of the `principal` that the record belongs to, listed or not.
    #[must_use]
    pub fn is_session_of(&self, principal: &Principal, id: SessionId, session: &Session, now: UnixSeconds) -> bool {
        let admitted = session.epoch().is_some_and(|epoch| self.admits(id, epoch, false));
        admitted && session.principal() == Some(principal) && session.lifetime_left(now).is_some()
    }
}

impl fmt::Display for SessionLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the subject has reached its limit of sessions")
    }
}

impl core::error::Error for SessionLimitError {}

#[cfg(test)]
mod tests;
