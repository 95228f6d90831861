//! One copy of each value, over any store of one node.

use futures_util::future::{select_ok, try_join_all};
use session::time::Seconds;

use super::rendezvous::Rendezvous;
use super::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};

/// A store of several nodes, each value on the one that ranks highest for its key.
pub struct Sharded<S> {
    nodes: Vec<S>,
    rendezvous: Rendezvous,
}

impl<S> Sharded<S> {
    /// One copy of each value on these nodes, each with the name that it is ranked by. There has to be at least one.
    #[must_use]
    pub fn new(nodes: Vec<(String, S)>) -> Self {
        let rendezvous = Rendezvous::new(nodes.iter().map(|(name, _)| name.as_str()));
        Self { nodes: nodes.into_iter().map(|(_, node)| node).collect(), rendezvous }
    }

    fn node(&self, key: &Key) -> Result<&S, StoreError> {
        self.nodes.get(self.rendezvous.first(key.as_str())).ok_or_else(no_node)
    }
}

fn no_node() -> StoreError {
    StoreError::Unavailable("no node is configured".to_owned())
}

impl<S: Store> Store for Sharded<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        self.node(key)?.get(key).await
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.node(key)?.add(key, value, ttl).await
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.node(key)?.replace(key, value, cas, ttl).await
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.node(key)?.set(key, value, ttl).await
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.node(key)?.touch(key, ttl).await
    }

    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.node(key)?.admit(key, bytes)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.nodes.is_empty() {
            return Err(no_node());
        }
        select_ok(self.nodes.iter().map(|node| Box::pin(node.ping()))).await.map(|_| ())
    }
}

impl<S: ScanStore> ScanStore for Sharded<S> {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        Ok(try_join_all(self.nodes.iter().map(|node| node.keys(keyspace))).await?.concat())
    }
}
