//! Revocations, evictions and logins in every order, on a real memcached: one call stops before a chosen step,
//! something else runs to completion, and the call continues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use session::id::SessionId;
use session::record::{Change, NewSession, Rotation, Timeouts};
use session::time::Seconds;
use session_gateway::environment::Environment;
use session_gateway::metrics::Metrics;
use session_gateway::sessions::{Precondition, SessionError, Sessions, Settings, Touch};
use session_gateway::store::memcached::Transport;
use session_gateway::store::{Cas, Key, Keyspace, Memcached as Client, Replaced, Store, StoreEntry, StoreError};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::support::gateway::Gateway;
use super::support::memcached::Memcached;
use super::support::{PATIENCE, alice, fresh_id};

/// A store that waits before each operation until it is let through, and says what it waits with.
struct Stepped {
    store: Client,
    waiting: tokio::sync::mpsc::UnboundedSender<&'static str>,
    steps: Arc<Semaphore>,
}

impl Stepped {
    async fn step(&self, operation: &'static str) {
        let _ = self.waiting.send(operation);
        self.steps.acquire().await.unwrap().forget();
    }
}

impl Store for Stepped {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        self.step("get").await;
        self.store.get(key).await
    }
    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.step("add").await;
        self.store.add(key, value, ttl).await
    }
    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.step("replace").await;
        self.store.replace(key, value, cas, ttl).await
    }
    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.step("set").await;
        self.store.set(key, value, ttl).await
    }
    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.step("touch").await;
        self.store.touch(key, ttl).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}

fn client(memcached: &Memcached) -> Client {
    let patient = Duration::from_secs(10);
    let transport = Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() };
    Client::new(&memcached.node(), transport)
}

fn sessions<S: Store>(store: S) -> Arc<Sessions<S>> {
    let settings = Settings {
        keyspace: Keyspace::new("sm:").unwrap(),
        max_data_bytes: 1000,
        store_timeout: PATIENCE,
        tombstone_ttl: Seconds::new(60),
        session_limit: None,
        environment: Environment::machine(),
    };
    Arc::new(Sessions::new(store, settings, Metrics::new()))
}

fn new_session(user: Option<&str>) -> NewSession {
    let data = user.map(|user| ("user".to_owned(), json!(user)));
    NewSession {
        data: data.into_iter().collect(),
        timeouts: Timeouts { idle: Seconds::new(1800), absolute: Seconds::new(43_200) },
        subject_key: "user".to_owned(),
        realm: None,
        upstream_cookie: None,
        rotation: Rotation::None,
    }
}

fn change(key: &str, value: &str) -> Change {
    let patch = [(key.to_owned(), json!(value))].into_iter().collect();
    Change { patches: vec![patch], subject_key: "user".to_owned(), ..Change::default() }
}

fn an_id() -> SessionId {
    fresh_id().parse().unwrap()
}

/// What comes between.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    Revocation,
    Eviction,
}

/// A call on a session of alice's, and what it does to the store if nothing comes between.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    /// Of a session that exists.
    Login,
    Creation,
    /// Of a session that is alice's already.
    Change,
}

