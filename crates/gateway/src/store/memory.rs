//! The embedded store: one process's memory, bounded in bytes.
//!
//! For a gateway that runs alone. Its sessions end with the process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::ops::compute::{CompResult, Op};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use session::time::Seconds;

use super::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};

/// The size of an entry besides its key and value: the cache's own bookkeeping, measured and rounded up.
const ENTRY_OVERHEAD_BYTES: usize = 320;

/// Sessions in memory.
pub struct Memory {
    entries: Cache<String, Slot>,
    next_cas: AtomicU64,
}

#[derive(Clone)]
struct Slot {
    value: std::sync::Arc<[u8]>,
    cas: Cas,
    expires: Instant,
}

/// Lets each entry live for its own time to live.
struct PerEntry;

impl Expiry<String, Slot> for PerEntry {
    fn expire_after_create(&self, _: &String, slot: &Slot, now: Instant) -> Option<Duration> {
        Some(slot.expires.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &String, slot: &Slot, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(slot.expires.saturating_duration_since(now))
    }
}

impl Memory {
    /// A store that drops the least recently used values beyond `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &String, slot: &Slot| {
                let bytes = key.len() + slot.value.len() + ENTRY_OVERHEAD_BYTES;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            // The default policy may reject a new entry in favour of old ones. A session that was answered with 201
            // would then be missing.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(PerEntry)
            .build();
        Self { entries, next_cas: AtomicU64::new(1) }
    }

    fn slot(&self, value: &[u8], ttl: Seconds) -> Slot {
        Slot {
            value: value.into(),
            cas: Cas(self.next_cas.fetch_add(1, Ordering::Relaxed)),
            expires: Instant::now() + Duration::from_secs(ttl.get()),
        }
    }

    /// Runs `decide` on the key's live entry, with no concurrent write of that key.
    fn compute(&self, key: &Key, decide: impl FnOnce(Option<Slot>) -> Op<Slot>) -> CompResult<String, Slot> {
        self.entries.entry_by_ref(key.as_str()).and_compute_with(|entry| {
            // The cache notices an expiry a little late, which the contract does not allow for writes.
            let live = entry.map(moka::Entry::into_value).filter(|slot| slot.expires > Instant::now());
            decide(live)
        })
    }
}

impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let now = Instant::now();
        let live = self.entries.get(key.as_str()).filter(|slot| slot.expires > now);
        Ok(live.map(|slot| StoreEntry {
            value: slot.value.to_vec(),
            cas: slot.cas,
            remaining: round_up(slot.expires.saturating_duration_since(now)),
        }))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let mut added = false;
        self.compute(key, |live| {
            added = live.is_none();
            if added { Op::Put(self.slot(value, ttl)) } else { Op::Nop }
        });
        Ok(added)
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let mut replaced = Replaced::Missing;
        self.compute(key, |live| {
            replaced = match live {
                None => Replaced::Missing,
                Some(slot) if slot.cas != cas => Replaced::Conflict,
                Some(_) => Replaced::Stored,
            };
            if replaced == Replaced::Stored { Op::Put(self.slot(value, ttl)) } else { Op::Nop }
        });
        Ok(replaced)
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.compute(key, |_| Op::Put(self.slot(value, ttl)));
        Ok(())
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let mut touched = false;
        self.compute(key, |live| {
            let Some(slot) = live else { return Op::Nop };
            touched = true;
            Op::Put(Slot { expires: Instant::now() + Duration::from_secs(ttl.get()), ..slot })
        });
        Ok(touched)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl ScanStore for Memory {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        Ok(self.entries.iter().filter_map(|(key, _)| keyspace.key(&key)).collect())
    }
}

/// In whole seconds; a value just stored for a minute still has 60.
fn round_up(duration: Duration) -> Seconds {
    Seconds::new(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}
