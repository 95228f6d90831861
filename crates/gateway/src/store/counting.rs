//! A store whose operations are counted.

use session::time::Seconds;

use super::{Cas, Key, Replaced, Store, StoreEntry, StoreError};
use crate::metrics::Metrics;

/// Counts a store's operations and their results.
pub struct CountingStore<S> {
    store: S,
    metrics: Metrics,
}

impl<S> CountingStore<S> {
    /// `store`, counted in `metrics`.
    pub const fn new(store: S, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    fn count<T: ResultLabel>(&self, operation: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        self.metrics.store(operation, outcome.label());
        outcome
    }
}

/// The result of a store operation, as the label of a metric.
trait ResultLabel {
    fn label(&self) -> &'static str;
}

impl<T: ResultLabel> ResultLabel for Result<T, StoreError> {
    fn label(&self) -> &'static str {
        match self {
            Ok(outcome) => outcome.label(),
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Unknown(_)) => "unknown",
            Err(StoreError::Overloaded) => "overloaded",
            Err(StoreError::Refused(_)) => "refused",
            Err(StoreError::TooLarge { .. }) => "too_large",
        }
    }
}

impl ResultLabel for Option<StoreEntry> {
    fn label(&self) -> &'static str {
        if self.is_some() { "hit" } else { "miss" }
    }
}

impl ResultLabel for bool {
    fn label(&self) -> &'static str {
        if *self { "ok" } else { "not_applied" }
    }
}

impl ResultLabel for Replaced {
    fn label(&self) -> &'static str {
        match self {
            Self::Stored => "ok",
            Self::Conflict => "conflict",
            Self::Missing => "missing",
        }
    }
}

impl ResultLabel for () {
    fn label(&self) -> &'static str {
        "ok"
    }
}

impl<S: Store> Store for CountingStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        self.count("get", self.store.get(key).await)
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.count("add", self.store.add(key, value, ttl).await)
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.count("replace", self.store.replace(key, value, cas, ttl).await)
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.count("set", self.store.set(key, value, ttl).await)
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.count("touch", self.store.touch(key, ttl).await)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.count("ping", self.store.ping().await)
    }
}
