//! Sessions on several nodes: in one layout, or while they are moved from one to another.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use session::time::Seconds;
use tokio::time::{sleep, timeout};

use super::layout::{Layout, LayoutError, Recorded, Step};
use super::moving::{Landed, Lead, MovedKeys, Moving};
use super::rules::Rule;
use super::{Cas, Key, Keyspace, Pace, Replaced, Replicated, ScanStore, Sharded, Store, StoreEntry, StoreError};
use crate::environment::Environment;
use crate::metrics::Metrics;

/// How long the record of a layout is kept: longer than any session.
const RECORD_TTL: Seconds = Seconds::new(3650 * 24 * 3600);
/// The time between two looks for keys that are still in the old layout, until all are moved.
const MOVE_AGAIN: Duration = Duration::from_secs(1);
/// And after that.
const MOVE_EVERY: Duration = Duration::from_secs(10);
/// How long a gateway waits at its start for nodes to say which layout they have.
const LONGEST_CHECK: Duration = Duration::from_secs(1);
/// When it asks again.
const CHECK_AGAIN: Duration = Duration::from_secs(5);
/// How long a gateway in the first step says that it is there.
const PRESENCE_TTL: Seconds = Seconds::new(15);
/// How often it says so.
const PRESENT_EVERY: Duration = Duration::from_secs(5);

/// One copy of each value, or two.
enum Copies<S> {
    One(Sharded<S>),
    Two(Replicated<S>),
}

/// The old layout and the new one.
type Change<S> = Moving<Landed<Copies<S>>, Copies<S>>;

/// A store of several nodes.
pub struct Nodes<S> {
    inner: Inner<S>,
    /// What was found when the nodes could be asked only after the start.
    refused: Arc<OnceLock<LayoutError>>,
}

enum Inner<S> {
    One(Landed<Copies<S>>),
    Changing(Arc<Change<S>>),
}

/// A layout, and how to reach its nodes.
pub struct Place<S> {
    /// The layout.
    pub layout: Layout,
    /// Its nodes, each with the name that it is ranked by.
    pub nodes: Vec<(String, S)>,
}

/// What a gateway is started with.
pub enum Start<S> {
    /// One layout.
    Only(Place<S>),
    /// The first step of a change.
    Before {
        /// Where sessions are.
        old: Place<S>,
        /// Where they will be.
        new: Place<S>,
    },
    /// The second step.
    During {
        /// Where sessions were.
        old: Place<S>,
        /// Where they are moved to.
        new: Place<S>,
    },
}

/// What a store of nodes is made with.
#[derive(Clone)]
pub struct Context {
    /// The keys of the first layout.
    pub keyspace: Keyspace,
    /// The clock and random numbers.
    pub environment: Environment,
    /// Where to count.
    pub metrics: Metrics,
}

impl<S> Start<S> {
    fn step(&self) -> Step {
        match self {
            Self::Only(place) => Step::Only(place.layout.clone()),
            Self::Before { old, new } => Step::Before { old: old.layout.clone(), new: new.layout.clone() },
            Self::During { old, new } => Step::During { old: old.layout.clone(), new: new.layout.clone() },
        }
    }

    fn places(&self) -> Vec<&Place<S>> {
        match self {
            Self::Only(place) => vec![place],
            Self::Before { old, new } | Self::During { old, new } => vec![old, new],
        }
    }

    /// The keys to use with the store.
    #[must_use]
    pub fn keyspace(&self, first: &Keyspace) -> Keyspace {
        match self {
            Self::Only(place) | Self::Before { old: place, .. } | Self::During { new: place, .. } => {
                first.layout(place.layout.number())
            }
        }
    }
}

impl<S: ScanStore + Clone> Nodes<S> {
    /// A store for this step of a change, or for none. Fails if what the nodes have recorded says that this gateway is
    /// out of turn. In the second step, a task moves all keys until the store is dropped.
    pub async fn open(start: Start<S>, context: &Context) -> Result<Self, LayoutError> {
        let (records, step) = (Records::of(&start, context), start.step());
        let keyspace = |place: &Place<S>| context.keyspace.layout(place.layout.number());
        let refused = Arc::new(OnceLock::new());
        let (old, new, lead) = match start {
            Start::Only(place) => {
                // Nodes that are away or slow are no reason not to start.
                match timeout(LONGEST_CHECK, records.check(&step)).await {
                    Ok(Ok((_, true))) => {}
                    Ok(Ok((_, false))) | Err(_) => check_later(records, step, &refused),
                    Ok(Err(error)) => return Err(error),
                }
                let keys = keyspace(&place);
                return Ok(Self { inner: Inner::One(Landed(Copies::new(place, &keys, context))), refused });
            }
            Start::Before { old, new } => (old, new, Lead::Old),
            Start::During { old, new } => (old, new, Lead::New),
        };
        let (record, is_recorded) = records.check(&step).await?;
        if !is_recorded {
            return Err(LayoutError::Unrecorded);
        }
        let keys = MovedKeys { old: keyspace(&old), new: keyspace(&new) };
        let moved = Recorded::In(new.layout.clone());
        let old = Landed(Copies::new(old, &keys.old, context));
        let new = Copies::new(new, &keys.new, context);
        let change = Arc::new(Moving::new(old, new, lead, keys));
        match lead {
            Lead::Old => say_present(&change, records, record),
            Lead::New => move_keys(&change, records, (record, moved), context.metrics.clone()),
        }
        Ok(Self { inner: Inner::Changing(change), refused })
    }

