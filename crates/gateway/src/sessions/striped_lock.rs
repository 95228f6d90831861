//! A striped lock, with which writers of one record take turns after they have lost a race.
//!
//! Two hundred writers that all read, merge and compare-and-swap at once need twenty thousand rounds. So a writer that
//! has lost once waits for its turn among those in this process that have. Only writers in different gateways still
//! race, a few at a time.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use crate::environment::Environment;
use crate::store::Key;

/// Records share stripes. A stripe is held for only a few round trips to the store, so this rarely matters.
const STRIPES: usize = 1024;
/// The longest pause between two attempts, in milliseconds.
const MAX_PAUSE_MILLIS: u64 = 16;

/// One lock for each stripe of the keys of one kind of record. A writer that holds one must not wait for another of the
/// same kind: both may be the same lock.
pub(super) struct StripedLock {
    stripes: Vec<Mutex<()>>,
    environment: Environment,
}

/// A writer's attempts so far, and its turn once it has one.
#[derive(Default)]
pub(super) struct Attempts<'a> {
    lost: u32,
    place: Option<MutexGuard<'a, ()>>,
}

impl StripedLock {
    pub(super) fn new(environment: Environment) -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(), environment }
    }

    /// After a lost race for `key`, waits for the writer's turn, which lasts until the attempts are dropped. Further
    /// calls wait for a random time, longer each time, so that writers in different gateways get out of step.
    pub(super) async fn after_loss<'a>(&'a self, key: &Key, attempts: &mut Attempts<'a>) {
        attempts.lost += 1;
        if attempts.place.is_none() {
            let stripe = xxh3_64(key.as_str().as_bytes()) % STRIPES as u64;
            if let Some(stripe) = self.stripes.get(usize::try_from(stripe).unwrap_or_default()) {
                attempts.place = Some(stripe.lock().await);
            }
            return;
        }
        let longest = 1_u64.checked_shl(attempts.lost).unwrap_or(u64::MAX).min(MAX_PAUSE_MILLIS);
        // Without random bytes, the pause is the shortest. The store still decides the race.
        let random = self.environment.random();
        tokio::time::sleep(Duration::from_millis(random % (longest + 1))).await;
    }
}
