//! The records of subjects in the store. They enlist sessions, admit them, and end them.
//!
//! [`session::subject`] decides what a record says. This module reads it, and writes it with compare-and-swap.

use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use session::id::SessionId;
use session::principal::Principal;
use session::record::{DecodeError, Session, Stored, Tombstone};
use session::subject::{Epoch, Member, Subject};
use session::time::{Seconds, UnixSeconds};
use session::version::Version;
use tokio::time::timeout;

use super::striped_lock::{Attempts, StripedLock};
use super::{SessionError, Settings};
use crate::metrics::Metrics;
use crate::store::{Cas, CountingStore, Key, Replaced, Store, StoreError};

/// How many of a subject's sessions are read at once.
const TOGETHER: usize = 16;

pub(super) struct Subjects<S> {
    store: Arc<CountingStore<S>>,
    settings: Arc<Settings>,
    metrics: Metrics,
    losers: StripedLock,
}

/// The result of enlisting a session.
pub(super) struct Enlisted {
    pub(super) epoch: Epoch,
    /// The sessions that had to end in exchange.
    pub(super) ended: Vec<Member>,
}

/// What the store contains under the id of a session that a record lists.
struct MemberState {
    member: Member,
    found: Result<Option<Stored>, DecodeError>,
    remaining: Seconds,
}

/// A subject's session, and how long it has left in the store.
pub(super) struct MemberSession {
    pub(super) id: SessionId,
    pub(super) session: Session,
    pub(super) remaining: Seconds,
}

impl<S: Store> Subjects<S> {
    pub(super) fn new(store: Arc<CountingStore<S>>, settings: Arc<Settings>, metrics: Metrics) -> Self {
        let losers = StripedLock::new(settings.environment.clone());
        Self { store, settings, metrics, losers }
    }

    /// Whether the session's subject, if it has one, admits it.
    pub(super) async fn admit(&self, id: SessionId, session: &Session) -> Result<bool, SessionError> {
        let Some(principal) = session.principal() else {
            return Ok(true);
        };
        // A lost record admits no session: it may have ended this session before it was lost.
        let (Some(epoch), Some(entry)) = (session.epoch(), self.store.get(&self.key(principal)).await?) else {
            return Ok(false);
        };
        Ok(Subject::stored_admits(&entry.value, id, epoch, self.is_limited())?)
    }

    /// Enlists `session`, which will next be written under `id`, in its subject's record.
    pub(super) async fn enlist(
        &self,
        principal: &Principal,
        id: SessionId,
        session: &Session,
    ) -> Result<Enlisted, SessionError> {
        let key = self.key(principal);
        let mut attempts = Attempts::default();
        loop {
            let now = self.now();
            let entry = self.store.get(&key).await?;
            let mut record = match &entry {
                Some(entry) => Subject::decode(&entry.value)?,
                None => Subject::new(self.random_epoch()?),
            };
            let member = Member { id, version: session.version(), since: now, until: session.end() };
            self.make_room(&mut record, principal, id, now).await?;
            let ended = record.enlist(member, self.settings.session_limit)?;
            if self.write(&key, entry.map(|entry| entry.cas), &record, now).await? {
                return Ok(Enlisted { epoch: record.epoch(), ended });
            }
            // Enlisting twice is the same as once, so a lost answer needs no closer look.
            self.metrics.cas_retry();
            self.losers.after_loss(&key, &mut attempts).await;
        }
    }

    /// Ends all of the subject's sessions, or all except one, and returns those that were listed.
    pub(super) async fn revoke(
        &self,
        principal: &Principal,
        except: Option<SessionId>,
    ) -> Result<Vec<Member>, SessionError> {
        let key = self.key(principal);
        let mut attempts = Attempts::default();
        loop {
            let now = self.now();
            // Without a record no session is good, and the writer that creates a new one draws a different epoch.
            let Some(entry) = self.store.get(&key).await? else {
                return Ok(Vec::new());
            };
            let epoch = self.random_epoch()?;
            let (revoked, listed) = match Subject::decode(&entry.value) {
                Ok(record) => {
                    let except = match except {
                        Some(id) => self.good_session(&record, principal, id, now).await?,
                        None => None,
                    };
                    (record.revoke(epoch, except), record.members().to_vec())
                }
                // An unreadable record can be ended all the same.
                Err(_) => (Subject::new(epoch), Vec::new()),
            };
            if self.write(&key, Some(entry.cas), &revoked, now).await? {
                return Ok(listed);
            }
            self.metrics.cas_retry();
            self.losers.after_loss(&key, &mut attempts).await;
        }
    }

    /// The subject's good sessions in the order in which they were enlisted, and the list entries that no longer stand
    /// for one.
    pub(super) async fn list(&self, principal: &Principal) -> Result<(Vec<MemberSession>, Vec<Member>), SessionError> {
        let now = self.now();
        let Some(entry) = self.store.get(&self.key(principal)).await? else {
            return Ok((Vec::new(), Vec::new()));
        };
        let record = Subject::decode(&entry.value)?;
        let (mut listed, mut stale) = (Vec::new(), Vec::new());
        for MemberState { member, found, remaining } in self.look_at(record.members()).await? {
            match found {
                Ok(Some(Stored::Session(session))) if record.is_session_of(principal, member.id, &session, now) => {
                    listed.push(MemberSession { id: member.id, session, remaining });
                }
                Ok(found) if record.is_stale(member, principal, found.as_ref(), now) => stale.push(member),
                Ok(_) | Err(_) => {}
            }
        }
        Ok((listed, stale))
    }

    /// Removes entries from the subject's list, as far as possible.
    pub(super) async fn forget(&self, principal: &Principal, gone: &[Member]) {
        self.tidy(principal, |record| record.forget(gone)).await;
    }

