//! Several copies of each value, on different nodes, over any store of one node.
//!
//! A key's copies are on the nodes that rank highest for it. The first of them that answers *leads*: it decides a write
//! with compare-and-swap, and the write is then copied to the others before it is acknowledged. A read asks all of
//! them. The latest copy counts, and a missing or older one is repaired from it. So a node may fail at any time and
//! come back, either empty or with its old data, and nothing is lost or brought back.
//!
//! What can go wrong, and the consequences:
//!
//! * *A gateway that considers the first node down and one that does not* write at the same time with different
//!   leaders. The second finds a foreign write at the follower while its own is at the leader. It abandons its own
//!   write, which was never acknowledged, and tries again on top of the other.
//! * *A node that missed the end of a value* (a session's tombstone) comes back after the tombstone has expired. So a
//!   tombstone that has not reached all nodes is kept for as long as an old copy may live.
//! * *Gateways that each reach a different node* can't know about each other's writes while that lasts. The later write
//!   wins, as a whole.
//! * *Two nodes that fail one after the other,* before the changes that the first one missed were read or written
//!   again: what only the second one had is lost.

mod lineage;
mod node;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use session::time::Seconds;

use self::lineage::Lineage;
use self::node::{NodeState, Replica, ReplicaNode, Written};
use super::rendezvous::Rendezvous;
use super::{Cas, Key, Replaced, Store, StoreEntry, StoreError};
use crate::metrics::Metrics;

/// How often a node that is down is pinged.
pub const PING_EVERY: Duration = Duration::from_millis(250);

/// The number of rounds that a write may lose against others before it is abandoned.
const ROUNDS: usize = 16;
const LOST_RACES: &str = "a write kept losing races";
const NOT_CARRIED: &str = "a write could not be brought to a node that is up";

/// A store of several nodes, each value on some of them.
pub struct Replicated<S> {
    nodes: Vec<Arc<ReplicaNode<S>>>,
    rendezvous: Rendezvous,
    replicas: usize,
    metrics: Metrics,
}

/// The nodes of one key and their copies, by rank.
struct View<'a, S> {
    places: Vec<RankedNode<'a, S>>,
}

struct RankedNode<'a, S> {
    /// 0 is the first.
    rank: usize,
    node: &'a Arc<ReplicaNode<S>>,
    seen: NodeState,
}

impl<S: Store> Replicated<S> {
    /// Values in `replicas` copies on these nodes, each with the name that it is ranked by.
    #[must_use]
    pub fn new(nodes: Vec<(String, S)>, replicas: usize, ping_every: Duration, metrics: &Metrics) -> Self {
        let rendezvous = Rendezvous::new(nodes.iter().map(|(name, _)| name.as_str()));
        let node = |(name, store)| Arc::new(ReplicaNode::new(name, store, ping_every, metrics.clone()));
        Self { nodes: nodes.into_iter().map(node).collect(), rendezvous, replicas, metrics: metrics.clone() }
    }

    /// The nodes that a key's replicas are on, by rank.
    fn nodes_of(&self, key: &Key) -> Vec<&Arc<ReplicaNode<S>>> {
        let ranked = self.rendezvous.ranked(key.as_str());
        ranked.into_iter().take(self.replicas).filter_map(|place| self.nodes.get(place)).collect()
    }

    async fn look(&self, key: &Key) -> Result<View<'_, S>, StoreError> {
        let nodes = self.nodes_of(key);
        let looks = join_all(nodes.iter().map(|node| node.look(key))).await;
        Self::view(nodes, looks)
    }

    /// Also asks nodes that are believed to be down.
    async fn look_everywhere(&self, key: &Key) -> Result<View<'_, S>, StoreError> {
        let nodes = self.nodes_of(key);
        let looks = join_all(nodes.iter().map(|node| node.look_anyway(key))).await;
        Self::view(nodes, looks)
    }

    fn view(
        nodes: Vec<&Arc<ReplicaNode<S>>>,
        looks: Vec<Result<NodeState, StoreError>>,
    ) -> Result<View<'_, S>, StoreError> {
        let mut failure = StoreError::Unavailable("no node is configured".to_owned());
        let mut places = Vec::with_capacity(nodes.len());
        for (rank, (node, look)) in nodes.into_iter().zip(looks).enumerate() {
            let seen = match look {
                Ok(seen) => seen,
                // A node that is up has not been asked, and its copy may be the one that counts.
                Err(error @ (StoreError::Refused(_) | StoreError::Overloaded)) => return Err(error),
                Err(error) => {
                    failure = error;
                    NodeState::Down
                }
            };
            places.push(RankedNode { rank, node, seen });
        }
        let is_answered = places.iter().any(|place| !place.seen.is_down());
        if is_answered { Ok(View { places }) } else { Err(failure) }
    }

    async fn read(&self, key: &Key, view: View<'_, S>) -> Option<StoreEntry> {
        self.metrics.repaired(view.repair(key).await);
        view.latest().map(|replica| StoreEntry {
            value: replica.value.clone(),
            cas: Cas(replica.lineage.name()),
            remaining: replica.remaining,
        })
    }
}

