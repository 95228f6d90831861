//! One memcached node: its connections, and its address as it changes.
//!
//! The client library resolves a name once. In Kubernetes a node keeps its name and changes its address with every
//! restart. So whenever a node can't be reached, its name is resolved again, and if the addresses differ, a new client
//! replaces the old one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memcache::exp::{AsyncMetaClient, Error, Get, GetResult, MutationResult, Operation, Set};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::queue::{Queue, QueueError, Turn};
use super::{Transport, listing};
use crate::store::{Key, StoreError, is_finishing};

/// The name of a node that is down is resolved at most this often.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);
/// What memcached stores with a key and a value: 59 bytes in 1.6, and a little more for later versions.
const ITEM_OVERHEAD: usize = 96;
/// The most bytes of an answer to `stats settings`. It has 4 KiB.
const MAX_STATS_BYTES: u64 = 64 * 1024;

pub(super) struct MemcachedNode {
    address: String,
    transport: Transport,
    queue: Queue,
    connected: Mutex<Option<Connected>>,
    /// Held while the name is being resolved; the value is when that last ended.
    lookup: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Connected {
    client: AsyncMetaClient,
    addresses: Arc<[SocketAddr]>,
    /// The maximum size of an item, including its key and memcached's overhead, if the node tells.
    largest_item: Option<usize>,
}

impl MemcachedNode {
    pub(super) fn new(address: String, transport: Transport) -> Self {
        let queue = Queue::new(transport.max_connections, transport.queue_timeout);
        Self { address, transport, queue, connected: Mutex::new(None), lookup: tokio::sync::Mutex::new(None) }
    }

    /// Runs a read, and repeats it once if the connection broke.
    pub(super) async fn read(self: &Arc<Self>, get: Get) -> Result<GetResult, StoreError> {
        match self.run(get.clone()).await? {
            // A pooled connection that died between two requests fails at once. A slow node does not get another
            // chance, because the caller has already waited.
            Err(Error::Io(_)) => {
                let _ = self.look_up().await;
                self.write(get).await
            }
            outcome => self.outcome(outcome),
        }
    }

    /// Runs an operation once.
    pub(super) async fn write<O: Operation>(self: &Arc<Self>, operation: O) -> Result<O::Output, StoreError> {
        let outcome = self.run(operation).await?;
        self.outcome(outcome)
    }

    /// Runs an operation once its turn has come.
    async fn run<O: Operation>(&self, operation: O) -> Result<Result<O::Output, Error>, StoreError> {
        let client = self.client().await?;
        let turn = self.turn().await?;
        let outcome = client.run(operation).await;
        drop(turn);
        Ok(outcome)
    }

    async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let turn = async {
            if is_finishing() {
                return self.queue.turn_to_finish(self.transport.exchange_timeout).await;
            }
            self.queue.turn().await
        };
        turn.await.map_err(|none| match none {
            QueueError::Overloaded => StoreError::Overloaded,
            QueueError::Silent => StoreError::Unavailable(format!("{}: answers no operation", self.address)),
        })
    }

    /// Runs a `set` of any mode, once. memcached drops the value under a key if a new value for it is too large, so
    /// such a value is not even sent.
    pub(super) async fn store(
        self: &Arc<Self>,
        key: &Key,
        value: &[u8],
        set: Set,
    ) -> Result<MutationResult, StoreError> {
        // This makes the limit known.
        self.client().await?;
        self.admit(key.as_str().len() + value.len())?;
        self.write(set).await
    }