/// Whether the session is good after `call`, before whose operation number `at` something came between.
async fn is_good_after(call: Call, between: Between, at: usize) -> Option<bool> {
    let memcached = Memcached::start();
    let direct = sessions(client(&memcached));
    let id = an_id();
    // So that there is a record already.
    direct.create(an_id(), new_session(Some("alice")), None).await.unwrap();
    match call {
        Call::Login => drop(direct.create(id, new_session(None), None).await.unwrap()),
        Call::Creation => {}
        Call::Change => drop(direct.create(id, new_session(Some("alice")), None).await.unwrap()),
    }
    let (waiting, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let steps = Arc::new(Semaphore::new(0));
    let stepped = sessions(Stepped { store: client(&memcached), waiting, steps: Arc::clone(&steps) });
    let under_way = tokio::spawn(async move {
        match call {
            Call::Login => stepped.change(id, &change("user", "alice"), &Precondition::None, None).await.map(drop),
            Call::Creation => stepped.create(id, new_session(Some("alice")), None).await.map(drop),
            Call::Change => stepped.change(id, &change("n", "1"), &Precondition::None, None).await.map(drop),
        }
    });
    for _ in 0..at {
        waits.recv().await?;
        steps.add_permits(1);
    }
    // Nothing left to come between: the call is over.
    waits.recv().await?;
    match between {
        Between::Revocation => direct.revoke(&alice(), None).await.unwrap(),
        Between::Eviction => {
            let key = Keyspace::new("sm:").unwrap().subject(&alice());
            assert_eq!(memcached.command(&format!("md {}", key.as_str())), "HD");
        }
    }
    steps.add_permits(1000);
    let outcome = under_way.await.unwrap();
    assert!(matches!(outcome, Ok(()) | Err(SessionError::NotFound)), "{outcome:?}");
    let good = direct.read(id, None).await.is_ok();
    assert!(outcome.is_ok() || !good);
    // And never again, whatever user logs in.
    direct.create(an_id(), new_session(Some("alice")), None).await.unwrap();
    assert_eq!(direct.read(id, None).await.is_ok(), good);
    Some(good)
}

/// The four operations of a login and of a creation are: the session is read, the record is read, the record is
/// written, the session is written. What comes before the record is written comes before the login as a whole; from
/// then on it ends the session. A change of a session that is alice's already reads both and writes one.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_between() {
    for between in [Between::Revocation, Between::Eviction] {
        for (call, expected) in [
            (Call::Login, &[true, true, true, false][..]),
            (Call::Creation, &[true, true, true, false]),
            (Call::Change, &[false, false, false]),
        ] {
            for (at, good) in expected.iter().enumerate() {
                assert_eq!(is_good_after(call, between, at).await, Some(*good), "{between:?} in {call:?} at {at}");
            }
            assert_eq!(is_good_after(call, between, expected.len()).await, None, "{call:?} has more operations");
        }
    }
}

/// The answer to a touching read does not wait for the store, and a drain waits for what it left to do.
#[tokio::test]
async fn no_read_waits_for_an_extension() {
    let memcached = Memcached::start();
    let direct = sessions(client(&memcached));
    let id = an_id();
    let mut new = new_session(None);
    new.timeouts.idle = Seconds::new(1000);
    direct.create(id, new, None).await.unwrap();
    let key = Keyspace::new("sm:").unwrap().session(id);
    client(&memcached).touch(&key, Seconds::new(100)).await.unwrap();

    let (waiting, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let steps = Arc::new(Semaphore::new(1));
    let stepped = sessions(Stepped { store: client(&memcached), waiting, steps: Arc::clone(&steps) });
    let read = stepped.read(id, Some(Touch::default())).await.unwrap();
    let left = async || direct.read(id, None).await.unwrap().expires;
    assert!(read.expires.get() > left().await.get() + 800, "it says what will be");
    assert_eq!((waits.recv().await, waits.recv().await), (Some("get"), Some("touch")));
    let (finished, mut is_finished) = oneshot::channel();
    let finishing = tokio::spawn(async move {
        stepped.finish().await;
        let _ = finished.send(());
    });
    tokio::task::yield_now().await;
    assert!(is_finished.try_recv().is_err(), "the extension is still to come");
    steps.add_permits(1);
    finishing.await.unwrap();
    assert!(left().await.get().abs_diff(read.expires.get()) <= 1);
}

/// Logins and revocations at once through two gateways. A session from before a revocation is ended after it.
#[tokio::test(flavor = "multi_thread")]
async fn logins_and_revocations_at_once() {
    let memcached = Memcached::start();
    let store = memcached.url() + "?exchange_timeout=30s&connect_timeout=30s&queue_timeout=30s";
    let gateways = [(); 2].map(|()| Arc::new(Gateway::start_with(&store, &["--store-timeout", "60s"])));
    let revoked = Arc::new(AtomicUsize::new(0));
    let mut logins = JoinSet::new();
    for gateway in gateways.iter().cycle().take(60) {
        let (gateway, begun) = (Arc::clone(gateway), Arc::clone(&revoked));
        logins.spawn(async move {
            let id = gateway.logged_in("alice").await;
            // How many revocations had begun by the time the login was over.
            (id, begun.load(Ordering::SeqCst))
        });
    }
    for _ in 0..10 {
        revoked.fetch_add(1, Ordering::SeqCst);
        gateways[0].revoke("alice", "").await;
    }
    let mut good = Vec::new();
    for (id, begun) in logins.join_all().await {
        let status = gateways[1].get(&id).await.status;
        assert!(begun == 10 || status == 404, "in before revocation {} began, and still in", begun + 1);
        if status == 200 {
            good.push(id);
        }
    }
    good.sort();
    let mut listed = gateways[1].listed("alice").await;
    listed.sort();
    assert_eq!(good, listed);
    gateways[1].revoke("alice", "").await;
    for id in good {
        gateways[0].get(&id).await.expect(StatusCode::NOT_FOUND);
    }
}
