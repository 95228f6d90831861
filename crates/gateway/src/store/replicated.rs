//! Two copies of each value, on different nodes, over any store of one node.
//!
//! A key's copies are on the two nodes that rank highest for it. As long as at most one of them is away, slow, wiped or
//! not yet brought up to date at a time, no acknowledged write is lost, nothing that ended comes back, and a read sees
//! every write that was acknowledged before it began, whatever the gateways believe of the nodes. A gateway that can't
//! know answers with an error. `docs/consistency.md` says what that means for sessions.
//!
//! | module | does |
//! |---|---|
//! | `view` | says which of two nodes have everything: the *view*, of which both keep a record |
//! | `stamp` | says which write a copy is of, and in which view it was put on its node |
//! | `node` | reads and writes on one node, and notices whether it answers |
//! | `pair` | reads and changes the view of two nodes |
//! | `copies` | reads and writes the two copies of a key |
//! | `keeper` | records nodes that are gone, and brings those up to date that are back |
//!
//! # Why it holds
//!
//! * A node is *in* if it has every acknowledged write. One of the two always is. A write is acknowledged once it is on
//!   all nodes that are in, and the view in which it was made is still recorded on them.
//! * One node alone is used only after it was recorded on it that the other one is *out*. To come back, that one has to
//!   *join*: then what it has from before does not count (`since`), it gets every new write, and every key is copied to
//!   it before it is recorded as in.
//! * A read returns what is the same on both nodes, or makes it the same first. Two equal copies need no look at the
//!   record: one of the nodes is in, whatever the view is by now.
//! * A node that lost its memory also lost its record, so it joins.
//! * A request that is carried out long after its caller gave up is a compare-and-swap of something that is no longer
//!   there, or a write whose outcome was never known.
//! * A node is gone after it has left three pings without an answer. Too much to do is not a reason: the call fails.

mod copies;
mod keeper;
mod node;
mod pair;
mod stamp;
mod view;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::{join_all, select_ok};
use session::time::Seconds;
use xxhash_rust::xxh3::xxh3_64;

use self::copies::Settled;
use self::node::{CopyNode, Written};
use self::pair::Pair;
use self::view::Side;
use super::rendezvous::Rendezvous;
use super::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};
use crate::environment::Environment;
use crate::metrics::Metrics;

pub use self::keeper::Pace;

/// The number of times that a `set` may lose against other writes before it is abandoned.
const ROUNDS: usize = 16;

/// A store of several nodes, each value on two of them.
pub struct Replicated<S> {
    nodes: Vec<Arc<CopyNode<S>>>,
    rendezvous: Rendezvous,
    /// By the positions of its nodes, the smaller one first.
    pairs: HashMap<(usize, usize), Arc<Pair<S>>>,
}

/// Where a key is.
struct Place<'a, S> {
    pair: &'a Pair<S>,
    /// The node that ranks highest, which decides writes while both are in.
    first: Side,
}

impl<S: ScanStore> Replicated<S> {
    /// Two copies of each value on these nodes, each with the name that it is ranked by. There have to be two or more.
    ///
    /// Starts tasks that look after the nodes until the store is dropped.
    #[must_use]
    pub fn new(
        nodes: Vec<(String, S)>,
        keyspace: &Keyspace,
        pace: Pace,
        environment: &Environment,
        metrics: &Metrics,
    ) -> Self {
        let mut nodes = nodes;
        // All gateways have to agree on which node of a pair is which.
        nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let rendezvous = Rendezvous::new(nodes.iter().map(|(name, _)| name.as_str()));
        let node = |(name, store)| Arc::new(CopyNode::new(name, store, metrics.clone()));
        let nodes: Vec<_> = nodes.into_iter().map(node).collect();
        for one in &nodes {
            node::watch(one, pace.ping_every);
        }
        let mut pairs = HashMap::new();
        for (first, one) in nodes.iter().enumerate() {
            for (second, two) in nodes.iter().enumerate().skip(first + 1) {
                let name = xxh3_64(format!("{}\n{}", one.name(), two.name()).as_bytes());
                let pair = Arc::new(Pair::new(
                    [Arc::clone(one), Arc::clone(two)],
                    keyspace.view(name),
                    environment.clone(),
                    metrics.clone(),
                ));
                let (ranks, ends) = (rendezvous.clone(), [first, second]);
                let records = keyspace.views();
                let is_ours = move |key: &Key| {
                    let is_record = key.as_str().starts_with(records.as_str());
                    !is_record && ranks.ranked(key.as_str()).iter().take(2).all(|node| ends.contains(node))
                };
                keeper::keep(&pair, is_ours, keyspace.clone(), pace);
                pairs.insert((first, second), pair);
            }
        }
        Self { nodes, rendezvous, pairs }
    }

