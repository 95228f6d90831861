//! Where writers of one record line up after they lost a race.
//!
//! Two hundred writers that all read, merge and compare-and-swap at once need twenty thousand
//! rounds. So whoever lost once waits for its turn among the losers of this process; only
//! writers in different gateways still race, a few at a time.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use crate::store::Key;

/// Records share lines; a line is held for a few store round trips, so that rarely matters.
const LINES: usize = 1024;
/// The longest pause between two attempts in milliseconds.
const LONGEST_PAUSE_MILLIS: u64 = 16;

/// The lines of one kind of record. Who stands in one must not join another of the same kind, as the two may be one.
pub(super) struct Line {
    lines: Vec<Mutex<()>>,
}

/// A writer's attempts so far, and its place once it has one.
#[derive(Default)]
pub(super) struct Attempts<'a> {
    lost: u32,
    place: Option<MutexGuard<'a, ()>>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { lines: (0..LINES).map(|_| Mutex::new(())).collect() }
    }

    /// After a lost race for `key`: waits for the writer's turn, which lasts until the attempts are dropped, and from
    /// then on a random while, longer each time, so that writers in different gateways get out of step.
    pub(super) async fn after_loss<'a>(&'a self, key: &Key, attempts: &mut Attempts<'a>) {
        attempts.lost += 1;
        if attempts.place.is_none() {
            let line = xxh3_64(key.as_str().as_bytes()) % LINES as u64;
            if let Some(line) = self.lines.get(usize::try_from(line).unwrap_or_default()) {
                attempts.place = Some(line.lock().await);
            }
            return;
        }
        let most = 1_u64.checked_shl(attempts.lost).unwrap_or(u64::MAX).min(LONGEST_PAUSE_MILLIS);
        // Without random bytes the pause is the shortest; the race is still decided by the store.
        let random = getrandom::u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
    }
}
