//! The operations on sessions, with any [`Store`]: read, decide, compare-and-swap.
//!
//! | module | does |
//! |---|---|
//! | here | reads and ends sessions |
//! | `change` | creates and changes them |
//! | `subjects` | keeps the records that tell which sessions of a subject are good |
//! | `striped_lock`, `background` | let writers take turns, and do what no caller waits for |
//!
//! Three rules apply to every write here. An acknowledged change is in the store, and no other acknowledged change is
//! lost by it. A session that was ended is not brought back. And if it is impossible to know whether a write happened,
//! the answer is [`SessionError::Store`], never a guess.

mod background;
mod change;
mod outcome;
mod striped_lock;
mod subjects;

use std::sync::Arc;
use std::time::Duration;

use session::id::SessionId;
use session::principal::Principal;
use session::record::{ChangeError, Session, Stored, Tombstone};
use session::subject::SessionLimit;
use session::time::{Seconds, UnixSeconds};
use session::version::Version;
use tokio::time::timeout;

use self::background::BackgroundTasks;
use self::striped_lock::StripedLock;
use self::subjects::Subjects;
use crate::environment::Environment;
use crate::metrics::Metrics;
use crate::store::{CountingStore, Key, Keyspace, Replaced, Store, StoreEntry, StoreError};

pub use outcome::{Created, ListedSession, LiveSession, Precondition, Presented, SessionError, Touch};

/// The settings of an installation for all of its sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Makes the keys.
    pub keyspace: Keyspace,
    /// The maximum number of bytes of data in a session, as ASCII JSON.
    pub max_data_bytes: usize,
    /// The time limit for all that one call does with the store, including retries.
    pub store_timeout: Duration,
    /// How long the id of an ended session is blocked.
    pub tombstone_ttl: Seconds,
    /// How many sessions a subject may have at a time.
    pub session_limit: Option<SessionLimit>,
    /// The clock and the source of random numbers.
    pub environment: Environment,
}

/// The sessions in a store.
pub struct Sessions<S> {
    store: Arc<CountingStore<S>>,
    settings: Arc<Settings>,
    metrics: Metrics,
    losers: StripedLock,
    subjects: Arc<Subjects<S>>,
    background: BackgroundTasks,
}

/// What the store contains under a session's id.
#[expect(clippy::large_enum_variant, reason = "there is one at a time in a call, and it is hardly ever the small one")]
enum IdState {
    /// Nothing.
    Unused,
    /// A tombstone, or a session that is over.
    Ended,
    /// A session that is good.
    Live(Session, StoreEntry),
}

impl<S: Store> Sessions<S> {
    /// The sessions in `store`.
    pub fn new(store: S, settings: Settings, metrics: Metrics) -> Self {
        let (store, settings) = (Arc::new(CountingStore::new(store, metrics.clone())), Arc::new(settings));
        let subjects = Subjects::new(Arc::clone(&store), Arc::clone(&settings), metrics.clone());
        Self {
            store,
            losers: StripedLock::new(settings.environment.clone()),
            settings,
            metrics,
            subjects: Arc::new(subjects),
            background: BackgroundTasks::new(),
        }
    }

    /// Succeeds while the store answers.
    pub async fn ping(&self) -> Result<(), SessionError> {
        self.in_time(async { self.store.ping().await.map_err(Into::into) }).await
    }

    /// Waits until the background work of all calls is done.
    pub async fn finish(&self) {
        self.background.finish().await;
    }

    /// The session; with `touch` its idle timeout starts again, unless it did so recently. The caller does not wait for
    /// the extension: the answer says how long the session will live with it.
    pub async fn read(&self, id: SessionId, touch: Option<Touch>) -> Result<LiveSession, SessionError> {
        let now = self.settings.environment.now();
        let key = self.settings.keyspace.session(id);
        let found = self.in_time(self.find(id, &key, now));
        let IdState::Live(session, entry) = found.await? else {
            return Err(SessionError::NotFound);
        };
        let extension = touch
            .filter(|touch| touch.presented.is_none_or(|token| token.opens(&session, now)))
            .and_then(|touch| session.extension(entry.remaining, touch.after, now));
        if let Some(lifetime) = extension {
            self.extend(key, lifetime).await;
            return Ok(live_session(session, lifetime, now));
        }
        let remaining = remaining(&session, entry.remaining, now);
        Ok(live_session(session, remaining, now))
    }

