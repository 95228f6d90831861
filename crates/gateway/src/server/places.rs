//! Limits the connections, and decides which one is closed when there are more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::activity::Activity;

/// How long a connection that was told to close may take before the next one is told.
const PATIENCE: Duration = Duration::from_millis(20);

/// The places for connections of one listener.
pub(super) struct ConnectionPlaces {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    by: BTreeMap<u64, Arc<Activity>>,
    next: u64,
}

/// A place for one connection, which it has until this is dropped.
pub(super) struct ConnectionPlace {
    places: Arc<ConnectionPlaces>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPlaces {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(max)), taken: Mutex::default() })
    }

    /// A place for a connection. If there is none, the oldest connection that can be spared is closed: callers without
    /// a token must not keep out those with one.
    pub(super) async fn take(self: &Arc<Self>, activity: &Arc<Activity>) -> ConnectionPlace {
        let permit = loop {
            let free = Arc::clone(&self.free);
            if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
                break permit;
            }
            self.make_room();
            if let Ok(Ok(permit)) = timeout(PATIENCE, free.acquire_owned()).await {
                break permit;
            }
        };
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.by.insert(number, Arc::clone(activity));
        ConnectionPlace { places: Arc::clone(self), number, _permit: permit }
    }

    /// Closes the oldest connection that can be spared, if there is one.
    pub(super) fn make_room(&self) {
        let spare = self.taken().by.values().find(|activity| activity.is_expendable()).cloned();
        if let Some(activity) = spare {
            activity.is_unwanted.notify_one();
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing can panic while the lock is held; a poisoned one is as good.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.places.taken().by.remove(&self.number);
    }
}
