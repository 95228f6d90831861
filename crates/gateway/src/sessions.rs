//! The operations on sessions, over any [`Store`]: read, decide, compare-and-swap.
//!
//! Three rules hold for every write here. An acknowledged change is in the store, and no other
//! acknowledged change is lost by it. A session that was ended is not brought back. And when it can't be known
//! whether a write happened, the answer is [`SessionError::Store`], never a guess.

mod line;
mod outcome;

use std::time::{Duration, SystemTime};

use session_core::id::SessionId;
use session_core::record::{Change, NewSession, Session, Stored, Tombstone, Write, WriteId};
use session_core::time::{Seconds, UnixSeconds};
use tokio::time::timeout;

use self::line::Line;
use crate::metrics::Metrics;
use crate::store::{Cas, Entry, Key, Keyspace, Replaced, Store, StoreError};

pub use outcome::{Created, Live, Precondition, SessionError};

/// How long a rotation spares older tokens unless the caller says otherwise.
pub const DEFAULT_ROTATION_GRACE: Seconds = Seconds::new(10);

/// What an installation settles for all of its sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Makes the keys.
    pub keyspace: Keyspace,
    /// The most bytes of data in a session, as ASCII JSON.
    pub max_data_bytes: usize,
    /// Bounds all that one call does with the store, retries included.
    pub store_timeout: Duration,
    /// How long the id of an ended session can't be used again.
    pub tombstone_ttl: Seconds,
}

/// The sessions in a store.
pub struct Sessions<S> {
    store: S,
    settings: Settings,
    metrics: Metrics,
    line: Line,
}

/// A key's value, as far as the service cares.
enum Found {
    Nothing,
    Ended,
    Session(Session, Entry),
}

impl<S: Store> Sessions<S> {
    /// The sessions in `store`.
    pub fn new(store: S, settings: Settings, metrics: Metrics) -> Self {
        Self { store, settings, metrics, line: Line::new() }
    }

    /// Succeeds while the store answers.
    pub async fn ping(&self) -> Result<(), SessionError> {
        self.in_time(async { self.metrics.store("ping", self.store.ping().await).map_err(Into::into) }).await
    }

    /// The session; with `touch` its idle timeout starts again, unless it did less than that ago.
    pub async fn read(&self, id: SessionId, touch: Option<Seconds>) -> Result<Live, SessionError> {
        let now = now();
        let key = self.settings.keyspace.session(id);
        self.in_time(async {
            let Found::Session(session, entry) = self.find(&key, now).await? else {
                return Err(SessionError::NotFound);
            };
            let extension = touch.and_then(|after| session.extension(entry.remaining, after, now));
            let mut remaining = session.lifetime_left(now).map_or(Seconds::ZERO, |most| most.min(entry.remaining));
            if let Some(lifetime) = extension {
                match self.metrics.store("touch", self.store.touch(&key, lifetime).await) {
                    Ok(true) => remaining = lifetime,
                    Ok(false) => return Err(SessionError::NotFound),
                    // What was read is good all the same; the answer says until when.
                    Err(error) => tracing::debug!(%error, "not extended"),
                }
            }
            Ok(live(session, remaining, now))
        })
        .await
    }

