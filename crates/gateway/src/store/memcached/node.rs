//! One memcached node: its connections, and its address as it changes.
//!
//! The client library resolves a name once. In Kubernetes a node keeps its name and changes its address
//! with every restart, so whenever a node can't be reached its name is looked up again, and on another
//! answer a new client takes the old one's place.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memcache::exp::{AsyncMetaClient, Error, Get, GetResult, Operation};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Transport;
use crate::store::StoreError;

/// A node that is down is looked up at most this often.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Node {
    address: String,
    transport: Transport,
    connected: Mutex<Option<Connected>>,
    /// Held during a look-up; the value is when the last one ended.
    lookup: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Connected {
    client: AsyncMetaClient,
    addresses: Arc<[SocketAddr]>,
}

impl Node {
    pub(super) fn new(address: String, transport: Transport) -> Self {
        Self { address, transport, connected: Mutex::new(None), lookup: tokio::sync::Mutex::new(None) }
    }

    /// Runs a read; once more if the connection broke under it.
    pub(super) async fn read(self: &Arc<Self>, get: Get) -> Result<GetResult, StoreError> {
        match self.client().await?.run(get.clone()).await {
            // A pooled connection that died between two requests says so at once. A slow node doesn't
            // get another chance: the caller has waited already.
            Err(Error::Io(_)) => {
                let _ = self.look_up().await;
                self.write(get).await
            }
            outcome => self.outcome(outcome),
        }
    }

    /// Runs an operation once.
    pub(super) async fn write<O: Operation>(self: &Arc<Self>, operation: O) -> Result<O::Output, StoreError> {
        let outcome = self.client().await?.run(operation).await;
        self.outcome(outcome)
    }

    /// A round trip.
    pub(super) async fn ping(self: &Arc<Self>) -> Result<(), StoreError> {
        let outcome = self.client().await?.noop().await;
        self.outcome(outcome)
    }

    fn outcome<T>(self: &Arc<Self>, outcome: Result<T, Error>) -> Result<T, StoreError> {
        outcome.map_err(|error| {
            if is_transport(&error) {
                let node = Arc::clone(self);
                // On its own, so that the caller hears of the failure now and not after a look-up.
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

    /// Brings the client up to date with what the name resolves to. Callers who come while a
    /// look-up runs wait for that one.
    async fn look_up(&self) -> Result<(), StoreError> {
        let mut last = self.lookup.lock().await;
        let known = self.connected();
        if last.is_some_and(|last| last.elapsed() < LOOKUP_INTERVAL) {
            let unresolved = || StoreError::Unavailable(format!("{}: the name does not resolve", self.address));
            return known.map(|_| ()).ok_or_else(unresolved);
        }
        let known = known.map(|known| known.addresses);
        let found = timeout(self.transport.connect_timeout, self.connect(known.as_deref())).await;
        *last = Some(Instant::now());
        let connected = match found {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(StoreError::Unavailable(format!("{}: {error}", self.address))),
            Err(error) => return Err(StoreError::Unavailable(format!("{}: {error}", self.address))),
        };
        if let Some(connected) = connected {
            tracing::info!(node = self.address, addresses = ?connected.addresses, "memcached node resolved");
            *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(connected);
        }
        Ok(())
    }

    /// A client for the name's addresses, unless they are the known ones.
    async fn connect(&self, known: Option<&[SocketAddr]>) -> Result<Option<Connected>, Error> {
        let mut addresses: Vec<_> = lookup_host(&self.address).await?.collect();
        addresses.sort_unstable();
        if known == Some(addresses.as_slice()) {
            return Ok(None);
        }
        let client = AsyncMetaClient::builder()
            .connect_timeout(Some(self.transport.connect_timeout))
            .io_timeout(Some(self.transport.exchange_timeout))
            .max_connections(Some(self.transport.max_connections))
            .max_idle(self.transport.max_connections)
            .connect_async(self.address.as_str())
            .await?;
        Ok(Some(Connected { client, addresses: addresses.into() }))
    }
}

/// Whether the node may be elsewhere by now.
fn is_transport(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Timeout { .. } => true,
        Error::Ambiguous { source, .. } => is_transport(source),
        _ => false,
    }
}
