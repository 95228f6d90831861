//! A store whose operations are counted.

use session::time::Seconds;

use super::{Cas, Entry, Key, Replaced, Store, StoreError};
use crate::metrics::Metrics;

/// Counts what is asked of a store and what comes of it.
pub struct Counted<S> {
    store: S,
    metrics: Metrics,
}

impl<S> Counted<S> {
    /// `store`, counted in `metrics`.
    pub const fn new(store: S, metrics: Metrics) -> Self {
        Self { store, metrics }
    }
}

impl<S: Store> Store for Counted<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.metrics.store("get", self.store.get(key).await)
    }

    async fn get_again(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.metrics.store("get", self.store.get_again(key).await)
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.metrics.store("add", self.store.add(key, value, ttl).await)
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.metrics.store("replace", self.store.replace(key, value, cas, ttl).await)
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.metrics.store("set", self.store.set(key, value, ttl).await)
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.metrics.store("touch", self.store.touch(key, ttl).await)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.metrics.store("ping", self.store.ping().await)
    }
}