    /// Stores a new session. With `merge_within`, data for an anonymous session that was created at
    /// most that long ago is merged into it.
    pub async fn create(
        &self,
        id: SessionId,
        new: NewSession,
        merge_within: Option<Seconds>,
    ) -> Result<Created, SessionError> {
        let now = now();
        let key = self.settings.keyspace.session(id);
        let write = self.write(now)?;
        let session = Session::create(new.clone(), write)?;
        let lifetime = session.lifetime_left(now).unwrap_or(Seconds::new(1));
        let value = session.encode();
        self.in_time(async {
            // An answer that got lost: from then on only a positive finding counts.
            let mut lost: Option<StoreError> = None;
            loop {
                match self.metrics.store("add", self.store.add(&key, &value, lifetime).await) {
                    Ok(true) => return Ok(Created::New(live(session, lifetime, now))),
                    Ok(false) => {}
                    Err(error @ StoreError::Unknown(_)) if lost.is_none() => {
                        self.metrics.lost_answer();
                        lost = Some(error);
                    }
                    Err(error) => return Err(error.into()),
                }
                let (created, mergeable) = match self.find(&key, now).await? {
                    // It expired between the two looks.
                    Found::Nothing => continue,
                    Found::Session(found, _) if found.write() == write.id => {
                        return Ok(Created::New(live(session, lifetime, now)));
                    }
                    Found::Session(found, _) => {
                        let mergeable = merge_within.is_some_and(|within| found.may_merge(within, now));
                        (Some(found.created()), mergeable)
                    }
                    Found::Ended => (None, false),
                };
                if !mergeable {
                    return Err(lost.map_or(SessionError::Exists { created }, SessionError::Store));
                }
                let within = merge_within.unwrap_or(Seconds::ZERO);
                let change = Change {
                    patches: vec![new.data.clone()],
                    rotate: false,
                    grace: within,
                    subject_key: new.subject_key.clone(),
                    upstream_cookie: new.upstream_cookie.clone(),
                };
                let guard = |found: &Session| {
                    let created = Some(found.created());
                    let mergeable = found.may_merge(within, now);
                    if mergeable { Ok(()) } else { Err(SessionError::Exists { created }) }
                };
                match self.swap(&key, &change, guard, write).await {
                    Ok(live) => return Ok(Created::Merged(live)),
                    // Gone again: the id is free for a creation.
                    Err(SessionError::NotFound) => {}
                    Err(error @ SessionError::Exists { .. }) => return Err(lost.map_or(error, SessionError::Store)),
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }

    /// Changes the session, if it is there.
    pub async fn change(
        &self,
        id: SessionId,
        change: &Change,
        precondition: &Precondition,
    ) -> Result<Live, SessionError> {
        let write = self.write(now())?;
        let key = self.settings.keyspace.session(id);
        let guard = |found: &Session| precondition.check(found);
        self.in_time(self.swap(&key, change, guard, write)).await
    }

    /// Ends the session. Without a precondition it does not matter whether there is one.
    pub async fn destroy(&self, id: SessionId, precondition: &Precondition) -> Result<(), SessionError> {
        let now = now();
        let key = self.settings.keyspace.session(id);
        let tombstone = Tombstone { ended: now }.encode();
        let ttl = self.settings.tombstone_ttl;
        self.in_time(async {
            if *precondition == Precondition::None {
                // Setting it twice is the same as once, so a lost answer is a reason to try again.
                let first = self.metrics.store("set", self.store.set(&key, &tombstone, ttl).await);
                if !matches!(first, Err(StoreError::Unknown(_))) {
                    return first.map_err(Into::into);
                }
                self.metrics.lost_answer();
                return Ok(self.metrics.store("set", self.store.set(&key, &tombstone, ttl).await)?);
            }
            loop {
                let Found::Session(session, entry) = self.find(&key, now).await? else {
                    return Ok(());
                };
                precondition.check(&session)?;
                let replaced = self.store.replace(&key, &tombstone, entry.cas, ttl).await;
                match self.metrics.store("replace", replaced)? {
                    Replaced::Stored => return Ok(()),
                    Replaced::Conflict | Replaced::Missing => {}
                }
            }
        })
        .await
    }

    /// Applies `change` to whatever the session is by then and that `guard` lets pass, until it is stored.
    async fn swap(
        &self,
        key: &Key,
        change: &Change,
        guard: impl Fn(&Session) -> Result<(), SessionError>,
        write: Write,
    ) -> Result<Live, SessionError> {
        let mut attempt = 0;
        let mut place = None;
        let mut lost: Option<(StoreError, Cas)> = None;
        loop {
            let found = self.find(key, write.now).await?;
            let Found::Session(session, entry) = found else {
                // Ended or gone: whatever became of a write before, nothing of it is left.
                return Err(SessionError::NotFound);
            };
            // After a lost answer the write may have happened, or may do so yet. Unless the value is the very one it
            // was meant to replace (then trying again is safe: one of the two can win), the write id tells.
            if let Some((_, cas)) = &lost
                && entry.cas != *cas
            {
                if session.write() == write.id {
                    return Ok(live(session, entry.remaining, write.now));
                }
                // Somebody else's change is there now. Ours may be under it, and it may not.
                return Err(lost.map_or(SessionError::TimedOut, |(error, _)| error.into()));
            }
            guard(&session)?;
            let next = session.change(change.clone(), write)?;
            let Some(lifetime) = next.lifetime_left(write.now) else {
                return Err(SessionError::NotFound);
            };
            let replaced = self.store.replace(key, &next.encode(), entry.cas, lifetime).await;
            match self.metrics.store("replace", replaced) {
                Ok(Replaced::Stored) => return Ok(live(next, lifetime, write.now)),
                Ok(Replaced::Conflict | Replaced::Missing) => {}
                Err(error @ StoreError::Unknown(_)) => {
                    self.metrics.lost_answer();
                    lost = Some((error, entry.cas));
                }
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
            self.metrics.cas_retry();
            if place.is_none() {
                place = Some(self.line.join(key).await);
            } else {
                line::pause(attempt).await;
            }
        }
    }

    async fn find(&self, key: &Key, now: UnixSeconds) -> Result<Found, SessionError> {
        let Some(entry) = self.metrics.store("get", self.store.get(key).await)? else {
            return Ok(Found::Nothing);
        };
        Ok(match Stored::decode(&entry.value)? {
            Stored::Session(session) if session.lifetime_left(now).is_some() => Found::Session(session, entry),
            Stored::Session(_) | Stored::Tombstone(_) => Found::Ended,
        })
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
        let outcome = timeout(self.settings.store_timeout, call).await;
        outcome.unwrap_or(Err(SessionError::TimedOut))
    }

    fn write(&self, now: UnixSeconds) -> Result<Write, SessionError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(SessionError::Random)?;
        Ok(Write { now, id: WriteId::from_random(bytes), max_data_bytes: self.settings.max_data_bytes })
    }
}

fn live(session: Session, lifetime: Seconds, now: UnixSeconds) -> Live {
    Live { session, expires: now.plus(lifetime) }
}

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds::new(since.map_or(0, |since| since.as_secs()))
}
