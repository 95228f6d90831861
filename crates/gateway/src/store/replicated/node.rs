//! One of the nodes: what it has under a key, and whether it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session::time::Seconds;
use tokio::sync::Notify;

use super::stamp::{self, Stamp};
use crate::metrics::Metrics;
use crate::store::{Cas, Key, Replaced, ScanStore, StoreEntry, StoreError};

/// How many pings in a row a node has to leave without an answer until it counts as gone. A single request without an
/// answer says nothing: the node may have much to do.
const LOST_PINGS: u32 = 3;

/// A node, with what this gateway knows about it.
pub(super) struct CopyNode<S> {
    store: S,
    name: String,
    is_gone: AtomicBool,
    /// A request has failed: time to look.
    doubt: Notify,
    /// The node is gone, or back.
    pub(super) changed: Notify,
    metrics: Metrics,
}

/// A node's copy of a value.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) stamp: Stamp,
    pub(super) value: Vec<u8>,
    pub(super) remaining: Seconds,
}

/// What a node has under a key, as one look at it has shown.
#[derive(Clone, Debug)]
pub(super) struct NodeState {
    /// Names what is there to a write that replaces it. `None` if nothing is there.
    cas: Option<Cas>,
    /// The copy, if it counts.
    pub(super) replica: Option<Replica>,
}

/// The outcome of a write that replaces what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// By now, something else is there.
    Conflict,
}

impl NodeState {
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.replica.as_ref().map(|replica| replica.stamp)
    }
}

impl<S: ScanStore> CopyNode<S> {
    pub(super) fn new(name: String, store: S, metrics: Metrics) -> Self {
        Self { store, name, is_gone: AtomicBool::new(false), doubt: Notify::new(), changed: Notify::new(), metrics }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has not answered for some time.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// What the node has. A copy counts if `counts` says so.
    pub(super) async fn look(&self, key: &Key, counts: impl Fn(Stamp) -> bool) -> Result<NodeState, StoreError> {
        let entry = self.get(key).await?;
        let Some(StoreEntry { value, cas, remaining }) = entry else {
            return Ok(NodeState { cas: None, replica: None });
        };
        if value == stamp::EXPIRED {
            return Ok(NodeState { cas: Some(cas), replica: None });
        }
        let (stamp, value) = Stamp::split(value);
        let replica = counts(stamp).then_some(Replica { stamp, value, remaining });
        Ok(NodeState { cas: Some(cas), replica })
    }

    /// Writes a copy, unless there is something other than what was seen.
    pub(super) async fn write(
        &self,
        key: &Key,
        seen: &NodeState,
        bytes: &[u8],
        ttl: Seconds,
    ) -> Result<Written, StoreError> {
        let is_done = self.swap(key, seen.cas, bytes, ttl).await?;
        Ok(if is_done { Written::Done } else { Written::Conflict })
    }

    /// Writes bytes in place of those that `cas` names, or of nothing. `false` if something else is there.
    pub(super) async fn swap(
        &self,
        key: &Key,
        cas: Option<Cas>,
        bytes: &[u8],
        ttl: Seconds,
    ) -> Result<bool, StoreError> {
        match cas {
            Some(cas) => Ok(self.ask(self.store.replace(key, bytes, cas, ttl)).await? == Replaced::Stored),
            None => self.ask(self.store.add(key, bytes, ttl)).await,
        }
    }

    /// The bytes under a key that is no copy.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        self.ask(self.store.get(key)).await
    }

    pub(super) async fn set(&self, key: &Key, bytes: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.ask(self.store.set(key, bytes, ttl)).await
    }

    pub(super) async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.ask(self.store.touch(key, ttl)).await
    }

    pub(super) fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.store.admit(key, bytes)
    }

    /// The node's own store, for what is not a request of a caller.
    pub(super) const fn store(&self) -> &S {
        &self.store
    }

    /// Asks the node itself, whatever is believed about it.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// A node that is gone is not asked: otherwise each request would wait for it.
    async fn ask<T>(&self, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        if self.is_gone() {
            return Err(StoreError::Unavailable(format!("{} does not answer", self.name)));
        }
        let answer = asked.await;
        if matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))) {
            self.doubt.notify_one();
        }
        answer
    }

    fn believe(&self, is_gone: bool) {
        if self.is_gone.swap(is_gone, Ordering::Relaxed) == is_gone {
            return;
        }
        if is_gone {
            tracing::warn!(node = self.name, "a node does not answer");
            self.metrics.node_down();
        } else {
            tracing::info!(node = self.name, "a node answers again");
            self.metrics.node_up();
        }
        self.changed.notify_waiters();
    }
}

/// Pings the node until nothing else uses it.
pub(super) fn watch<S: ScanStore>(node: &Arc<CopyNode<S>>, ping_every: Duration) {
    let node = Arc::downgrade(node);
    tokio::spawn(async move {
        let mut lost = 0;
        while let Some(node) = node.upgrade() {
            match node.ping().await {
                Ok(()) => lost = 0,
                Err(_) => lost += 1,
            }
            if lost == 0 || lost >= LOST_PINGS {
                node.believe(lost > 0);
            }
            // After a failed request the next ping is due at once, but not one for each of a thousand.
            tokio::time::sleep(ping_every / 4).await;
            let rest = ping_every / 4 * 3;
            if lost == 0 {
                let _ = tokio::time::timeout(rest, node.doubt.notified()).await;
            } else {
                drop(node);
                tokio::time::sleep(rest).await;
            }
        }
    });
}
