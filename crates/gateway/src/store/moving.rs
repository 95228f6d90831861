//! From one layout of the nodes to another, key by key, while gateways serve both.
//!
//! In another [`layout`](super::layout) a key is on other nodes, and its text has another layout number, so nothing
//! that a layout has left on a node can be taken for something of the other one.
//!
//! A change takes three steps, in each of which all gateways are restarted one after the other:
//!
//! 1. with the old layout as `--store` and the new one as `--next-store` ([`Lead::Old`]): keys are where they were, and
//!    those that have been moved are found;
//! 2. with the new layout as `--store` and the old one as `--previous-store` ([`Lead::New`]): every key that is used is
//!    moved, and a task moves the others;
//! 3. with the new layout only.
//!
//! The old key says where the value is:
//!
//! | under the old key | under the new key | meaning |
//! |---|---|---|
//! | a value, or nothing | nothing | not moved |
//! | *pending*, with the value | nothing, or *fresh* with the value | being moved: whoever sees this goes on with it |
//! | *moved* | a value, or nothing after it has ended | moved |
//!
//! A value stays *fresh* until its old key says *moved*. Before that it is not changed, so that nothing can end under
//! the new key and come back from the old one. [`Landed`] reads what a change has left fresh.

use futures_util::future::try_join_all;
use session::time::Seconds;
use xxhash_rust::xxh3::xxh3_64;

use super::rules::Rule;
use super::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};

/// How long an old key says that its value was moved. All gateways have to know the new layout before that is over.
pub const MOVED_TTL: Seconds = Seconds::new(24 * 3600);

const PENDING: &[u8] = b"M1 pending\n";
const FRESH: &[u8] = b"M1 fresh\n";
const MOVED: &[u8] = b"M1 moved\n";

/// The number of times that a call may meet another one that moves its key.
const ROUNDS: usize = 16;
/// How many keys are moved at once.
const TOGETHER: usize = 32;

/// Which layout a gateway uses for a key that was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// The old one: the first step.
    Old,
    /// The new one, after moving the key: the second step.
    New,
}

/// Two layouts, of which each key is in one.
pub struct Moving<O, N> {
    old: O,
    new: N,
    lead: Lead,
    keys: MovedKeys,
}

/// The keyspaces of the two layouts. Callers use the keys of the one that the gateway leads with.
#[derive(Clone, Debug)]
pub struct MovedKeys {
    /// Of the old layout.
    pub old: Keyspace,
    /// Of the new one.
    pub new: Keyspace,
}

/// Where a key's value is.
enum Place {
    Old(Option<StoreEntry>),
    /// `is_claimed`: the old key says so.
    New {
        entry: Option<StoreEntry>,
        is_claimed: bool,
    },
}

/// What an old key says.
enum OldState {
    Nothing,
    Value(StoreEntry),
    Pending(StoreEntry),
    Moved,
}

impl From<Option<StoreEntry>> for OldState {
    fn from(entry: Option<StoreEntry>) -> Self {
        match entry {
            None => Self::Nothing,
            Some(entry) if entry.value == MOVED => Self::Moved,
            Some(entry) => match entry.value.strip_prefix(PENDING) {
                Some(value) => Self::Pending(StoreEntry { value: value.to_vec(), ..entry }),
                None => Self::Value(entry),
            },
        }
    }
}

/// A key in both layouts.
struct Keys {
    old: Key,
    new: Key,
}

impl<O: Store, N: Store> Moving<O, N> {
    /// Both layouts, with the keys of each.
    pub const fn new(old: O, new: N, lead: Lead, keys: MovedKeys) -> Self {
        Self { old, new, lead, keys }
    }

    fn keys(&self, key: &Key) -> Result<Keys, StoreError> {
        let MovedKeys { old, new } = &self.keys;
        let (own, other) = match self.lead {
            Lead::Old => (old, new),
            Lead::New => (new, old),
        };
        let translated = own.translate(key, other);
        let translated = translated.ok_or_else(|| StoreError::Refused("not a key of this layout".to_owned()))?;
        Ok(match self.lead {
            Lead::Old => Keys { old: key.clone(), new: translated },
            Lead::New => Keys { old: translated, new: key.clone() },
        })
    }

