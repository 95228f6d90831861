//! What the gateway needs from a store, and the available stores.
//!
//! A store keeps bytes under keys and forgets them when their time is over, or earlier if it must (after a restart, or
//! if memory runs out). It knows nothing about sessions.

mod counting;
pub mod layout;
pub mod memcached;
pub mod memory;
pub mod moving;
mod nodes;
pub mod rendezvous;
pub mod replicated;
pub mod rules;
mod sharded;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use session::id::SessionId;
use session::principal::Principal;
use session::time::Seconds;

pub use counting::CountingStore;
pub use memcached::Memcached;
pub use memory::Memory;
pub use nodes::{Context, Nodes, Place, Start};
pub use replicated::{Pace, Replicated};
pub use sharded::Sharded;

/// Keeps values under keys.
///
/// Implementers guarantee, to all users of one store and not only to those of one process:
///
/// * *Atomicity.* Each write takes effect as a whole or not at all, and a read sees one whole value.
/// * *Compare-and-swap.* After [`get`](Self::get) returned a [`Cas`], [`replace`](Self::replace) with it succeeds only
///   if no other `add`, `replace` or `set` of that key took effect since. Of any number of `add`s for an absent key one
///   succeeds. [`touch`](Self::touch) may or may not count as such a write.
/// * *Expiry.* A value is gone once its time to live is over, give or take a second. It may be gone earlier;
///   it is never replaced by an older one.
/// * *Honest errors.* [`StoreError::Unavailable`], [`StoreError::Overloaded`], [`StoreError::TooLarge`] and
///   [`StoreError::Refused`] mean that the write has not happened and never will; everything else is
///   [`StoreError::Unknown`].
/// * *Bounded time.* No call waits for ever.
///
/// `tests/all/store_contract.rs` holds every implementation to this.
pub trait Store: Send + Sync + 'static {
    /// The value under `key`, if there is one.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<StoreEntry>, StoreError>> + Send;

    /// Stores `value` if there is none under `key`; `false` if there is.
    fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Replaces the value that `cas` came with.
    fn replace(
        &self,
        key: &Key,
        value: &[u8],
        cas: Cas,
        ttl: Seconds,
    ) -> impl Future<Output = Result<Replaced, StoreError>> + Send;

    /// Stores `value`, whatever is under `key`.
    fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives the current value under `key` a new time to live; `false` if there is none.
    fn touch(&self, key: &Key, ttl: Seconds) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Fails with [`StoreError::TooLarge`] if a value of this size is too large for the store, as far as that is known.
    /// Writes check this on their own.
    fn admit(&self, _key: &Key, _bytes: usize) -> Result<(), StoreError> {
        Ok(())
    }

    /// Succeeds while any part of the store answers: a part that is down must not take the gateway out of service for
    /// the keys of the others.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

tokio::task_local! {
    static FINISHING: ();
}

/// Lets the operations of `work` wait longer for their turn than others: what has been begun on one node is worth more
/// than a new call, and costs a second one if it is given up.
pub(crate) async fn finishing<T>(work: impl Future<Output = T>) -> T {
    FINISHING.scope((), work).await
}

/// Whether an operation belongs to such work.
pub(crate) fn is_finishing() -> bool {
    FINISHING.try_with(|()| ()).is_ok()
}

/// A store that can say what it holds.
pub trait ScanStore: Store {
    /// All keys of `keyspace` that the store holds now. A key that is added or expires meanwhile may or may not be
    /// among them; every other one is. Fails if the answer can't be complete. Takes as long as it takes: callers limit
    /// the time.
    fn keys(&self, keyspace: &Keyspace) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;
}

/// A value as a store returns it.
#[derive(Debug)]
pub struct StoreEntry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Names this very value to [`Store::replace`].
    pub cas: Cas,
    /// Its remaining time to live, to the second.
    pub remaining: Seconds,
}

/// Names one value that a key has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cas(u64);

impl Cas {
    /// The name that a store's number stands for.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The store's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How a [`Store::replace`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The value is stored.
    Stored,
    /// Another write was first.
    Conflict,
    /// There is no longer a value.
    Missing,
}