    /// Whether memcached accepts an item whose key and value have this many bytes.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), StoreError> {
        match self.connected().and_then(|connected| connected.largest_item) {
            Some(limit) if bytes.saturating_add(ITEM_OVERHEAD) > limit => Err(StoreError::TooLarge { limit }),
            _ => Ok(()),
        }
    }

    /// A round trip that bypasses the queue, because a busy node is still alive.
    pub(super) async fn ping(self: &Arc<Self>) -> Result<(), StoreError> {
        let outcome = self.client().await?.noop().await;
        self.outcome(outcome)
    }

    /// All keys for which `wanted` returns something, over a connection of its own.
    pub(super) async fn list<T>(&self, wanted: impl Fn(&str) -> Option<T> + Sync) -> Result<Vec<T>, StoreError> {
        self.client().await?;
        let addresses = self.connected().map(|connected| connected.addresses).unwrap_or_default();
        let listed = listing::list(&addresses, self.transport.connect_timeout, wanted).await;
        listed.map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.address)))
    }

    fn outcome<T>(self: &Arc<Self>, outcome: Result<T, Error>) -> Result<T, StoreError> {
        let is_answer = outcome.as_ref().err().is_none_or(|error| !is_transport(error));
        if is_answer {
            self.queue.heard();
        }
        outcome.map_err(|error| {
            if !is_answer {
                let node = Arc::clone(self);
                // In the background, so that the caller learns about the failure now and not after the name has been
                // resolved.
                tokio::spawn(async move { node.look_up().await });
            }
            self.explained(&error)
        })
    }

    fn explained(&self, error: &Error) -> StoreError {
        let text = format!("{}: {error}", self.address);
        match error {
            // A complete refusal is an answer, though the library counts it among the unanswered.
            Error::Ambiguous { source, .. } => match source.as_ref() {
                Error::Server(_) | Error::Rejected(_) => StoreError::Refused(text),
                _ => StoreError::Unknown(text),
            },
            Error::Server(_) | Error::Rejected(_) | Error::Usage(_) => StoreError::Refused(text),
            Error::Io(_) | Error::Timeout { .. } => StoreError::Unavailable(text),
            _ => StoreError::Unknown(text),
        }
    }

    async fn client(&self) -> Result<AsyncMetaClient, StoreError> {
        if let Some(connected) = self.connected() {
            return Ok(connected.client);
        }
        self.look_up().await?;
        let connected = self.connected();
        connected
            .map(|connected| connected.client)
            .ok_or_else(|| StoreError::Unavailable(format!("{}: not resolved", self.address)))
    }

    fn connected(&self) -> Option<Connected> {
        // Nothing can panic while the lock is held; a poisoned one is as good.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Updates the client to the addresses that the name resolves to. Callers wait for one that is already under way.
    async fn look_up(&self) -> Result<(), StoreError> {
        let mut last = self.lookup.lock().await;
        let known = self.connected();
        if last.is_some_and(|last| last.elapsed() < LOOKUP_INTERVAL) {
            let unresolved = || StoreError::Unavailable(format!("{}: the name does not resolve", self.address));
            return known.map(|_| ()).ok_or_else(unresolved);
        }
        let found = timeout(self.transport.connect_timeout, self.connect(known)).await;
        *last = Some(Instant::now());
        let connected = match found {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(StoreError::Unavailable(format!("{}: {error}", self.address))),
            Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", self.address))),
        };
        if let Some(connected) = connected {
            let Connected { addresses, largest_item, .. } = &connected;
            tracing::info!(node = self.address, ?addresses, ?largest_item, "memcached node resolved");
            *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected);
        }
        Ok(())
    }

    /// A client for the name's addresses, unless nothing has changed.
    async fn connect(&self, known: Option<Connected>) -> Result<Option<Connected>, Error> {
        let mut addresses: Vec<_> = lookup_host(&self.address).await?.collect();
        addresses.sort_unstable();
        // A restarted node may have a different limit.
        let told = largest_item(&addresses).await;
        let largest_item = told.or(known.as_ref().and_then(|known| known.largest_item));
        if let Some(known) = known.filter(|known| *known.addresses == *addresses) {
            let is_new = known.largest_item != largest_item;
            return Ok(is_new.then_some(Connected { largest_item, ..known }));
        }
        let client = AsyncMetaClient::builder()
            .connect_timeout(Some(self.transport.connect_timeout))
            .io_timeout(Some(self.transport.exchange_timeout))
            // The queue limits them.
            .max_connections(None)
            .max_idle(self.transport.max_connections)
            .connect_async(self.address.as_str())
            .await?;
        Ok(Some(Connected { client, addresses: addresses.into(), largest_item }))
    }
}

/// The largest item that memcached keeps (`-I`), which only the classic protocol tells. If a server does not tell, no
/// limit is known.
async fn largest_item(addresses: &[SocketAddr]) -> Option<usize> {
    let mut stream = TcpStream::connect(addresses).await.ok()?;
    stream.write_all(b"stats settings\r\n").await.ok()?;
    let mut lines = BufReader::new(stream.take(MAX_STATS_BYTES)).lines();
    while let Some(line) = lines.next_line().await.ok()? {
        if let Some(limit) = line.strip_prefix("STAT item_size_max ") {
            return limit.trim().parse().ok();
        }
        if !line.starts_with("STAT ") {
            return None;
        }
    }
    None
}

/// Whether the node may have a different address by now.
fn is_transport(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Timeout { .. } => true,
        Error::Ambiguous { source, .. } => is_transport(source),
        _ => false,
    }
}