    async fn place(&self, keys: &Keys) -> Result<Place, StoreError> {
        for _ in 0..ROUNDS {
            if self.lead == Lead::New
                && let Some(entry) = self.get_new(keys).await?
            {
                return Ok(Place::New { entry: Some(entry), is_claimed: true });
            }
            match (OldState::from(self.old.get(&keys.old).await?), self.lead) {
                (OldState::Nothing, Lead::Old) => return Ok(Place::Old(None)),
                (OldState::Value(entry), Lead::Old) => return Ok(Place::Old(Some(entry))),
                (OldState::Nothing, Lead::New) => return Ok(Place::New { entry: None, is_claimed: false }),
                // It may have been moved between the two looks.
                (OldState::Moved, _) => {
                    return Ok(Place::New { entry: self.get_new(keys).await?, is_claimed: true });
                }
                (OldState::Value(entry), Lead::New) if !Rule::MovesAreMarked.holds() => {
                    self.new.add(&keys.new, &entry.value, entry.remaining.max(Seconds::new(1))).await?;
                    self.close(keys, entry.cas).await?;
                }
                (OldState::Value(StoreEntry { value, cas, remaining }), Lead::New) => {
                    let pending = [PENDING, &value].concat();
                    self.old.replace(&keys.old, &pending, cas, remaining.max(Seconds::new(1))).await?;
                }
                (OldState::Pending(entry), _) => self.go_on(keys, entry).await?,
            }
        }
        Err(lost_races())
    }

    /// What is under the new key. If it is fresh, the old key says *moved* before anything else happens.
    async fn get_new(&self, keys: &Keys) -> Result<Option<StoreEntry>, StoreError> {
        let Some(entry) = self.new.get(&keys.new).await? else { return Ok(None) };
        let Some(value) = entry.value.strip_prefix(FRESH) else { return Ok(Some(entry)) };
        let value = value.to_vec();
        if let OldState::Pending(pending) = OldState::from(self.old.get(&keys.old).await?) {
            self.close(keys, pending.cas).await?;
        }
        Ok(Some(StoreEntry { value, ..entry }))
    }

    /// Puts a pending value under the new key.
    async fn go_on(&self, keys: &Keys, pending: StoreEntry) -> Result<(), StoreError> {
        let fresh = [FRESH, &pending.value].concat();
        self.new.add(&keys.new, &fresh, pending.remaining.max(Seconds::new(1))).await?;
        self.close(keys, pending.cas).await
    }

    async fn close(&self, keys: &Keys, pending: Cas) -> Result<(), StoreError> {
        // If something else is there, it says the same.
        self.old.replace(&keys.old, MOVED, pending, MOVED_TTL).await.map(|_| ())
    }

    /// Stores under the new key, where nothing is, after the old one has been told. `false` to look again.
    async fn add_new(&self, keys: &Keys, value: &[u8], ttl: Seconds, is_claimed: bool) -> Result<bool, StoreError> {
        if !is_claimed && Rule::NewKeysAreClaimed.holds() && !self.old.add(&keys.old, MOVED, MOVED_TTL).await? {
            return Ok(false);
        }
        self.new.add(&keys.new, value, ttl).await
    }
}

impl<O: ScanStore, N: Store> Moving<O, N> {
    /// Moves every key that is still in the old layout. Returns their number.
    pub async fn move_all(&self) -> Result<usize, StoreError> {
        let listed = self.old.keys(&self.keys.old).await?;
        let mut moved = 0;
        for some in listed.chunks(TOGETHER) {
            for was_moved in try_join_all(some.iter().map(|key| self.move_key(key))).await? {
                moved += usize::from(was_moved);
            }
        }
        Ok(moved)
    }

    /// `false` if there was nothing to move.
    async fn move_key(&self, old: &Key) -> Result<bool, StoreError> {
        let Some(new) = self.keys.old.translate(old, &self.keys.new) else { return Ok(false) };
        let keys = Keys { old: old.clone(), new };
        let is_there = match OldState::from(self.old.get(&keys.old).await?) {
            OldState::Nothing | OldState::Moved => false,
            OldState::Value(_) | OldState::Pending(_) => true,
        };
        if is_there {
            self.place(&keys).await?;
        }
        Ok(is_there)
    }
}

