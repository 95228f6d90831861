//! Where writers of one session line up after they lost a race.
//!
//! Two hundred writers that all read, merge and compare-and-swap at once need twenty thousand
//! rounds. So whoever lost once waits for its turn among the losers of this process; only
//! writers in different gateways still race, a few at a time.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use crate::store::Key;

/// Sessions share lines; a line is held for a few store round trips, so that rarely matters.
const LINES: usize = 1024;
/// The longest pause between two attempts in milliseconds.
const LONGEST_PAUSE_MILLIS: u64 = 16;

pub(super) struct Line {
    lines: Vec<Mutex<()>>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { lines: (0..LINES).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for the turn of a writer of `key`, which lasts until the guard is dropped.
    pub(super) async fn join(&self, key: &Key) -> Option<MutexGuard<'_, ()>> {
        let line = xxh3_64(key.as_str().as_bytes()) % LINES as u64;
        let line = self.lines.get(usize::try_from(line).unwrap_or_default())?;
        Some(line.lock().await)
    }
}

/// Waits a random while, longer with each attempt, so that writers in different gateways get
/// out of step.
pub(super) async fn pause(attempt: u32) {
    let most = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX).min(LONGEST_PAUSE_MILLIS);
    // Without random bytes the pause is the shortest; the race is still decided by the store.
    let random = getrandom::u64().unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
}
