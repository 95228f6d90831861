//! The way from one gateway to one node: slow, lossy, cut, crowded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use session::time::Seconds;
use session_gateway::store::{Cas, Key, Keyspace, Replaced, ScanStore, Store, StoreEntry, StoreError};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::node::{Node, Process};

/// How long a gateway waits for an answer: the default of `exchange_timeout`.
const EXCHANGE_TIMEOUT_MILLIS: u64 = 200;
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(EXCHANGE_TIMEOUT_MILLIS);
/// How long it waits for a free connection: the default of `queue_timeout`.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(100);
/// The longest time that a message is on its way, in milliseconds. A connection that lost more than that is gone.
const LATEST_MILLIS: u64 = 6_000;

/// Random numbers that all of one run share.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    /// Of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// The generator.
    pub fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self, percent: u8) -> bool {
        percent > 0 && self.rng().u8(0..100) < percent
    }
}

/// The state of a link. All chances are in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Connections are refused.
    pub refused: bool,
    /// Nothing arrives, in either direction.
    pub cut: bool,
    /// Added to each way, in milliseconds.
    pub delay: u64,
    /// The chance that a request is lost.
    pub lost: u8,
    /// The chance that an answer is lost.
    pub mute: u8,
    /// The chance that a request arrives long after its caller gave up.
    pub late: u8,
    /// The chance that no connection is free in time.
    pub crowded: u8,
}

/// Closed while a gateway hangs: nothing of it goes on.
#[derive(Clone, Default)]
pub struct Gate(Arc<(AtomicUsize, Notify)>);

impl Gate {
    /// The gateway hangs from now on.
    pub fn close(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It goes on, unless there is another reason for it to hang.
    pub fn open(&self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        self.0.1.notify_waiters();
    }

    /// Whether it hangs.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) > 0
    }

    async fn pass(&self) {
        while self.is_closed() {
            self.0.1.notified().await;
        }
    }
}

/// A link, as the store that the gateway has of it.
#[derive(Clone)]
pub struct Link {
    node: Node,
    gate: Gate,
    weather: Arc<Mutex<Weather>>,
    /// The shortest and the longest way of a message, in microseconds.
    distance: (u64, u64),
    dice: Dice,
}

/// Why there is no answer.
enum Silence {
    Refused,
    Crowded,
    Nothing,
}

impl Link {
    /// A link to a node, in good weather.
    #[must_use]
    pub fn new(node: Node, gate: Gate, distance: (u64, u64), dice: Dice) -> Self {
        Self { node, gate, weather: Arc::default(), distance, dice }
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.weather.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T, F>(&self, is_queued: bool, operation: F) -> Result<T, Silence>
    where
        T: Send + 'static,
        F: FnOnce(&mut Process) -> T + Send + 'static,
    {
        self.gate.pass().await;
        let answer = self.send(is_queued, operation).await;
        self.gate.pass().await;
        answer
    }

    async fn send<T, F>(&self, is_queued: bool, operation: F) -> Result<T, Silence>
    where
        T: Send + 'static,
        F: FnOnce(&mut Process) -> T + Send + 'static,
    {
        let weather = self.weather();
        if is_queued && self.dice.happens(weather.crowded) {
            sleep(QUEUE_TIMEOUT).await;
            return Err(Silence::Crowded);
        }
        let (there, back) = {
            let mut rng = self.dice.rng();
            let (least, most) = self.distance;
            (Duration::from_micros(rng.u64(least..most)), Duration::from_micros(rng.u64(least..most)))
        };
        let Some(incarnation) = self.node.incarnation().filter(|_| !weather.refused) else {
            sleep(there + back).await;
            return Err(Silence::Refused);
        };
        let (sender, receiver) = oneshot::channel();
        let link = self.clone();
        // What was sent arrives, whether or not its caller still waits.
        tokio::spawn(async move {
            if let Some(answer) = link.deliver(weather, incarnation, there, back, operation).await {
                let _ = sender.send(answer);
            }
        });
        match timeout(EXCHANGE_TIMEOUT, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                // Nothing comes any more, but only the time tells. A closed connection is noticed at once.
                if !self.weather().refused && self.node.incarnation() == Some(incarnation) {
                    sleep(EXCHANGE_TIMEOUT).await;
                }
                Err(Silence::Nothing)
            }
            Err(_) => Err(Silence::Nothing),
        }
    }

    async fn deliver<T>(
        &self,
        weather: Weather,
        incarnation: u32,
        there: Duration,
        back: Duration,
        operation: impl FnOnce(&mut Process) -> T,
    ) -> Option<T> {
        sleep(there + Duration::from_millis(weather.delay)).await;
        if self.dice.happens(weather.lost) {
            return None;
        }
        if weather.cut || self.dice.happens(weather.late) {
            let late = self.dice.rng().u64(EXCHANGE_TIMEOUT_MILLIS..LATEST_MILLIS);
            sleep(Duration::from_millis(late)).await;
            if self.weather().cut {
                return None;
            }
        }
        let answer = self.node.run(incarnation, operation).await?;
        sleep(back + Duration::from_millis(weather.delay)).await;
        (!self.weather().cut && !self.dice.happens(weather.mute)).then_some(answer)
    }

    async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Process) -> T + Send + 'static,
    {
        self.ask(true, operation).await.map_err(StoreError::from)
    }
}

impl From<Silence> for StoreError {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Refused => Self::Unavailable("refused".to_owned()),
            Silence::Crowded => Self::Overloaded,
            Silence::Nothing => Self::Unknown("no answer".to_owned()),
        }
    }
}

impl Store for Link {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let key = key.clone();
        self.write(move |process| process.get(&key)).await
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        let (key, value) = (key.clone(), value.to_vec());
        self.write(move |process| process.add(&key, &value, ttl)).await
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        let (key, value) = (key.clone(), value.to_vec());
        self.write(move |process| process.replace(&key, &value, cas, ttl)).await
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        let (key, value) = (key.clone(), value.to_vec());
        self.write(move |process| process.set(&key, &value, ttl)).await
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        let key = key.clone();
        self.write(move |process| process.touch(&key, ttl)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask(false, |_| ()).await.map_err(StoreError::from)
    }
}

impl ScanStore for Link {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        let keyspace = keyspace.clone();
        self.ask(false, move |process| process.keys(&keyspace)).await.map_err(StoreError::from)
    }
}