    fn inner(&self) -> Result<&Inner<S>, StoreError> {
        match self.refused.get() {
            None => Ok(&self.inner),
            Some(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

/// Checks again until a node has taken the record, or this gateway turns out to be out of turn.
fn check_later<S: ScanStore + Clone>(records: Records<S>, step: Step, refused: &Arc<OnceLock<LayoutError>>) {
    let refused = Arc::downgrade(refused);
    tokio::spawn(async move {
        while let Some(refused) = refused.upgrade() {
            let (recorded, have_all_answered) = records.read().await;
            match step.admit(recorded) {
                Ok(record) => {
                    if records.write(&record).await {
                        return;
                    }
                }
                // Another node may have a later record.
                Err(error) if !have_all_answered => tracing::warn!("{error}"),
                Err(error) => {
                    tracing::error!("{error}");
                    let _ = refused.set(error);
                    return;
                }
            }
            drop(refused);
            sleep(CHECK_AGAIN).await;
        }
    });
}

/// Tells those in the second step that this gateway still puts sessions into the old layout, until nothing else uses
/// the store.
fn say_present<S: ScanStore + Clone>(change: &Arc<Change<S>>, records: Records<S>, record: Recorded) {
    let change = Arc::downgrade(change);
    tokio::spawn(async move {
        while change.strong_count() > 0 {
            records.say_present().await;
            records.raise(&record).await;
            sleep(PRESENT_EVERY).await;
        }
    });
}

/// Moves keys until nothing else uses the store. The records are those until all are moved, and after that.
fn move_keys<S: ScanStore + Clone>(
    change: &Arc<Change<S>>,
    records: Records<S>,
    (moving, moved): (Recorded, Recorded),
    metrics: Metrics,
) {
    let change = Arc::downgrade(change);
    metrics.keys_to_move(true);
    tokio::spawn(async move {
        let mut are_moved = false;
        while let Some(change) = change.upgrade() {
            // Asked first: what such a gateway adds after it was found to be there is found as well.
            let is_added_to = records.is_somebody_present().await && Rule::FirstStepsAreWaitedFor.holds();
            match change.move_all().await {
                Ok(0) if !is_added_to => {
                    if !are_moved {
                        tracing::info!("no session is left in the old layout");
                    }
                    are_moved = true;
                }
                Ok(0) => {}
                Ok(keys) => {
                    tracing::info!(keys, "moved to the new layout");
                    are_moved = false;
                }
                Err(error) => tracing::warn!(%error, "the sessions could not all be moved to the new layout"),
            }
            records.raise(if are_moved { &moved } else { &moving }).await;
            metrics.keys_to_move(!are_moved);
            drop(change);
            sleep(if are_moved { MOVE_EVERY } else { MOVE_AGAIN }).await;
        }
    });
}

/// The records of the layout on all nodes.
struct Records<S> {
    key: Key,
    nodes: Vec<(String, S)>,
}

impl<S: ScanStore + Clone> Records<S> {
    fn of(start: &Start<S>, context: &Context) -> Self {
        let mut nodes: Vec<(String, S)> = Vec::new();
        for (name, node) in start.places().into_iter().flat_map(|place| &place.nodes) {
            if !nodes.iter().any(|(known, _)| known == name) {
                nodes.push((name.clone(), node.clone()));
            }
        }
        Self { key: context.keyspace.layouts(), nodes }
    }

    /// What is recorded from now on, and whether a node has taken it.
    async fn check(&self, step: &Step) -> Result<(Recorded, bool), LayoutError> {
        let record = step.admit(self.read().await.0)?;
        let is_recorded = self.write(&record).await;
        Ok((record, is_recorded))
    }

    /// The latest record, and whether all nodes have answered.
    async fn read(&self) -> (Option<Recorded>, bool) {
        let found = join_all(self.nodes.iter().map(|(_, node)| node.get(&self.key))).await;
        let have_all_answered = found.iter().all(Result::is_ok);
        let mut records = Vec::new();
        for ((node, _), found) in self.nodes.iter().zip(found) {
            match found {
                Ok(entry) => records.extend(entry.and_then(|entry| Recorded::decode(&entry.value))),
                Err(error) => tracing::warn!(node, %error, "a node does not say which layout it has"),
            }
        }
        (Recorded::latest(records), have_all_answered)
    }

    async fn say_present(&self) {
        let key = self.key.with_suffix(":before");
        join_all(self.nodes.iter().map(|(_, node)| node.set(&key, b"1", PRESENCE_TTL))).await;
    }

    /// Whether a gateway in the first step was there a moment ago. Also if a node does not say.
    async fn is_somebody_present(&self) -> bool {
        let key = self.key.with_suffix(":before");
        let found = join_all(self.nodes.iter().map(|(_, node)| node.get(&key))).await;
        !found.into_iter().all(|found| matches!(found, Ok(None)))
    }

    /// Writes the record to all nodes. `false` if none has taken it.
    async fn write(&self, record: &Recorded) -> bool {
        let bytes = record.encode();
        let written = join_all(self.nodes.iter().map(|(_, node)| node.set(&self.key, &bytes, RECORD_TTL))).await;
        for ((node, _), written) in self.nodes.iter().zip(&written) {
            if let Err(error) = written {
                tracing::warn!(node, %error, "the layout could not be recorded on a node");
            }
        }
        written.iter().any(Result::is_ok)
    }

    /// Brings the record to those nodes that have an earlier one, or none. What fails is done the next time.
    async fn raise(&self, record: &Recorded) {
        let bytes = record.encode();
        let raise = async |node: &S| match node.get(&self.key).await? {
            None => node.add(&self.key, &bytes, RECORD_TTL).await.map(|_| ()),
            Some(entry) => {
                let is_earlier = Recorded::decode(&entry.value).is_none_or(|found| record.is_later_than(&found));
                if is_earlier {
                    node.replace(&self.key, &bytes, entry.cas, RECORD_TTL).await?;
                }
                Ok::<_, StoreError>(())
            }
        };
        join_all(self.nodes.iter().map(|(_, node)| raise(node))).await;
    }
}

impl<S: ScanStore> Copies<S> {
    fn new(place: Place<S>, keyspace: &Keyspace, context: &Context) -> Self {
        if place.layout.copies() == 1 {
            return Self::One(Sharded::new(place.nodes));
        }
        let Context { environment, metrics, .. } = context;
        Self::Two(Replicated::new(place.nodes, keyspace, Pace::DEFAULT, environment, metrics))
    }
}

/// Calls the same method of either. That of the second is boxed: it is the larger part of a future that is moved
/// several times.
macro_rules! either {
    ($value:expr, $one:path, $two:path, $method:ident($($argument:expr),*)) => {
        match $value {
            $one(store) => store.$method($($argument),*).await,
            $two(store) => Box::pin(store.$method($($argument),*)).await,
        }
    };
}

/// A store that is one of two.
macro_rules! store_of_either {
    ($type:ident, $self:ident => $value:expr, $one:path, $two:path) => {
        impl<S: ScanStore + Clone> Store for $type<S> {
            async fn get(&$self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
                either!($value, $one, $two, get(key))
            }

            async fn add(&$self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
                either!($value, $one, $two, add(key, value, ttl))
            }

            async fn replace(&$self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
                either!($value, $one, $two, replace(key, value, cas, ttl))
            }

            async fn set(&$self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
                either!($value, $one, $two, set(key, value, ttl))
            }

            async fn touch(&$self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
                either!($value, $one, $two, touch(key, ttl))
            }

            fn admit(&$self, key: &Key, bytes: usize) -> Result<(), StoreError> {
                match $value {
                    $one(store) => store.admit(key, bytes),
                    $two(store) => store.admit(key, bytes),
                }
            }

            async fn ping(&$self) -> Result<(), StoreError> {
                either!($value, $one, $two, ping())
            }
        }
    };
}

store_of_either!(Copies, self => self, Copies::One, Copies::Two);
store_of_either!(Nodes, self => self.inner()?, Inner::One, Inner::Changing);

impl<S: ScanStore + Clone> ScanStore for Copies<S> {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        either!(self, Copies::One, Copies::Two, keys(keyspace))
    }
}
