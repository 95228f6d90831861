//! The records of subjects in the store: sessions are enlisted in them, admitted by them, ended with them.
//!
//! What a record says is decided in [`session::subject`]; here it is read, and written by compare-and-swap.

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
use super::{Look, SessionError, Settings, now};
use crate::metrics::Metrics;
use crate::store::{Cas, CountingStore, Key, Replaced, Store, StoreError};

/// How many of a subject's sessions are looked at together.
const TOGETHER: usize = 16;

pub(super) struct Subjects<S> {
    store: Arc<CountingStore<S>>,
    settings: Arc<Settings>,
    metrics: Metrics,
    losers: StripedLock,
}

/// What a session was enlisted with.
pub(super) struct Enlisted {
    pub(super) epoch: Epoch,
    /// The sessions that had to leave for it.
    pub(super) ended: Vec<Member>,
}

/// What the store has under the id of a session that a record lists.
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
        Self { store, settings, metrics, losers: StripedLock::new() }
    }

    /// Whether the session's subject, if it has one, lets it live.
    pub(super) async fn admit(&self, id: SessionId, session: &Session, look: Look) -> Result<bool, SessionError> {
        let Some(principal) = session.principal() else {
            return Ok(true);
        };
        // A record that is gone is not one that admits: it may have ended this session before it was lost.
        let (Some(epoch), Some(entry)) = (session.epoch(), look.at(&*self.store, &self.key(principal)).await?) else {
            return Ok(false);
        };
        Ok(Subject::stored_admits(&entry.value, id, epoch, self.is_limited())?)
    }

    /// Enters `session`, which is to be written under `id` next, in its subject's record.
    pub(super) async fn enlist(
        &self,
        principal: &Principal,
        id: SessionId,
        session: &Session,
    ) -> Result<Enlisted, SessionError> {
        let key = self.key(principal);
        let mut attempts = Attempts::default();
        loop {
            let now = now();
            let entry = self.store.get(&key).await?;
            let mut record = match &entry {
                Some(entry) => Subject::decode(&entry.value)?,
                None => Subject::new(random_epoch()?),
            };
            let member = Member { id, version: session.version(), since: now, until: session.end() };
            self.make_room(&mut record, principal, id, now).await?;
            let ended = record.enlist(member, self.settings.session_limit)?;
            if self.write(&key, entry.map(|entry| entry.cas), &record, now).await? {
                return Ok(Enlisted { epoch: record.epoch(), ended });
            }
            // Entering twice is the same as once, so a lost answer is no reason to look closer.
            self.metrics.cas_retry();
            self.losers.after_loss(&key, &mut attempts).await;
        }
    }

    /// Ends all of the subject's sessions, or all but one; returns those that were listed.
    pub(super) async fn revoke(
        &self,
        principal: &Principal,
        except: Option<SessionId>,
    ) -> Result<Vec<Member>, SessionError> {
        let key = self.key(principal);
        let mut attempts = Attempts::default();
        loop {
            let now = now();
            // Without a record no session is good, and the writer that makes a new one draws another epoch.
            let Some(entry) = self.store.get(&key).await? else {
                return Ok(Vec::new());
            };
            let epoch = random_epoch()?;
            let (revoked, listed) = match Subject::decode(&entry.value) {
                Ok(record) => {
                    let except = match except {
                        Some(id) => self.good_session(&record, principal, id, now).await?,
                        None => None,
                    };
                    (record.revoke(epoch, except), record.members().to_vec())
                }
                // What can't be read can be ended all the same.
                Err(_) => (Subject::new(epoch), Vec::new()),
            };
            if self.write(&key, Some(entry.cas), &revoked, now).await? {
                return Ok(listed);
            }
            self.metrics.cas_retry();
            self.losers.after_loss(&key, &mut attempts).await;
        }
    }

    /// The subject's good sessions in the order in which they were enlisted, and list entries that stand for none.
    pub(super) async fn list(&self, principal: &Principal) -> Result<(Vec<MemberSession>, Vec<Member>), SessionError> {
        let now = now();
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

    /// Takes entries off the subject's list, as well as it can be done.
    pub(super) async fn forget(&self, principal: &Principal, gone: &[Member]) {
        self.tidy(principal, |record| record.forget(gone)).await;
    }

    /// Takes a session off the subject's list that left it at `version`, as well as it can be done.
    pub(super) async fn forget_before(&self, principal: &Principal, id: SessionId, version: Version) {
        self.tidy(principal, |record| record.forget_before(id, version)).await;
    }

    /// Puts tombstones where sessions of the subject are that are not good any more, as well as it can be done.
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
            && !self.admit(id, &session, Look::Once).await?
        {
            let tombstone = Tombstone { ended: now() }.encode();
            // If it is another value by then, it was changed in time or is gone.
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
        // A damaged session can't be kept, and must not keep the others from ending.
        let Ok(Stored::Session(session)) = Stored::decode(&entry.value) else {
            return Ok(None);
        };
        let is_good = record.is_session_of(principal, id, &session, now);
        let epoch = session.epoch().filter(|epoch| is_good && record.admits(id, *epoch, self.is_limited()));
        Ok(epoch.map(|epoch| (id, epoch)))
    }

    /// Forgets the sessions that are over, before another is refused or ended for want of room.
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
            // What can't be read may be a newer gateway's: it counts.
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

    /// Changes the subject's list, if that makes a difference.
    async fn tidy(&self, principal: &Principal, change: impl Fn(&mut Subject)) {
        let tidied = timeout(self.settings.store_timeout, async {
            let key = self.key(principal);
            let mut attempts = Attempts::default();
            while let Some(entry) = self.store.get(&key).await? {
                let record = Subject::decode(&entry.value)?;
                let mut tidied = record.clone();
                change(&mut tidied);
                if tidied == record || self.write(&key, Some(entry.cas), &tidied, now()).await? {
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

    /// Writes a record over the one that `cas` names, or where there is none. `false`: look again.
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
}

fn random_epoch() -> Result<Epoch, SessionError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(SessionError::Random)?;
    Ok(Epoch::from_random(bytes))
}
