//! Several nodes, with one copy or two of each value.

use session::time::Seconds;

use crate::environment::Environment;
use crate::metrics::Metrics;

use super::{Cas, Key, Keyspace, Pace, Replaced, Replicated, ScanStore, Sharded, Store, StoreEntry, StoreError};

/// A store of several nodes.
pub enum Nodes<S> {
    /// One copy of each value.
    One(Sharded<S>),
    /// Two.
    Two(Replicated<S>),
}

impl<S: ScanStore> Nodes<S> {
    /// One copy of each value, or two, on these nodes, each with the name that it is ranked by.
    #[must_use]
    pub fn new(
        nodes: Vec<(String, S)>,
        copies: usize,
        keyspace: &Keyspace,
        environment: &Environment,
        metrics: &Metrics,
    ) -> Self {
        if copies == 1 {
            return Self::One(Sharded::new(nodes));
        }
        Self::Two(Replicated::new(nodes, keyspace, Pace::DEFAULT, environment, metrics))
    }
}

/// Calls the same method of either.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self {
            Self::One(store) => store.$method($($argument),*).await,
            // Its calls are the larger part of a future that is moved several times.
            Self::Two(store) => Box::pin(store.$method($($argument),*)).await,
        }
    };
}

impl<S: ScanStore> Store for Nodes<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        either!(self, get(key))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        either!(self, add(key, value, ttl))
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        either!(self, replace(key, value, cas, ttl))
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        either!(self, set(key, value, ttl))
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        either!(self, touch(key, ttl))
    }

    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        match self {
            Self::One(store) => store.admit(key, bytes),
            Self::Two(store) => store.admit(key, bytes),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        either!(self, ping())
    }
}

impl<S: ScanStore> ScanStore for Nodes<S> {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        either!(self, keys(keyspace))
    }
}
