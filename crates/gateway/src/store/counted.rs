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

    fn count<T: Outcome>(&self, operation: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        self.metrics.store(operation, outcome.word());
        outcome
    }
}

/// What a store operation came to, in one word.
trait Outcome {
    fn word(&self) -> &'static str;
}

impl<T: Outcome> Outcome for Result<T, StoreError> {
    fn word(&self) -> &'static str {
        match self {
            Ok(outcome) => outcome.word(),
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Unknown(_)) => "unknown",
            Err(StoreError::Overloaded) => "overloaded",
            Err(StoreError::Refused(_)) => "refused",
            Err(StoreError::TooLarge { .. }) => "too_large",
        }
    }
}

impl Outcome for Option<Entry> {
    fn word(&self) -> &'static str {
        if self.is_some() { "hit" } else { "miss" }
    }
}

impl Outcome for bool {
    fn word(&self) -> &'static str {
        if *self { "ok" } else { "not_applied" }
    }
}

impl Outcome for Replaced {
    fn word(&self) -> &'static str {
        match self {
            Self::Stored => "ok",
            Self::Conflict => "conflict",
            Self::Missing => "missing",
        }
    }
}

impl Outcome for () {
    fn word(&self) -> &'static str {
        "ok"
    }
}

impl<S: Store> Store for Counted<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.count("get", self.store.get(key).await)
    }

    async fn get_again(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.count("get", self.store.get_again(key).await)
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
