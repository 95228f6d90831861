//! Two copies of each value: what remains when nodes fail, and when they come back. The simulation tries many more
//! schedules; here are a few with real time, and with real memcacheds.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use serde_json::json;
use session::id::SessionId;
use session::principal::Principal;
use session::record::{NewSession, Rotation, Timeouts};
use session::time::Seconds;
use session_gateway::environment::Environment;
use session_gateway::metrics::Metrics;
use session_gateway::sessions::{Sessions, Settings};
use session_gateway::store::memcached::Transport;
use session_gateway::store::{
    Cas, Key, Keyspace, Memcached as Client, Memory, Pace, Replaced, Replicated, ScanStore, Store, StoreEntry,
    StoreError,
};

use super::support::gateway::{Gateway, PATCH};
use super::support::memcached::Memcached;
use super::support::{eventually, fresh_id};

const MINUTE: Seconds = Seconds::new(60);
const SOON: Duration = Duration::from_millis(1);
/// Nodes are noticed to be gone or back within milliseconds.
const FAST: Pace =
    Pace { ping_every: SOON, steady: Duration::from_millis(5), patience: Duration::from_millis(20), ..Pace::DEFAULT };
/// Nothing is noticed but at the start.
const NEVER: Pace = Pace { ping_every: Duration::from_hours(1), ..Pace::DEFAULT };

/// A node that several gateways reach, or none of them.
struct Machine {
    memory: Mutex<Arc<Memory>>,
    is_up: AtomicBool,
    reads: AtomicU32,
}

#[derive(Clone)]
struct Reach(Arc<Machine>);

impl Machine {
    fn start() -> Arc<Self> {
        let memory = Mutex::new(Arc::new(Memory::new(1 << 24)));
        Arc::new(Self { memory, is_up: AtomicBool::new(true), reads: AtomicU32::new(0) })
    }

    fn stop(&self) {
        self.is_up.store(false, Ordering::SeqCst);
    }

    fn come_back(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }

    fn wipe(&self) {
        *self.memory.lock().unwrap() = Arc::new(Memory::new(1 << 24));
    }
}

impl Reach {
    fn memory(&self) -> Result<Arc<Memory>, StoreError> {
        let is_up = self.0.is_up.load(Ordering::SeqCst);
        is_up.then(|| Arc::clone(&self.0.memory.lock().unwrap())).ok_or(StoreError::Unavailable("down".to_owned()))
    }

    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        // Where others get their turn.
        tokio::task::yield_now().await;
        Ok(answer)
    }
}

impl Store for Reach {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        let found = self.memory()?.get(key).await;
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        found
    }

    async fn add(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<bool, StoreError> {
        self.answer(self.memory()?.add(key, value, ttl).await?).await
    }

    async fn replace(&self, key: &Key, value: &[u8], cas: Cas, ttl: Seconds) -> Result<Replaced, StoreError> {
        self.answer(self.memory()?.replace(key, value, cas, ttl).await?).await
    }

    async fn set(&self, key: &Key, value: &[u8], ttl: Seconds) -> Result<(), StoreError> {
        self.answer(self.memory()?.set(key, value, ttl).await?).await
    }

    async fn touch(&self, key: &Key, ttl: Seconds) -> Result<bool, StoreError> {
        self.memory()?.touch(key, ttl).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.memory().map(|_| ())
    }
}

impl ScanStore for Reach {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        self.memory()?.keys(keyspace).await
    }
}

/// A gateway's view of some machines.
struct Observer {
    store: Replicated<Reach>,
    metrics: Metrics,
}

impl Observer {
    fn of(machines: &[Arc<Machine>]) -> Self {
        let nodes = machines.iter().enumerate().map(|(n, machine)| (format!("n{n}:1"), Reach(Arc::clone(machine))));
        let metrics = Metrics::new();
        let store = Replicated::new(nodes.collect(), &keyspace(), FAST, &Environment::machine(), &metrics);
        Self { store, metrics }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("session_gateway_{name} ")));
        line.unwrap().parse().unwrap()
    }

    /// Until both nodes of all pairs but this many have everything.
    async fn until_degraded(&self, pairs: u64) {
        eventually("so many pairs are whole", async || self.metric("store_pairs_degraded") == pairs).await;
    }

    async fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.store.get(key).await.unwrap().map(|entry| entry.value)
    }
}