impl<S: Store> View<'_, S> {
    /// The copy that counts: the one that was made from the others. If two have diverged, the first node's can't have
    /// been acknowledged, because the others did not accept it: the later in rank counts.
    fn latest(&self) -> Option<&Replica> {
        self.places.iter().filter_map(|place| place.seen.replica()).reduce(|latest, replica| {
            let is_same = replica.lineage == latest.lineage;
            let is_newer = if is_same {
                replica.remaining > latest.remaining
            } else {
                !latest.lineage.descends_from(&replica.lineage)
            };
            if is_newer { replica } else { latest }
        })
    }

    /// Updates missing or older copies to the latest one. Returns their number.
    async fn repair(&self, key: &Key) -> usize {
        let Some(latest) = self.latest() else { return 0 };
        // Times are whole seconds: rounded up each time, two copies would keep each other alive for ever.
        let ttl = Seconds::new(latest.remaining.get().saturating_sub(1));
        let is_behind = |place: &&RankedNode<'_, S>| match &place.seen {
            NodeState::Replica(replica) => replica.lineage != latest.lineage,
            NodeState::Nothing => ttl > Seconds::ZERO,
            NodeState::Down => false,
        };
        let bytes = latest.lineage.encode(&latest.value);
        let behind = self.places.iter().filter(is_behind);
        let repairs = behind.map(|place| place.node.write(key, &place.seen, &bytes, ttl.max(Seconds::new(1))));
        // The faster writer wrote something at least as recent.
        join_all(repairs).await.into_iter().filter(|repair| matches!(repair, Ok(Written::Done))).count()
    }

    /// Replaces what was seen, if nothing else has been written since.
    async fn write(self, key: &Key, value: &[u8], ttl: Seconds) -> Result<Written, StoreError> {
        let base = self.latest().map(|replica| &replica.lineage);
        let lineage = base.map_or_else(Lineage::first, Lineage::next);
        let bytes = lineage.encode(value);
        // Better on no node than only on those where it fits.
        self.places.iter().try_for_each(|place| place.node.admit(key, bytes.len()))?;
        let new = New { is_first: base.is_none(), lineage, bytes, ttl };
        let Some(leader) = self.lead(key, &new).await? else { return Ok(Written::Conflict) };
        let mut told = vec![leader];
        for follower in self.places.iter().filter(|place| place.rank != leader.rank) {
            if matches!(follower.node.write(key, &follower.seen, &new.bytes, ttl).await, Ok(Written::Done)) {
                told.push(follower);
                continue;
            }
            match settle(key, leader, follower, &new).await? {
                Settled::Told => told.push(follower),
                Settled::Untold => {}
                Settled::GivenUp => return Ok(Written::Conflict),
            }
        }
        // A copy that was not replaced may live this long.
        let longest =
            self.places.iter().filter_map(|place| place.seen.replica()).map(|replica| replica.remaining).max();
        if let Some(longest) = longest.filter(|longest| told.len() < self.places.len() && *longest > ttl) {
            join_all(told.into_iter().map(|place| place.node.touch(key, longest))).await;
        }
        Ok(Written::Done)
    }

    /// Lets the first node that answers decide the write. Returns which one that is, or `None` if it has something
    /// else.
    async fn lead(&self, key: &Key, new: &New) -> Result<Option<&RankedNode<'_, S>>, StoreError> {
        let mut failure = StoreError::Unavailable("no node is configured".to_owned());
        for place in &self.places {
            match place.node.write(key, &place.seen, &new.bytes, new.ttl).await {
                Ok(Written::Done) => return Ok(Some(place)),
                Ok(Written::Conflict) => return Ok(None),
                // Nothing was written there.
                Err(error @ StoreError::Unavailable(_)) => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }
}

/// What a write puts under a key.
struct New {
    /// Nothing was there before.
    is_first: bool,
    lineage: Lineage,
    bytes: Vec<u8>,
    ttl: Seconds,
}

/// The outcome of a write at a follower that was down, or had something else than was seen.
enum Settled {
    /// It has the write.
    Told,
    /// It has a later write, or does not answer.
    Untold,
    /// The write is undone.
    GivenUp,
}