    fn place(&self, key: &Key) -> Result<Place<'_, S>, StoreError> {
        let ranked = self.rendezvous.ranked(key.as_str());
        let &[first, second, ..] = ranked.as_slice() else { return Err(too_few()) };
        let side = if first < second { Side::One } else { Side::Two };
        let pair = self.pairs.get(&(first.min(second), first.max(second))).ok_or_else(too_few)?;
        Ok(Place { pair, first: side })
    }
}

fn too_few() -> StoreError {
    StoreError::Unavailable("two copies need two nodes".to_owned())
}

impl<S: ScanStore> Place<'_, S> {
    async fn write(&self, key: &Key, settled: Settled, value: &[u8], ttl: Seconds) -> Result<Written, StoreError> {
        self.pair.write(key, settled, self.first, value, ttl).await
    }
}

impl<S: ScanStore> Store for Replicated<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let settled = self.place(key)?.pair.settle(key).await?;
        Ok(settled.latest.map(|replica| StoreEntry {
            value: replica.value,
            cas: replica.stamp.name(),
            remaining: replica.remaining,
        }))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let place = self.place(key)?;
        let settled = place.pair.settle(key).await?;
        if settled.latest.is_some() {
            return Ok(false);
        }
        Ok(place.write(key, settled, value, ttl).await? == Written::Done)
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let place = self.place(key)?;
        let settled = place.pair.settle(key).await?;
        match &settled.latest {
            None => return Ok(Replaced::Missing),
            Some(replica) if replica.stamp.name() != cas => return Ok(Replaced::Conflict),
            Some(_) => {}
        }
        Ok(match place.write(key, settled, value, ttl).await? {
            Written::Done => Replaced::Stored,
            Written::Conflict => Replaced::Conflict,
        })
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        let place = self.place(key)?;
        for _ in 0..ROUNDS {
            let settled = place.pair.settle(key).await?;
            if place.write(key, settled, value, ttl).await? == Written::Done {
                return Ok(());
            }
        }
        Err(lost_races())
    }

    /// Writes the value once more: two nodes that were only told a new time would each believe something else of a
    /// value that is about to expire.
    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let place = self.place(key)?;
        for _ in 0..ROUNDS {
            let settled = place.pair.settle(key).await?;
            let Some(value) = settled.latest.as_ref().map(|replica| replica.value.clone()) else { return Ok(false) };
            if place.write(key, settled, &value, ttl).await? == Written::Done {
                return Ok(true);
            }
        }
        Err(lost_races())
    }

    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.nodes.iter().try_for_each(|node| node.admit(key, bytes))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.nodes.is_empty() {
            return Err(too_few());
        }
        select_ok(self.nodes.iter().map(|node| Box::pin(node.ping()))).await.map(|_| ())
    }
}

fn lost_races() -> StoreError {
    StoreError::Unknown("a write kept losing races".to_owned())
}

impl<S: ScanStore> ScanStore for Replicated<S> {
    /// The keys that any node has. A node that is out may have some that are gone; those that joined have all.
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        let listed = join_all(self.nodes.iter().map(|node| node.store().keys(keyspace))).await;
        let (listed, failed): (Vec<_>, Vec<_>) = listed.into_iter().partition(Result::is_ok);
        // Each key is on two nodes.
        if let Some(error) = failed.into_iter().filter_map(Result::err).nth(1) {
            return Err(error);
        }
        let keys: BTreeSet<Key> = listed.into_iter().flatten().flatten().collect();
        Ok(keys.into_iter().collect())
    }
}