fn keyspace() -> Keyspace {
    Keyspace::new("test:").unwrap()
}

fn key(name: u8) -> Key {
    keyspace().subject(&Principal { realm: None, subject: name.to_string() })
}

/// Gateways learn of a node's end and return at different times, and write meanwhile.
#[tokio::test]
async fn no_acknowledged_write_is_lost_while_a_node_comes_and_goes() {
    for flapping in 0..2 {
        no_acknowledged_write_is_lost_while(flapping).await;
    }
}

async fn no_acknowledged_write_is_lost_while(node: usize) {
    const WRITERS: usize = 6;
    const OUTAGES: usize = 2;
    let machines = [Machine::start(), Machine::start()];
    let gateways: Vec<_> = (0..3).map(|_| Observer::of(&machines)).collect();
    let key = key(0);
    gateways[0].store.set(&key, b"0", MINUTE).await.unwrap();
    let is_over = AtomicBool::new(false);
    let flapping = async {
        for _ in 0..OUTAGES {
            gateways[0].until_degraded(0).await;
            machines[node].stop();
            gateways[0].until_degraded(1).await;
            machines[node].come_back();
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let writer = async |gateway: &Observer| {
        let (mut made, mut unknown) = (0, 0);
        while !is_over.load(Ordering::SeqCst) {
            // Until it is clear that the node is gone, there is no answer.
            let Ok(entry) = gateway.store.get(&key).await else {
                tokio::time::sleep(SOON).await;
                continue;
            };
            let entry = entry.expect("it was never ended");
            let count: usize = str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let next = (count + 1).to_string();
            match gateway.store.replace(&key, next.as_bytes(), entry.cas, MINUTE).await {
                Ok(Replaced::Stored) => made += 1,
                Ok(Replaced::Conflict) => tokio::time::sleep(Duration::from_micros(200)).await,
                Ok(Replaced::Missing) => panic!("lost"),
                Err(_) => unknown += 1,
            }
        }
        (made, unknown)
    };
    let writing = join_all((0..WRITERS).map(|n| writer(&gateways[n % gateways.len()])));
    let ((), counts) = tokio::join!(flapping, writing);
    let (made, unknown) = counts.into_iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    gateways[0].until_degraded(0).await;
    let count: usize = String::from_utf8(gateways[0].value(&key).await.unwrap()).unwrap().parse().unwrap();
    assert!(made > 0 && (made..=made + unknown).contains(&count), "{count}, {made} acknowledged, {unknown} not known");
}

#[tokio::test]
async fn what_ended_while_a_node_was_away_stays_ended() {
    let machines = [Machine::start(), Machine::start()];
    for node in &machines {
        let gateway = Observer::of(&machines);
        let key = key(9);
        gateway.store.set(&key, b"session", MINUTE).await.unwrap();
        node.stop();
        gateway.until_degraded(1).await;
        // The tombstone of a session lives shorter than the session would have.
        gateway.store.set(&key, b"end", Seconds::new(1)).await.unwrap();
        eventually("the end is over", async || gateway.value(&key).await.is_none()).await;
        node.come_back();
        gateway.until_degraded(0).await;
        assert_eq!(gateway.value(&key).await, None);
        // What was not read or written since is on both nodes as well.
        assert_eq!(gateway.metric("store_nodes_down"), 0);
    }
}

/// Also what no client reads meanwhile.
#[tokio::test]
async fn a_node_that_returns_has_everything_before_the_other_one_goes() {
    let machines = [Machine::start(), Machine::start()];
    let gateway = Observer::of(&machines);
    for is_wiped in [false, true] {
        for (node, other) in [(0, 1), (1, 0)] {
            gateway.until_degraded(0).await;
            machines[node].stop();
            gateway.until_degraded(1).await;
            for name in 0..100 {
                gateway.store.set(&key(name), &[name, u8::from(is_wiped)], MINUTE).await.unwrap();
            }
            if is_wiped {
                machines[node].wipe();
            }
            machines[node].come_back();
            gateway.until_degraded(0).await;
            machines[other].stop();
            gateway.until_degraded(1).await;
            for name in 0..100 {
                assert_eq!(gateway.value(&key(name)).await, Some(vec![name, u8::from(is_wiped)]));
            }
            machines[other].come_back();
        }
    }
}

#[tokio::test]
async fn without_any_copys_node_there_is_no_answer() {
    let machines = [Machine::start(), Machine::start(), Machine::start()];
    let gateway = Observer::of(&machines);
    gateway.store.ping().await.unwrap();
    machines[0].stop();
    machines[1].stop();
    gateway.store.ping().await.unwrap();
    machines[2].stop();
    assert!(gateway.store.ping().await.is_err());
    eventually("all are noticed", async || gateway.metric("store_nodes_down") == 3).await;
    let key = key(0);
    let unavailable = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::Unavailable(_)));
    assert!(unavailable(gateway.store.get(&key).await.map(|_| ())));
    assert!(unavailable(gateway.store.add(&key, b"x", MINUTE).await.map(|_| ())));
    assert!(unavailable(gateway.store.set(&key, b"x", MINUTE).await));
    assert!(unavailable(gateway.store.touch(&key, MINUTE).await.map(|_| ())));
}