    /// Removes a session that left the subject at `version` from its list, as far as possible.
    pub(super) async fn forget_before(&self, principal: &Principal, id: SessionId, version: Version) {
        self.tidy(principal, |record| record.forget_before(id, version)).await;
    }

    /// Replaces sessions of the subject that are no longer good with tombstones, as far as possible.
    pub(super) async fn bury(&self, principal: &Principal, ended: &[Member]) {
        let buried = async {
            for some in ended.chunks(TOGETHER) {
                for buried in join_all(some.iter().map(|member| self.bury_one(principal, member.id))).await {
                    if let Err(error) = buried {
                        tracing::debug!(%error, "an ended session could not be removed");
                    }
                }
            }
        };
        if timeout(self.settings.store_timeout, buried).await.is_err() {
            tracing::debug!("ended sessions could not be removed");
        }
    }

    async fn bury_one(&self, principal: &Principal, id: SessionId) -> Result<(), SessionError> {
        let key = self.settings.keyspace.session(id);
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(());
        };
        if let Stored::Session(session) = Stored::decode(&entry.value)?
            && session.principal() == Some(principal)
            && !self.admit(id, &session).await?
        {
            let tombstone = Tombstone { ended: self.now() }.encode();
            // If the value differs by then, it was changed in time or is gone.
            self.store.replace(&key, &tombstone, entry.cas, self.settings.tombstone_ttl).await?;
        }
        Ok(())
    }

    /// The session and its epoch, if it is a good one of the subject.
    async fn good_session(
        &self,
        record: &Subject,
        principal: &Principal,
        id: SessionId,
        now: UnixSeconds,
    ) -> Result<Option<(SessionId, Epoch)>, SessionError> {
        let Some(entry) = self.store.get(&self.settings.keyspace.session(id)).await? else {
            return Ok(None);
        };
        // A damaged session can't be kept, and must not prevent the others from ending.
        let Ok(Stored::Session(session)) = Stored::decode(&entry.value) else {
            return Ok(None);
        };
        let is_good = record.is_session_of(principal, id, &session, now);
        let epoch = session.epoch().filter(|epoch| is_good && record.admits(id, *epoch, self.is_limited()));
        Ok(epoch.map(|epoch| (id, epoch)))
    }

    /// Forgets the sessions that are over, before a session is refused or ended because there is no room.
    async fn make_room(
        &self,
        record: &mut Subject,
        principal: &Principal,
        id: SessionId,
        now: UnixSeconds,
    ) -> Result<(), SessionError> {
        if record.has_room_for(id, self.settings.session_limit) {
            return Ok(());
        }
        let mut stale = Vec::new();
        for MemberState { member, found, .. } in self.look_at(record.members()).await? {
            // An unreadable session may be a newer gateway's, so it counts.
            if found.is_ok_and(|found| record.is_stale(member, principal, found.as_ref(), now)) {
                stale.push(member);
            }
        }
        record.forget(&stale);
        Ok(())
    }

    async fn look_at(&self, members: &[Member]) -> Result<Vec<MemberState>, SessionError> {
        let mut all = Vec::with_capacity(members.len());
        for some in members.chunks(TOGETHER) {
            all.extend(try_join_all(some.iter().map(|member| self.look_at_one(*member))).await?);
        }
        Ok(all)
    }

    async fn look_at_one(&self, member: Member) -> Result<MemberState, StoreError> {
        let entry = self.store.get(&self.settings.keyspace.session(member.id)).await?;
        let remaining = entry.as_ref().map_or(Seconds::ZERO, |entry| entry.remaining);
        let found = entry.map(|entry| Stored::decode(&entry.value)).transpose();
        Ok(MemberState { member, found, remaining })
    }

    /// Changes the subject's list, unless there is nothing to change.
    async fn tidy(&self, principal: &Principal, change: impl Fn(&mut Subject)) {
        let tidied = timeout(self.settings.store_timeout, async {
            let key = self.key(principal);
            let mut attempts = Attempts::default();
            while let Some(entry) = self.store.get(&key).await? {
                let record = Subject::decode(&entry.value)?;
                let mut tidied = record.clone();
                change(&mut tidied);
                if tidied == record || self.write(&key, Some(entry.cas), &tidied, self.now()).await? {
                    break;
                }
                self.losers.after_loss(&key, &mut attempts).await;
            }
            Ok::<_, SessionError>(())
        });
        if let Err(error) = tidied.await.unwrap_or(Err(SessionError::TimedOut)) {
            tracing::debug!(%error, "a subject's list could not be updated");
        }
    }

    /// Writes a record in place of the one that `cas` names, or as a new one. `false` means that it has to be read
    /// again.
    async fn write(
        &self,
        key: &Key,
        cas: Option<Cas>,
        record: &Subject,
        now: UnixSeconds,
    ) -> Result<bool, SessionError> {
        let (value, lifetime) = (record.encode(), record.lifetime_left(now));
        let written = match cas {
            Some(cas) => self.store.replace(key, &value, cas, lifetime).await.map(|it| it == Replaced::Stored),
            None => self.store.add(key, &value, lifetime).await,
        };
        match written {
            Ok(written) => Ok(written),
            Err(StoreError::Unknown(_)) => {
                self.metrics.lost_answer();
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_limited(&self) -> bool {
        self.settings.session_limit.is_some()
    }

    fn key(&self, principal: &Principal) -> Key {
        self.settings.keyspace.subject(principal)
    }

    fn now(&self) -> UnixSeconds {
        self.settings.environment.now()
    }

    fn random_epoch(&self) -> Result<Epoch, SessionError> {
        self.settings.environment.random_bytes().map(Epoch::from_random).map_err(SessionError::Random)
    }
}
