//! Creating and changing sessions.

use std::sync::Arc;

use session::id::SessionId;
use session::record::{Change, NewSession, Session, Tombstone, Write, WriteId};
use session::time::{Seconds, UnixSeconds};

use super::outcome::{Created, LiveSession, Precondition, SessionError};
use super::striped_lock::Attempts;
use super::subjects::Enlisted;
use super::{IdState, Sessions, live_session, membership};
use crate::store::{Cas, Key, Replaced, Store, StoreError};

impl<S: Store> Sessions<S> {
    /// Stores a new session. With `merge_within`, the data is merged into an existing anonymous session that was
    /// created at most that long ago.
    pub async fn create(
        &self,
        id: SessionId,
        new: NewSession,
        merge_within: Option<Seconds>,
    ) -> Result<Created, SessionError> {
        let now = self.settings.environment.now();
        let key = self.settings.keyspace.session(id);
        let write = self.write(now)?;
        let session = Session::create(new.clone(), write)?;
        let lifetime = session.lifetime_left(now).unwrap_or(Seconds::new(1));
        self.in_time(async {
            // After a lost answer, only what is found in the store counts.
            let mut lost: Option<StoreError> = None;
            // A session with a subject is enlisted first, which may end another one. This must not happen for an id
            // that is taken.
            let mut looks_free = session.subject().is_none();
            loop {
                if looks_free {
                    let session = self.enlisted(id, session.clone()).await?;
                    match self.store.add(&key, &session.encode(), lifetime).await {
                        Ok(true) => return Ok(Created::New(live_session(session, lifetime, now))),
                        Ok(false) => {}
                        Err(error @ StoreError::Unknown(_)) if lost.is_none() => {
                            self.metrics.lost_answer();
                            lost = Some(error);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                let (created, mergeable) = match self.find(id, &key, now).await? {
                    // Possibly it expired between the two reads.
                    IdState::Unused => {
                        looks_free = true;
                        continue;
                    }
                    IdState::Live(found, _) if found.write() == write.id => {
                        return Ok(Created::New(live_session(found, lifetime, now)));
                    }
                    IdState::Live(found, _) => {
                        let mergeable = merge_within.is_some_and(|within| found.may_merge(within, now));
                        (Some(found.created()), mergeable)
                    }
                    IdState::Ended => (None, false),
                };
                if !mergeable {
                    return Err(lost.map_or(SessionError::Exists { created }, SessionError::Store));
                }
                let within = merge_within.unwrap_or(Seconds::ZERO);
                let change = Change {
                    patches: vec![new.data.clone()],
                    rotation: new.rotation,
                    grace: within,
                    seen: None,
                    joins: true,
                    subject_key: new.subject_key.clone(),
                    realm: new.realm.clone(),
                    upstream_cookie: new.upstream_cookie.clone(),
                };
                let guard = |found: &Session| {
                    let created = Some(found.created());
                    let mergeable = found.may_merge(within, now);
                    if mergeable { Ok(()) } else { Err(SessionError::Exists { created }) }
                };
                match self.swap(id, &key, &change, guard, write).await {
                    Ok(live) => return Ok(Created::Merged(live)),
                    // It is gone again, so the id is free.
                    Err(SessionError::NotFound) => {}
                    Err(error @ SessionError::Exists { .. }) => return Err(lost.map_or(error, SessionError::Store)),
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }

    /// Changes the session, if it exists. A caller that repeats a change because it got no answer gives the same `name`
    /// again: if that was the session's last change, it is not made twice.
    pub async fn change(
        &self,
        id: SessionId,
        change: &Change,
        precondition: &Precondition,
        name: Option<WriteId>,
    ) -> Result<LiveSession, SessionError> {
        let write = self.write(self.settings.environment.now())?;
        let write = Write { id: name.unwrap_or(write.id), ..write };
        let key = self.settings.keyspace.session(id);
        let guard = |found: &Session| precondition.check(found);
        self.in_time(self.swap(id, &key, change, guard, write)).await
    }

    /// Applies `change` to the current state of the session, if `guard` allows it, until the result is stored.
    async fn swap(
        &self,
        id: SessionId,
        key: &Key,
        change: &Change,
        guard: impl Fn(&Session) -> Result<(), SessionError>,
        write: Write,
    ) -> Result<LiveSession, SessionError> {
        let mut attempts = Attempts::default();
        let mut lost: Option<(StoreError, Cas)> = None;
        loop {
            let found = self.find(id, key, write.now).await?;
            let IdState::Live(session, entry) = found else {
                // Ended or gone: whatever happened to an earlier write, nothing of it is left.
                return Err(SessionError::NotFound);
            };
            // Already made, by an earlier or a concurrent call.
            if session.write() == write.id {
                return Ok(live_session(session, entry.remaining, write.now));
            }
            // After a lost answer, the write may have happened or may still happen. If the value is the very one that
            // it was meant to replace, trying again is safe, because only one of the two can succeed. Otherwise the
            // write id tells.
            if let Some((_, cas)) = &lost
                && entry.cas != *cas
            {
                // Another writer's change is there now. It may or may not include ours.
                return Err(lost.map_or(SessionError::TimedOut, |(error, _)| error.into()));
            }
            guard(&session)?;
            let next = session.change(change.clone(), write)?;
            let Some(lifetime) = next.lifetime_left(write.now) else {
                return Err(SessionError::NotFound);
            };
            let next = self.enlisted(id, next).await?;
            match self.store.replace(key, &next.encode(), entry.cas, lifetime).await {
                Ok(Replaced::Stored) => {
                    if session.principal() != next.principal()
                        && let Some((principal, version)) = membership(&session)
                    {
                        self.end_if_revoked(id, key, &session).await?;
                        self.left(principal, id, version).await;
                    }
                    return Ok(live_session(next, lifetime, write.now));
                }
                Ok(Replaced::Conflict | Replaced::Missing) => {}
                Err(error @ StoreError::Unknown(_)) => {
                    self.metrics.lost_answer();
                    lost = Some((error, entry.cas));
                }
                Err(error) => return Err(error.into()),
            }
            self.metrics.cas_retry();
            self.losers.after_loss(key, &mut attempts).await;
        }
    }

    /// The session in a state that may be written: enlisted, if it has a subject and is not enlisted yet.
    ///
    /// It is enlisted first, so that the session carries the epoch from before its own write. A revocation between the
    /// two changes the epoch, and the session is then not good from the start.
    async fn enlisted(&self, id: SessionId, session: Session) -> Result<Session, SessionError> {
        let (Some(principal), None) = (session.principal(), session.epoch()) else {
            return Ok(session);
        };
        let principal = principal.clone();
        let Enlisted { epoch, ended } = self.subjects.enlist(&principal, id, &session).await?;
        if !ended.is_empty() {
            let subjects = Arc::clone(&self.subjects);
            self.background.run(async move { subjects.bury(&principal, &ended).await }).await;
        }
        Ok(session.enlisted_in(epoch))
    }

    /// Ends a session that has just changed its subject, if its former subject had ended it by then: the two records
    /// can't be written at once.
    async fn end_if_revoked(&self, id: SessionId, key: &Key, former: &Session) -> Result<(), SessionError> {
        // The change is made, whatever happens here.
        let undecided = |error: StoreError| StoreError::Unknown(error.to_string());
        let is_good = match self.subjects.admit(id, former).await {
            Err(SessionError::Store(error)) => return Err(undecided(error).into()),
            outcome => outcome?,
        };
        if is_good {
            return Ok(());
        }
        let tombstone = Tombstone { ended: self.settings.environment.now() }.encode();
        self.store.set(key, &tombstone, self.settings.tombstone_ttl).await.map_err(undecided)?;
        Err(SessionError::NotFound)
    }

    fn write(&self, now: UnixSeconds) -> Result<Write, SessionError> {
        let bytes = self.settings.environment.random_bytes().map_err(SessionError::Random)?;
        Ok(Write { now, id: WriteId::from_random(bytes), max_data_bytes: self.settings.max_data_bytes })
    }
}
