//! A memcached, as its manual says and no more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session::time::Seconds;
use session_gateway::store::{Cas, Key, Keyspace, Replaced, StoreEntry};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What the keys of the records of views start with: those of the first layout, and of the second.
const VIEWS: [&str; 2] = ["sm:v:", "sm:2:v:"];

/// The pair of nodes that a key is about, and perhaps what, if it is about views.
fn pair(key: &str) -> Option<&str> {
    VIEWS.iter().find_map(|views| key.strip_prefix(views))
}

/// A memcached that all gateways reach over their links.
#[derive(Clone)]
pub struct Node {
    state: Arc<Mutex<State>>,
    resumed: Arc<Notify>,
    /// How much later its seconds begin.
    phase: Duration,
}

struct State {
    process: Process,
    /// Which process this is: a message to an earlier one never arrives.
    incarnation: u32,
    is_running: bool,
    is_frozen: bool,
}

/// What ends with the process.
pub struct Process {
    entries: BTreeMap<String, Item>,
    last_cas: u64,
    began: Instant,
    /// Told of each write of a view's record.
    views: Arc<Notify>,
}

struct Item {
    value: Vec<u8>,
    cas: u64,
    /// In seconds of the process's clock.
    expires: u64,
}

impl Node {
    /// An empty one, whose seconds begin some time after the run's. `views` is told of each write of a view's record.
    #[must_use]
    pub fn new(phase: Duration, views: Arc<Notify>) -> Self {
        let process = Process::new(phase, views);
        let state = State { process, incarnation: 0, is_running: true, is_frozen: false };
        Self { state: Arc::new(Mutex::new(state)), resumed: Arc::new(Notify::new()), phase }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that a message is sent to, if there is one.
    #[must_use]
    pub fn incarnation(&self) -> Option<u32> {
        let state = self.state();
        state.is_running.then_some(state.incarnation)
    }

    /// Ends the process, and with it what it had.
    pub fn crash(&self) {
        let mut state = self.state();
        state.is_running = false;
        state.is_frozen = false;
        state.incarnation += 1;
        state.process = Process::new(self.phase, Arc::clone(&state.process.views));
        drop(state);
        self.resumed.notify_waiters();
    }

    /// Starts it again.
    pub fn start(&self) {
        let mut state = self.state();
        state.process = Process::new(self.phase, Arc::clone(&state.process.views));
        state.is_running = true;
    }

    /// Stops the process, as `SIGSTOP` does: it carries out what arrives when it goes on.
    pub fn freeze(&self) {
        self.state().is_frozen = true;
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.state().is_frozen = false;
        self.resumed.notify_waiters();
    }

    /// The records of views that it has, by key, whether or not it can be reached.
    #[must_use]
    pub fn views(&self) -> Vec<(String, String)> {
        let state = self.state();
        let records = state.process.entries.iter().filter(|(key, _)| pair(key).is_some_and(|pair| !pair.contains(':')));
        records.map(|(key, item)| (key.clone(), String::from_utf8_lossy(&item.value).into_owned())).collect()
    }

    /// Forgets those values for whose key `is_evicted`, as memcached does when its memory is full.
    pub fn evict(&self, is_evicted: impl Fn(&str) -> bool) {
        self.state().process.entries.retain(|key, _| !is_evicted(key));
    }

    /// Does `operation` once the process is not frozen. `None` if it has ended.
    pub async fn run<T>(&self, incarnation: u32, operation: impl FnOnce(&mut Process) -> T) -> Option<T> {
        loop {
            let resumed = self.resumed.notified();
            {
                let mut state = self.state();
                if !state.is_running || state.incarnation != incarnation {
                    return None;
                }
                if !state.is_frozen {
                    return Some(operation(&mut state.process));
                }
            }
            resumed.await;
        }
    }
}

impl Process {
    fn new(phase: Duration, views: Arc<Notify>) -> Self {
        Self { entries: BTreeMap::new(), last_cas: 0, began: Instant::now() + phase, views }
    }

    /// memcached's clock ticks once a second.
    fn clock(&self) -> u64 {
        (Instant::now() + Duration::from_secs(1)).duration_since(self.began).as_secs()
    }

    fn item(&mut self, key: &Key) -> Option<&mut Item> {
        let clock = self.clock();
        self.entries.get_mut(key.as_str()).filter(|item| item.expires > clock)
    }

    fn put(&mut self, key: &Key, value: &[u8], ttl: Seconds) {
        self.last_cas += 1;
        let item = Item { value: value.to_vec(), cas: self.last_cas, expires: self.clock() + ttl.get() };
        self.entries.insert(key.as_str().to_owned(), item);
        if pair(key.as_str()).is_some() {
            self.views.notify_one();
        }
    }

    /// `mg` with value, compare-and-swap number and time to live.
    pub fn get(&mut self, key: &Key) -> Option<StoreEntry> {
        let clock = self.clock();
        self.item(key).map(|item| StoreEntry {
            value: item.value.clone(),
            cas: Cas::from_number(item.cas),
            remaining: Seconds::new(item.expires - clock),
        })
    }

    /// `ms` in the mode *add*.
    pub fn add(&mut self, key: &Key, value: &[u8], ttl: Seconds) -> bool {
        let is_free = self.item(key).is_none();
        if is_free {
            self.put(key, value, ttl);
        }
        is_free
    }

    /// `ms` with a compare-and-swap number.
    pub fn replace(&mut self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Replaced {
        match self.item(key).map(|item| item.cas) {
            None => Replaced::Missing,
            Some(there) if there != cas.number() => Replaced::Conflict,
            Some(_) => {
                self.put(key, value, ttl);
                Replaced::Stored
            }
        }
    }

    /// `ms`.
    pub fn set(&mut self, key: &Key, value: &[u8], ttl: Seconds) {
        self.put(key, value, ttl);
    }

    /// `mg` with a time to live. The compare-and-swap number stays.
    pub fn touch(&mut self, key: &Key, ttl: Seconds) -> bool {
        let expires = self.clock() + ttl.get();
        self.item(key).is_some_and(|item| {
            item.expires = expires;
            true
        })
    }

    /// `lru_crawler metadump`.
    pub fn keys(&mut self, keyspace: &Keyspace) -> Vec<Key> {
        let clock = self.clock();
        self.entries.retain(|_, item| item.expires > clock);
        self.entries.keys().filter_map(|key| keyspace.key(key)).collect()
    }
}