/// Names a value to callers: both layouts may have the same numbers.
fn named(cas: Cas, lead: Lead) -> Cas {
    let mut bytes = [0; 9];
    let (number, side) = bytes.split_at_mut(8);
    number.copy_from_slice(&cas.number().to_le_bytes());
    side.fill(u8::from(lead == Lead::New));
    Cas::from_number(xxh3_64(&bytes))
}

fn lost_races() -> StoreError {
    StoreError::Unknown("a call kept losing races".to_owned())
}

impl<O: Store, N: Store> Store for Moving<O, N> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let (entry, side) = match self.place(&self.keys(key)?).await? {
            Place::Old(entry) => (entry, Lead::Old),
            Place::New { entry, .. } => (entry, Lead::New),
        };
        Ok(entry.map(|entry| StoreEntry { cas: named(entry.cas, side), ..entry }))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let keys = self.keys(key)?;
        for _ in 0..ROUNDS {
            let is_added = match self.place(&keys).await? {
                Place::Old(Some(_)) | Place::New { entry: Some(_), .. } => return Ok(false),
                Place::Old(None) => self.old.add(&keys.old, value, ttl).await?,
                Place::New { entry: None, is_claimed } => self.add_new(&keys, value, ttl, is_claimed).await?,
            };
            if is_added {
                return Ok(true);
            }
        }
        Err(lost_races())
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let keys = self.keys(key)?;
        match self.place(&keys).await? {
            Place::Old(None) | Place::New { entry: None, .. } => Ok(Replaced::Missing),
            Place::Old(Some(entry)) if named(entry.cas, Lead::Old) == cas => {
                self.old.replace(&keys.old, value, entry.cas, ttl).await
            }
            Place::New { entry: Some(entry), .. } if named(entry.cas, Lead::New) == cas => {
                self.new.replace(&keys.new, value, entry.cas, ttl).await
            }
            Place::Old(Some(_)) | Place::New { entry: Some(_), .. } => Ok(Replaced::Conflict),
        }
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        let keys = self.keys(key)?;
        for _ in 0..ROUNDS {
            let is_set = match self.place(&keys).await? {
                Place::Old(None) => self.old.add(&keys.old, value, ttl).await?,
                Place::Old(Some(entry)) => {
                    self.old.replace(&keys.old, value, entry.cas, ttl).await? == Replaced::Stored
                }
                Place::New { entry: None, is_claimed } => self.add_new(&keys, value, ttl, is_claimed).await?,
                Place::New { entry: Some(entry), .. } => {
                    self.new.replace(&keys.new, value, entry.cas, ttl).await? == Replaced::Stored
                }
            };
            if is_set {
                return Ok(());
            }
        }
        Err(lost_races())
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let keys = self.keys(key)?;
        for _ in 0..ROUNDS {
            match self.place(&keys).await? {
                Place::Old(None) | Place::New { entry: None, .. } => return Ok(false),
                Place::New { entry: Some(_), .. } => return self.new.touch(&keys.new, ttl).await,
                // If it is moved meanwhile, what the old key says must not live shorter.
                Place::Old(Some(entry)) => {
                    if self.old.replace(&keys.old, &entry.value, entry.cas, ttl).await? == Replaced::Stored {
                        return Ok(true);
                    }
                }
            }
        }
        Err(lost_races())
    }

    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        let bytes = bytes.saturating_add(PENDING.len());
        self.old.admit(key, bytes)?;
        self.new.admit(key, bytes)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.lead {
            Lead::Old => self.old.ping().await,
            Lead::New => self.new.ping().await,
        }
    }
}

/// A layout that nothing is moved to any more: reads what was left fresh.
pub struct Landed<S>(pub S);

impl<S: Store> Store for Landed<S> {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let entry = self.0.get(key).await?;
        Ok(entry.map(|mut entry| {
            if entry.value.starts_with(FRESH) {
                entry.value.drain(..FRESH.len());
            }
            entry
        }))
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.0.add(key, value, ttl).await
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.0.replace(key, value, cas, ttl).await
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.0.set(key, value, ttl).await
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.0.touch(key, ttl).await
    }

    fn admit(&self, key: &Key, bytes: usize) -> Result<(), StoreError> {
        self.0.admit(key, bytes)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

impl<S: ScanStore> ScanStore for Landed<S> {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        self.0.keys(keyspace).await
    }
}
