//! Sessions in one memcached. [`Sharded`](super::Sharded) and [`Replicated`](super::Replicated) make a store of
//! several.
//!
//! The meta protocol returns the value, the compare-and-swap number and
//! the remaining time in one round trip.

mod listing;
mod node;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use memcache::exp::{Get, GetResult, Meta, MutationStatus, Set, Ttl};
use session::time::Seconds;

use self::node::MemcachedNode;
use super::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};

/// The settings for reaching the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Time limit for resolving a name and connecting.
    pub connect_timeout: Duration,
    /// Time limit for one request and its answer.
    pub exchange_timeout: Duration,
    /// Time limit for the wait for a free connection. Together with what follows, it has to be shorter than the time
    /// that callers wait.
    pub queue_timeout: Duration,
    /// The maximum number of connections to one node, apart from those of pings.
    pub max_connections: usize,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(200),
            exchange_timeout: Duration::from_millis(200),
            queue_timeout: Duration::from_millis(100),
            max_connections: 64,
        }
    }
}

/// Sessions in one memcached. Clones share its connections.
#[derive(Clone)]
pub struct Memcached {
    node: Arc<MemcachedNode>,
}

impl Memcached {
    /// A store on this node (`host:port`). Connects when first used.
    #[must_use]
    pub fn new(node: &str, transport: Transport) -> Self {
        Self { node: Arc::new(MemcachedNode::new(node.to_owned(), transport)) }
    }
}

impl Store for Memcached {
    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.node.admit(key.as_str().len() + bytes)
    }

    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let result = self.node.read(Get::new(key.as_str()).meta(Meta::NONE.cas().ttl())).await?;
        entry(result)
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let ttl = lifetime(ttl)?;
        let result = self.node.store(key, value, Set::new(key.as_str(), value).ttl(ttl).add()).await?;
        match result.status {
            MutationStatus::Applied => Ok(true),
            MutationStatus::AlreadyExists => Ok(false),
            other => Err(unexpected("add", other)),
        }
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let ttl = lifetime(ttl)?;
        let result = self.node.store(key, value, Set::new(key.as_str(), value).ttl(ttl).compare_cas(cas.0)).await?;
        match result.status {
            MutationStatus::Applied => Ok(Replaced::Stored),
            MutationStatus::CasMismatch => Ok(Replaced::Conflict),
            MutationStatus::NotFound => Ok(Replaced::Missing),
            other => Err(unexpected("replace", other)),
        }
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        let ttl = lifetime(ttl)?;
        let result = self.node.store(key, value, Set::new(key.as_str(), value).ttl(ttl)).await?;
        match result.status {
            MutationStatus::Applied => Ok(()),
            other => Err(unexpected("set", other)),
        }
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let ttl = lifetime(ttl)?;
        let result = self.node.write(Get::new(key.as_str()).without_value().touch(ttl)).await?;
        Ok(result.hit())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.node.ping().await
    }
}

impl ScanStore for Memcached {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        self.node.list(|key| keyspace.key(key)).await
    }
}

fn entry(result: GetResult) -> Result<Option<StoreEntry>, StoreError> {
    if !result.hit() {
        return Ok(None);
    }
    let (Some(value), Some(cas)) = (result.value, result.item.cas) else {
        return Err(StoreError::Unknown("an answer lacks its value or number".to_owned()));
    };
    // -1 stands for "never expires", which only a foreign value would; its record says when it ends.
    let remaining = result.item.ttl.and_then(|ttl| u64::try_from(ttl).ok()).unwrap_or(u64::MAX);
    Ok(Some(StoreEntry { value, cas: Cas(cas), remaining: Seconds::new(remaining) }))
}

/// Beyond 30 days, the client sends the end as an absolute time, which is how memcached distinguishes the two.
fn lifetime(ttl: Seconds) -> Result<Ttl, StoreError> {
    match u32::try_from(ttl.get()) {
        Ok(seconds) if seconds > 0 => Ok(Ttl::secs(seconds)),
        _ => Err(StoreError::Refused(format!("{ttl} s is not a valid time to live"))),
    }
}

/// memcached sent an answer that it never sends to this: the connection can't be trusted.
fn unexpected(operation: &str, status: MutationStatus) -> StoreError {
    StoreError::Unknown(format!("{operation} was answered with {status:?}"))
}