fn new_session() -> NewSession {
    NewSession {
        data: serde_json::from_str(r#"{"user":"alice"}"#).unwrap(),
        timeouts: Timeouts { idle: MINUTE, absolute: MINUTE },
        subject_key: "user".to_owned(),
        realm: None,
        upstream_cookie: None,
        rotation: Rotation::None,
    }
}

#[tokio::test]
async fn a_read_asks_each_node_once_for_each_record() {
    let machines = [Machine::start(), Machine::start()];
    let nodes = machines.iter().enumerate().map(|(n, machine)| (format!("n{n}:1"), Reach(Arc::clone(machine))));
    let (environment, metrics) = (Environment::machine(), Metrics::new());
    let store = Replicated::new(nodes.collect(), &keyspace(), NEVER, &environment, &metrics);
    let settings = Settings {
        keyspace: keyspace(),
        max_data_bytes: 65_536,
        store_timeout: Duration::from_secs(20),
        tombstone_ttl: MINUTE,
        session_limit: None,
        environment,
    };
    let gateway = Sessions::new(store, settings, metrics);
    let id: SessionId = fresh_id().parse().unwrap();
    Box::pin(gateway.create(id, new_session(), None)).await.unwrap();
    for machine in &machines {
        let before = machine.reads.load(Ordering::SeqCst);
        gateway.read(id, None).await.unwrap();
        assert_eq!(machine.reads.load(Ordering::SeqCst) - before, 2, "the session and its subject");
    }
}

fn url(nodes: &[&Memcached]) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| node.node()).collect();
    format!("memcached://{}?replicas=2", nodes.join(","))
}