    /// Ends the session. Without a precondition or a `presented` token, it does not matter whether the session exists
    /// or can be read.
    pub async fn destroy(
        &self,
        id: SessionId,
        precondition: &Precondition,
        presented: Option<Presented>,
    ) -> Result<(), SessionError> {
        let now = self.settings.environment.now();
        let key = self.settings.keyspace.session(id);
        let tombstone = Tombstone { ended: now }.encode();
        let ttl = self.settings.tombstone_ttl;
        let left = self
            .in_time(async {
                if *precondition == Precondition::None && presented.is_none() {
                    let left = self.membership(&key).await;
                    // Setting it twice is the same as once, so after a lost answer it is simply tried again.
                    let first = self.store.set(&key, &tombstone, ttl).await;
                    if matches!(first, Err(StoreError::Unknown(_))) {
                        self.metrics.lost_answer();
                        self.store.set(&key, &tombstone, ttl).await?;
                    } else {
                        first?;
                    }
                    return Ok(left);
                }
                let mut is_lost = false;
                loop {
                    let (session, entry) = match self.find(id, &key, now).await {
                        Ok(IdState::Live(session, entry)) => (session, entry),
                        // Possibly by the write whose answer was lost.
                        Ok(IdState::Unused | IdState::Ended) if presented.is_none() || is_lost => return Ok(None),
                        Ok(IdState::Unused | IdState::Ended) => return Err(SessionError::NotFound),
                        // An unreadable session may be at any version, and any token may open it.
                        Err(error) => return Err(error),
                    };
                    precondition.check(&session)?;
                    if !presented.is_none_or(|token| token.opens(&session, now)) {
                        return Err(ChangeError::TokenEnded.into());
                    }
                    match self.store.replace(&key, &tombstone, entry.cas, ttl).await {
                        Ok(Replaced::Stored) => return Ok(membership(&session)),
                        Ok(Replaced::Conflict | Replaced::Missing) => {}
                        Err(StoreError::Unknown(_)) if !is_lost => {
                            self.metrics.lost_answer();
                            is_lost = true;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            })
            .await?;
        if let Some((principal, version)) = left {
            self.left(principal, id, version).await;
        }
        Ok(())
    }

    /// Ends all sessions of the subject, or all except the named one, if that is one of them.
    pub async fn revoke(&self, principal: &Principal, except: Option<SessionId>) -> Result<(), SessionError> {
        let listed = self.in_time(self.subjects.revoke(principal, except)).await?;
        // They have already ended; this frees the memory.
        let (subjects, principal) = (Arc::clone(&self.subjects), principal.clone());
        self.background.run(async move { subjects.bury(&principal, &listed).await }).await;
        Ok(())
    }

    /// The sessions of the subject, in the order in which they were enlisted.
    pub async fn of_subject(&self, principal: &Principal) -> Result<Vec<ListedSession>, SessionError> {
        let now = self.settings.environment.now();
        let (listed, stale) = self.in_time(self.subjects.list(principal)).await?;
        if !stale.is_empty() {
            let (subjects, principal) = (Arc::clone(&self.subjects), principal.clone());
            self.background.run(async move { subjects.forget(&principal, &stale).await }).await;
        }
        let named = listed.into_iter().map(|listed| {
            let remaining = remaining(&listed.session, listed.remaining, now);
            ListedSession { id: listed.id, live: live_session(listed.session, remaining, now) }
        });
        Ok(named.collect())
    }

    async fn extend(&self, key: Key, lifetime: Seconds) {
        let store = Arc::clone(&self.store);
        let extended = async move {
            // The record that was read is valid all the same; the session then ends a little earlier.
            if let Err(error) = store.touch(&key, lifetime).await {
                tracing::debug!(%error, "not extended");
            }
        };
        self.background.run(extended).await;
    }

    /// The session has left the subject with its `version`: its entry there no longer means anything.
    async fn left(&self, principal: Principal, id: SessionId, version: Version) {
        let subjects = Arc::clone(&self.subjects);
        self.background.run(async move { subjects.forget_before(&principal, id, version).await }).await;
    }

    /// The principal of the session under `key`, as far as it is known, and the version after its current one.
    async fn membership(&self, key: &Key) -> Option<(Principal, Version)> {
        let entry = self.store.get(key).await.ok()??;
        match Stored::decode(&entry.value).ok()? {
            Stored::Session(session) => membership(&session),
            Stored::Tombstone(_) => None,
        }
    }

    async fn find(&self, id: SessionId, key: &Key, now: UnixSeconds) -> Result<IdState, SessionError> {
        let Some(entry) = self.store.get(key).await? else {
            return Ok(IdState::Unused);
        };
        match Stored::decode(&entry.value)? {
            Stored::Session(session)
                if session.lifetime_left(now).is_some() && self.subjects.admit(id, &session).await? =>
            {
                Ok(IdState::Live(session, entry))
            }
            Stored::Session(_) | Stored::Tombstone(_) => Ok(IdState::Ended),
        }
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
        let outcome = timeout(self.settings.store_timeout, call).await;
        outcome.unwrap_or(Err(SessionError::TimedOut))
    }
}

fn live_session(session: Session, lifetime: Seconds, now: UnixSeconds) -> LiveSession {
    LiveSession { session, expires: now.plus(lifetime) }
}

/// How long the session lives unless it is used, limited by how long the store will keep it.
fn remaining(session: &Session, in_store: Seconds, now: UnixSeconds) -> Seconds {
    session.lifetime_left(now).map_or(Seconds::ZERO, |left| left.min(in_store))
}

fn membership(session: &Session) -> Option<(Principal, Version)> {
    session.principal().map(|principal| (principal.clone(), session.version().next()))
}
