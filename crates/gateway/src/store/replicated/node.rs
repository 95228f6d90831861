//! One of several nodes: whether it answers, and what it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session::time::Seconds;

use super::lineage::Lineage;
use crate::metrics::Metrics;
use crate::store::{Cas, Key, Replaced, Store, StoreEntry, StoreError};

/// A node that has failed is not asked again until it answers a ping: otherwise each request would wait for it.
pub(super) struct ReplicaNode<S> {
    store: S,
    name: String,
    is_down: AtomicBool,
    ping_every: Duration,
    metrics: Metrics,
}

/// What a node has under a key.
#[derive(Debug)]
pub(super) enum NodeState {
    Replica(Replica),
    Nothing,
    /// It does not answer.
    Down,
}

/// A node's copy of a value.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) lineage: Lineage,
    pub(super) value: Vec<u8>,
    pub(super) remaining: Seconds,
    cas: Cas,
}

/// The outcome of a write that replaces what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// By now, something else is there.
    Conflict,
}

impl From<Option<StoreEntry>> for NodeState {
    fn from(entry: Option<StoreEntry>) -> Self {
        entry.map_or(Self::Nothing, |StoreEntry { value, cas, remaining }| {
            let (lineage, value) = Lineage::split(value);
            Self::Replica(Replica { lineage, value, remaining, cas })
        })
    }
}

impl NodeState {
    pub(super) const fn replica(&self) -> Option<&Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Nothing | Self::Down => None,
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }
}

impl<S: Store> ReplicaNode<S> {
    pub(super) const fn new(name: String, store: S, ping_every: Duration, metrics: Metrics) -> Self {
        Self { store, name, is_down: AtomicBool::new(false), ping_every, metrics }
    }

    /// What the node has, or why it is unknown.
    pub(super) async fn look(self: &Arc<Self>, key: &Key) -> Result<NodeState, StoreError> {
        Ok(NodeState::from(self.ask(self.store.get(key)).await?))
    }

    /// What the node has, even if it is believed to be down. Only the ping decides whether it is.
    pub(super) async fn look_anyway(self: &Arc<Self>, key: &Key) -> Result<NodeState, StoreError> {
        if !self.is_down.load(Ordering::Relaxed) {
            return self.look(key).await;
        }
        self.store.get(key).await.map(NodeState::from).map_err(|_| self.down())
    }

    pub(super) fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.store.admit(key, bytes)
    }

    /// Writes a replica, unless there is something other than what was seen.
    pub(super) async fn write(
        self: &Arc<Self>,
        key: &Key,
        seen: &NodeState,
        bytes: &[u8],
        ttl: Seconds,
    ) -> Result<Written, StoreError> {
        let is_done = match seen {
            NodeState::Replica(seen) => {
                self.ask(self.store.replace(key, bytes, seen.cas, ttl)).await? == Replaced::Stored
            }
            NodeState::Nothing => self.ask(self.store.add(key, bytes, ttl)).await?,
            NodeState::Down => return Err(self.down()),
        };
        Ok(if is_done { Written::Done } else { Written::Conflict })
    }

    pub(super) async fn touch(self: &Arc<Self>, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.ask(self.store.touch(key, ttl)).await
    }

    /// Asks the node itself, whatever is believed about it.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    async fn ask<T>(self: &Arc<Self>, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(self.down());
        }
        let answer = asked.await;
        if matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))) {
            self.take_down();
        }
        answer
    }

    fn down(&self) -> StoreError {
        StoreError::Unavailable(format!("{} is down", self.name))
    }

    fn take_down(self: &Arc<Self>) {
        if self.is_down.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(node = self.name, "a node is down: its sessions are served from their other copies");
        self.metrics.node_down();
        let node = Arc::downgrade(self);
        let ping_every = self.ping_every;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(ping_every).await;
                let Some(node) = node.upgrade() else { return };
                if node.ping().await.is_ok() {
                    tracing::info!(node = node.name, "a node is back");
                    node.metrics.node_up();
                    node.is_down.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }
}