/// The store could not complete an operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached or did not accept the request. Nothing was written.
    #[error("the store can't be reached: {0}")]
    Unavailable(String),
    /// It is overloaded. Nothing was written; it has not failed.
    #[error("the store is overloaded")]
    Overloaded,
    /// The request was sent, and no answer arrived. A write may have taken effect, or may still do so.
    #[error("the store did not answer: {0}")]
    Unknown(String),
    /// The value is too large for the store. Nothing was written, and the previous value is still there.
    #[error("the data is larger than the store keeps under one key, {limit} bytes with key and overhead")]
    TooLarge {
        /// The maximum number of bytes, including key and overhead.
        limit: usize,
    },
    /// It refuses this value or key, and always will. Nothing was written.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// A key in a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key's text: visible ASCII, at most 250 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key of its own, next to this one.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        Self(format!("{}{suffix}", self.0))
    }
}

/// Makes the keys of one installation.
#[derive(Clone, Debug)]
pub struct Keyspace {
    prefix: String,
}

impl Keyspace {
    /// The longest prefix in bytes. memcached limits keys to 250, and ours add at most 64.
    pub const MAX_PREFIX_BYTES: usize = 128;

    /// Keys that start with `prefix`.
    pub fn new(prefix: &str) -> Result<Self, KeyPrefixError> {
        let visible = prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || prefix.len() > Self::MAX_PREFIX_BYTES {
            return Err(KeyPrefixError);
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// The keys of another layout of the nodes: those of a key are in one layout or another. The first has no number
    /// in its keys.
    #[must_use]
    pub fn layout(&self, number: u16) -> Self {
        if number == 1 { self.clone() } else { Self { prefix: format!("{}{number}:", self.prefix) } }
    }

    /// The key under which nodes keep the record of the layout.
    pub(crate) fn layouts(&self) -> Key {
        Key(format!("{}l:nodes", self.prefix))
    }

    /// The key of the session `id`.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Key {
        let id = id.to_hex();
        let mut key = String::with_capacity(self.prefix.len() + 2 + id.as_str().len());
        key.push_str(&self.prefix);
        key.push_str("s:");
        key.push_str(id.as_str());
        Key(key)
    }

    /// The key of this subject's record. It is a hash, because the length and the characters of a key are limited.
    /// Subjects with a realm have a different kind of key.
    #[must_use]
    pub fn subject(&self, principal: &Principal) -> Key {
        let mut key = String::with_capacity(self.prefix.len() + 2 + 43);
        key.push_str(&self.prefix);
        key.push_str(if principal.realm.is_some() { "r:" } else { "u:" });
        URL_SAFE_NO_PAD.encode_string(principal.digest(), &mut key);
        Key(key)
    }

    /// The key under which two nodes keep what gateways have agreed on about them. `pair` names the two.
    pub(crate) fn view(&self, pair: u64) -> Key {
        Key(format!("{}{pair:016x}", self.views()))
    }

    /// What the keys of [`view`](Self::view) and those next to them start with.
    pub(crate) fn views(&self) -> String {
        format!("{}v:", self.prefix)
    }

    /// The key that a store has listed, if it is one of these.
    #[must_use]
    pub fn key(&self, listed: &str) -> Option<Key> {
        let is_ours = self.is_record(listed) || listed.starts_with(&self.views());
        (is_ours && listed.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Key(listed.to_owned()))
    }

    /// The key of the same session or subject in another keyspace. `None` if this is no such key of this one.
    #[must_use]
    pub fn translate(&self, key: &Key, other: &Self) -> Option<Key> {
        let record = key.0.strip_prefix(&self.prefix).filter(|_| self.is_record(&key.0))?;
        Some(Key(format!("{}{record}", other.prefix)))
    }

    /// Whether this is the key of a session or a subject.
    fn is_record(&self, key: &str) -> bool {
        let kind = key.strip_prefix(&self.prefix).and_then(|record| record.split_once(':'));
        kind.is_some_and(|(kind, _)| matches!(kind, "s" | "u" | "r"))
    }
}

/// The text can't start a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPrefixError;

impl fmt::Display for KeyPrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key prefix is at most {} visible ASCII characters without spaces", Keyspace::MAX_PREFIX_BYTES)
    }
}

impl std::error::Error for KeyPrefixError {}