#[tokio::test]
async fn sessions_survive_the_loss_of_either_memcached() {
    let (one, two) = (Memcached::start(), Memcached::start());
    let gateway = Gateway::start(&url(&[&one, &two]));
    gateway.ready_turns(200).await;
    let ids: Vec<String> = (0..20).map(|_| fresh_id()).collect();
    for id in &ids {
        eventually("creation", async || matches!(gateway.put(id, r#"{"n":0}"#).await.status, 201 | 409)).await;
        eventually("login", async || gateway.patch(id, r#"{"user":"alice"}"#).await.status == 200).await;
    }
    let (destroyed, alive) = ids.split_first().unwrap();
    let mut running = [one, two];
    for round in 1..=2 {
        let [victim, other] = running;
        let port = victim.stop();
        for id in alive {
            let body = json!({"n": round}).to_string();
            eventually("a write", async || gateway.patch(id, &body).await.status == 200).await;
            assert_eq!(gateway.get(id).await.json(), json!({"n": round, "user": "alice"}));
        }
        gateway.ready_turns(200).await;
        if round == 1 {
            eventually("logout", async || gateway.session("DELETE", destroyed, &[], "").await.status == 204).await;
        }
        let back = Memcached::start_on(&port.to_string());
        // Whether a session is used meanwhile does not matter.
        eventually("it is back", async || gateway.metric("session_gateway_store_pairs_degraded").await == 0).await;
        gateway.get(destroyed).await.expect(StatusCode::NOT_FOUND);
        running = [other, back];
    }
    let listed = gateway.call("GET", "/v1/subjects/alice/sessions", &[], "").await.json();
    assert_eq!(listed.as_array().unwrap().len(), alive.len());
}

#[tokio::test]
async fn a_memcached_that_was_cut_off_brings_nothing_back() {
    let (one, two) = (Memcached::start(), Memcached::start());
    let gateway = Gateway::start_with(&url(&[&one, &two]), &["--tombstone-ttl", "1s"]);
    gateway.ready_turns(200).await;
    for cut_off in [&one, &two] {
        let (ended, revoked, changed) = (fresh_id(), fresh_id(), fresh_id());
        for id in [&ended, &revoked, &changed] {
            eventually("creation", async || matches!(gateway.put(id, "{}").await.status, 201 | 409)).await;
        }
        eventually("login", async || gateway.patch(&revoked, r#"{"user":"bob"}"#).await.status == 200).await;
        cut_off.freeze();
        eventually("logout", async || gateway.session("DELETE", &ended, &[], "").await.status == 204).await;
        let revoke = async || gateway.call("POST", "/v1/subjects/bob/revoke", &[], "").await.status == 204;
        eventually("revocation", revoke).await;
        eventually("a write", async || gateway.patch(&changed, r#"{"n":1}"#).await.status == 200).await;
        cut_off.thaw();
        eventually("it is back", async || gateway.metric("session_gateway_store_pairs_degraded").await == 0).await;
        // Longer than the tombstone lives that both nodes know of, such as this one.
        let known = fresh_id();
        gateway.session("DELETE", &known, &[], "").await.expect(StatusCode::NO_CONTENT);
        eventually("a tombstone is over", async || {
            gateway.put(&known, "{}").await;
            gateway.get(&known).await.status == 200
        })
        .await;
        gateway.get(&ended).await.expect(StatusCode::NOT_FOUND);
        gateway.session("PATCH", &ended, &[PATCH], "{}").await.expect(StatusCode::NOT_FOUND);
        gateway.get(&revoked).await.expect(StatusCode::NOT_FOUND);
        assert_eq!(gateway.get(&changed).await.json(), json!({"n": 1}));
    }
}

/// The real store under the real protocol.
#[tokio::test(flavor = "multi_thread")]
async fn copies_on_memcached_are_on_both_nodes() {
    let (one, two) = (Memcached::start(), Memcached::start());
    let patient = Duration::from_secs(10);
    let transport = Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() };
    let client = |node: &Memcached| (node.node(), Client::new(&node.node(), transport));
    let (environment, metrics) = (Environment::machine(), Metrics::new());
    let store = Replicated::new(vec![client(&one), client(&two)], &keyspace(), Pace::DEFAULT, &environment, &metrics);
    let key = key(0);
    store.set(&key, b"value", MINUTE).await.unwrap();
    for node in [&one, &two] {
        let copy = client(node).1.get(&key).await.unwrap().unwrap();
        assert!(copy.value.ends_with(b"\nvalue"));
        assert_eq!(node.command(&format!("get {}", key.as_str())).split(' ').next(), Some("VALUE"));
    }
    one.command(&format!("delete {}", key.as_str()));
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"value");
    assert!(client(&one).1.get(&key).await.unwrap().is_some(), "an evicted copy is repaired");
}