/// Brings a decided write to a follower that could not simply accept it.
async fn settle<S: Store>(
    key: &Key,
    leader: &RankedNode<'_, S>,
    follower: &RankedNode<'_, S>,
    new: &New,
) -> Result<Settled, StoreError> {
    for _ in 0..ROUNDS {
        let there = match follower.node.look(key).await {
            Ok(there) => there,
            // It is up, so it must get the write.
            Err(StoreError::Overloaded) => continue,
            Err(_) => return Ok(Settled::Untold),
        };
        let foreign = match &there {
            NodeState::Replica(replica) if replica.lineage == new.lineage => return Ok(Settled::Told),
            // A later write was decided by the leader, on top of ours.
            NodeState::Replica(replica) if replica.lineage.descends_from(&new.lineage) => return Ok(Settled::Untold),
            // The later in rank counts, so only one of the two gives up.
            NodeState::Replica(replica) if follower.rank > leader.rank && is_foreign(replica, follower, new) => replica,
            // It has its copy from before it failed, a copy that a reader repaired, or nothing.
            seen => match follower.node.write(key, seen, &new.bytes, new.ttl).await {
                Ok(Written::Done) => return Ok(Settled::Told),
                Ok(Written::Conflict) | Err(StoreError::Overloaded) => continue,
                Err(_) => return Ok(Settled::Untold),
            },
        };
        // A gateway with a different leader has written. That write may be acknowledged; ours is not.
        let undecided = |error: StoreError| StoreError::Unknown(error.to_string());
        let here = leader.node.look(key).await.map_err(undecided)?;
        match here.replica() {
            Some(replica) if replica.lineage == new.lineage => {}
            Some(replica) if replica.lineage.descends_from(&new.lineage) => {
                return Err(StoreError::Unknown("two nodes have taken different writes".to_owned()));
            }
            // A reader has repaired it from the follower's copy.
            Some(_) | None => return Ok(Settled::GivenUp),
        }
        let adopted = foreign.lineage.encode(&foreign.value);
        let written = leader.node.write(key, &here, &adopted, foreign.remaining.max(Seconds::new(1))).await;
        if written.map_err(undecided)? == Written::Done {
            return Ok(Settled::GivenUp);
        }
    }
    Err(StoreError::Unknown(NOT_CARRIED.to_owned()))
}

/// Whether the write and this replica have diverged, so that the write is not on top of it.
fn is_foreign<S>(replica: &Replica, follower: &RankedNode<'_, S>, new: &New) -> bool {
    let has_appeared = new.is_first && matches!(follower.seen, NodeState::Nothing);
    has_appeared || !new.lineage.descends_from(&replica.lineage)
}

impl<S: Store> Store for Replicated<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        Ok(self.read(key, self.look(key).await?).await)
    }

    async fn get_again(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        Ok(self.read(key, self.look_everywhere(key).await?).await)
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let view = self.look(key).await?;
        if view.latest().is_some() {
            return Ok(false);
        }
        Ok(view.write(key, value, ttl).await? == Written::Done)
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let view = self.look(key).await?;
        match view.latest() {
            None => return Ok(Replaced::Missing),
            Some(replica) if replica.lineage.name() != cas.0 => return Ok(Replaced::Conflict),
            Some(_) => {}
        }
        Ok(match view.write(key, value, ttl).await? {
            Written::Done => Replaced::Stored,
            Written::Conflict => Replaced::Conflict,
        })
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            if self.look(key).await?.write(key, value, ttl).await? == Written::Done {
                return Ok(());
            }
        }
        Err(StoreError::Unknown(LOST_RACES.to_owned()))
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let mut failure = None;
        let mut is_answered = false;
        for touched in join_all(self.nodes_of(key).into_iter().map(|node| node.touch(key, ttl))).await {
            match touched {
                Ok(true) => return Ok(true),
                Ok(false) => is_answered = true,
                Err(error) => failure = Some(error),
            }
        }
        failure.filter(|_| !is_answered).map_or(Ok(false), Err)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.nodes.is_empty() {
            return Err(StoreError::Unavailable("no node is configured".to_owned()));
        }
        select_ok(self.nodes.iter().map(|node| Box::pin(node.ping()))).await.map(|_| ())
    }
}

/// A store with one copy of each value, after there were several: reads what they left.
pub struct Unreplicated<S>(pub S);

impl<S: Store> Store for Unreplicated<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let entry = self.0.get(key).await?;
        Ok(entry.map(|entry| StoreEntry { value: Lineage::split(entry.value).1, ..entry }))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.0.add(key, value, ttl).await
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.0.replace(key, value, cas, ttl).await
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.0.set(key, value, ttl).await
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.0.touch(key, ttl).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}
