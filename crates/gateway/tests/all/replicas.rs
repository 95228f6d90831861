//! Several copies of each value: what remains when nodes fail, and when they come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use proptest::prelude::*;
use serde_json::json;
use session::id::SessionId;
use session::principal::Principal;
use session::record::{Change, NewSession, Rotation, Timeouts};
use session::time::Seconds;
use session::version::Version;
use session_gateway::metrics::Metrics;
use session_gateway::sessions::{Precondition, Sessions, Settings};
use session_gateway::store::memcached::Transport;
use session_gateway::store::{
    Cas, Key, Keyspace, Memcached as Client, Memory, Replaced, Replicated, Store, StoreEntry, StoreError, Unreplicated,
};

use super::support::gateway::{Gateway, PATCH};
use super::support::memcached::Memcached;
use super::support::{eventually, fresh_id};

const MINUTE: Seconds = Seconds::new(60);
const SOON: Duration = Duration::from_millis(1);

/// A node that several gateways reach, or none of them.
struct Machine {
    memory: Mutex<Arc<Memory>>,
    is_up: AtomicBool,
    /// How many of the next writes happen, but are never answered.
    mute: AtomicU32,
    reads: AtomicU32,
}

#[derive(Clone)]
struct Reach(Arc<Machine>);

impl Machine {
    fn start() -> Arc<Self> {
        let memory = Mutex::new(Arc::new(Memory::new(1 << 24)));
        Arc::new(Self { memory, is_up: AtomicBool::new(true), mute: AtomicU32::new(0), reads: AtomicU32::new(0) })
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
        let take = |left: u32| left.checked_sub(1);
        match self.0.mute.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(StoreError::Unknown("no answer".to_owned())),
            Err(_) => Ok(answer),
        }
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

/// A gateway's view of some machines.
struct Observer {
    store: Replicated<Reach>,
    metrics: Metrics,
}

impl Observer {
    fn of(machines: &[Arc<Machine>]) -> Self {
        let nodes = machines.iter().enumerate().map(|(n, machine)| (format!("n{n}:1"), Reach(Arc::clone(machine))));
        let metrics = Metrics::new();
        Self { store: Replicated::new(nodes.collect(), 2, SOON, &metrics), metrics }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("session_gateway_{name} ")));
        line.unwrap().parse().unwrap()
    }

    async fn until_all_are_up(&self) {
        eventually("all nodes are up", async || self.metric("store_nodes_down") == 0).await;
    }

    async fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.store.get(key).await.unwrap().map(|entry| entry.value)
    }
}

fn key(name: u8) -> Key {
    Keyspace::new("test:").unwrap().subject(&Principal { realm: None, subject: name.to_string() })
}

#[derive(Clone, Debug)]
enum Event {
    Add(u8, u8),
    Replace(u8, u8),
    Set(u8, u8),
    Touch(u8),
    Get(u8),
    /// A node goes away, and comes back some events later: empty, or with what it had.
    Outage {
        node: usize,
        is_wiped: bool,
    },
    Return,
    /// The answer to one write is lost, and its node taken for down.
    Mute(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let (name, value) = (0..4_u8, any::<u8>());
    prop_oneof![
        2 => (name.clone(), value).prop_map(|(name, value)| Event::Add(name, value)),
        4 => (name.clone(), value).prop_map(|(name, value)| Event::Replace(name, value)),
        2 => (name.clone(), value).prop_map(|(name, value)| Event::Set(name, value)),
        1 => name.clone().prop_map(Event::Touch),
        4 => name.prop_map(Event::Get),
        2 => (0..3_usize, any::<bool>()).prop_map(|(node, is_wiped)| Event::Outage { node, is_wiped }),
        2 => Just(Event::Return),
        1 => (0..3_usize).prop_map(Event::Mute),
    ]
}

/// One failure at a time: what the last one cost is made good by reading everything.
async fn make_good(gateways: &[Observer]) {
    for gateway in gateways {
        gateway.until_all_are_up().await;
    }
    for name in 0..4 {
        gateways[0].value(&key(name)).await;
    }
}

/// Two gateways take turns on three nodes, of which one may be away: as if there were one value for each key.
async fn as_if_there_were_one_copy(events: Vec<(bool, Event)>) {
    let machines = [Machine::start(), Machine::start(), Machine::start()];
    let gateways = [Observer::of(&machines), Observer::of(&machines)];
    let mut model: HashMap<u8, Vec<u8>> = HashMap::new();
    let mut away: Option<(usize, bool)> = None;
    let come_back = |away: &mut Option<(usize, bool)>| {
        if let Some((node, is_wiped)) = away.take() {
            if is_wiped {
                machines[node].wipe();
            }
            machines[node].come_back();
        }
    };
    for (turn, event) in events {
        let Observer { store, .. } = &gateways[usize::from(turn)];
        match event {
            Event::Add(name, value) => {
                let is_free = !model.contains_key(&name);
                assert_eq!(store.add(&key(name), &[value], MINUTE).await.unwrap(), is_free);
                if is_free {
                    model.insert(name, vec![value]);
                }
            }
            Event::Replace(name, value) => {
                let found = store.get(&key(name)).await.unwrap();
                assert_eq!(found.as_ref().map(|entry| &entry.value), model.get(&name));
                if let Some(entry) = found {
                    let replaced = store.replace(&key(name), &[value], entry.cas, MINUTE).await.unwrap();
                    assert_eq!(replaced, Replaced::Stored);
                    let late = store.replace(&key(name), b"late", entry.cas, MINUTE).await.unwrap();
                    assert_eq!(late, Replaced::Conflict);
                    model.insert(name, vec![value]);
                }
            }
            Event::Set(name, value) => {
                store.set(&key(name), &[value], MINUTE).await.unwrap();
                model.insert(name, vec![value]);
            }
            Event::Touch(name) => {
                assert_eq!(store.touch(&key(name), MINUTE).await.unwrap(), model.contains_key(&name));
            }
            Event::Get(name) => {
                assert_eq!(gateways[usize::from(turn)].value(&key(name)).await, model.get(&name).cloned());
            }
            Event::Outage { node, is_wiped } if away.is_none() => {
                make_good(&gateways).await;
                machines[node].stop();
                away = Some((node, is_wiped));
            }
            Event::Mute(node) if away.is_none() => {
                make_good(&gateways).await;
                let before = model.get(&0).cloned();
                machines[node].mute.store(1, Ordering::SeqCst);
                let written = store.set(&key(0), b"mute", MINUTE).await;
                machines[node].mute.store(0, Ordering::SeqCst);
                let now = gateways[usize::from(turn)].value(&key(0)).await;
                // Not known is not known, but it is one of the two, and stays it.
                assert!(now.as_deref() == Some(b"mute") || (written.is_err() && now == before), "{now:?} {written:?}");
                for gateway in &gateways {
                    gateway.until_all_are_up().await;
                }
                if let Some(settled) = gateways[usize::from(!turn)].value(&key(0)).await {
                    assert!(now.is_none() || written.is_err() || now.as_ref() == Some(&settled));
                    model.insert(0, settled);
                }
            }
            Event::Return => come_back(&mut away),
            Event::Outage { .. } | Event::Mute(_) => {}
        }
    }
    come_back(&mut away);
    for name in 0..4 {
        for gateway in &gateways {
            assert_eq!(gateway.value(&key(name)).await, model.get(&name).cloned(), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn one_node_may_always_be_away(events in proptest::collection::vec((any::<bool>(), event()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(as_if_there_were_one_copy(events));
    }
}

/// Gateways learn of a node's end and return at different times, so for a moment each has another leader.
#[tokio::test]
async fn no_acknowledged_write_is_lost_while_a_node_comes_and_goes() {
    for flapping in 0..2 {
        no_acknowledged_write_is_lost_while(flapping).await;
    }
}

async fn no_acknowledged_write_is_lost_while(node: usize) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 600;
    let machines = [Machine::start(), Machine::start()];
    let gateways: Vec<_> = (0..3).map(|_| Observer::of(&machines)).collect();
    let key = key(0);
    gateways[0].store.set(&key, b"0", MINUTE).await.unwrap();
    let is_over = AtomicBool::new(false);
    let flapping = async {
        let mut outages = 0;
        while !is_over.load(Ordering::SeqCst) {
            machines[node].stop();
            tokio::time::sleep(SOON).await;
            machines[node].come_back();
            tokio::time::sleep(SOON).await;
            outages += 1;
        }
        outages
    };
    let writer = async |gateway: &Observer| {
        let (mut made, mut unknown) = (0, 0);
        while made < ROUNDS {
            let entry = gateway.store.get(&key).await.unwrap().unwrap();
            let count: usize = str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let next = (count + 1).to_string();
            match gateway.store.replace(&key, next.as_bytes(), entry.cas, MINUTE).await {
                Ok(Replaced::Stored) => made += 1,
                Ok(Replaced::Conflict) => tokio::time::sleep(Duration::from_micros(200)).await,
                Ok(Replaced::Missing) => panic!("lost"),
                Err(_) => unknown += 1,
            }
        }
        unknown
    };
    let writing = async {
        let unknown = join_all((0..WRITERS).map(|n| writer(&gateways[n % gateways.len()]))).await;
        is_over.store(true, Ordering::SeqCst);
        unknown.into_iter().sum::<usize>()
    };
    let (outages, unknown) = tokio::join!(flapping, writing);
    assert!(outages > 3, "{outages}");
    let count: usize = String::from_utf8(gateways[0].value(&key).await.unwrap()).unwrap().parse().unwrap();
    let made = WRITERS * ROUNDS;
    assert!((made..=made + unknown).contains(&count), "{count}, {made} acknowledged, {unknown} not known");
}

#[tokio::test]
async fn what_ended_while_a_node_was_away_stays_ended() {
    let machines = [Machine::start(), Machine::start()];
    for node in &machines {
        let gateway = Observer::of(&machines);
        let key = key(9);
        gateway.store.set(&key, b"session", MINUTE).await.unwrap();
        node.stop();
        // The tombstone of a session lives shorter than the session would have.
        gateway.store.set(&key, b"end", Seconds::new(1)).await.unwrap();
        let kept = gateway.store.get(&key).await.unwrap().unwrap();
        assert!(kept.remaining > Seconds::new(50), "{:?}", kept.remaining);
        node.come_back();
        gateway.until_all_are_up().await;
        assert_eq!(gateway.value(&key).await.as_deref(), Some(b"end".as_slice()));
        assert_eq!(gateway.metric("store_repairs_total"), 1);
        // Once both nodes know of it, the end is kept for as short a time as was meant.
        gateway.store.set(&key, b"end", Seconds::new(1)).await.unwrap();
        eventually("the end is over", async || gateway.value(&key).await.is_none()).await;
    }
}

#[tokio::test]
async fn from_one_copy_to_two_and_back() {
    let machines = [Machine::start(), Machine::start()];
    let key = key(0);
    // With one copy the first in rank has it, so both orders are tried.
    for machine in &machines {
        let alone = Unreplicated(Reach(Arc::clone(machine)));
        alone.set(&key, b"one", MINUTE).await.unwrap();
        let both = Observer::of(&machines);
        assert_eq!(both.value(&key).await.as_deref(), Some(b"one".as_slice()));
        let entry = both.store.get(&key).await.unwrap().unwrap();
        assert_eq!(both.store.replace(&key, b"two", entry.cas, MINUTE).await.unwrap(), Replaced::Stored);
        for machine in &machines {
            let alone = Unreplicated(Reach(Arc::clone(machine)));
            assert_eq!(alone.get(&key).await.unwrap().unwrap().value, b"two");
            machine.wipe();
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
    let key = key(0);
    let unavailable = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::Unavailable(_)));
    assert!(unavailable(gateway.store.get(&key).await.map(|_| ())));
    assert!(unavailable(gateway.store.add(&key, b"x", MINUTE).await.map(|_| ())));
    assert!(unavailable(gateway.store.set(&key, b"x", MINUTE).await));
    assert!(unavailable(gateway.store.touch(&key, MINUTE).await.map(|_| ())));
    assert_eq!(gateway.metric("store_nodes_down"), 2, "those that were asked");
}

/// The sessions as a gateway has them that asks nodes which are down only once an hour whether they are back.
fn sessions(machines: &[Arc<Machine>]) -> Sessions<Replicated<Reach>> {
    let nodes = machines.iter().enumerate().map(|(n, machine)| (format!("n{n}:1"), Reach(Arc::clone(machine))));
    let metrics = Metrics::new();
    let settings = Settings {
        keyspace: Keyspace::new("test:").unwrap(),
        max_data_bytes: 65_536,
        store_timeout: Duration::from_secs(20),
        tombstone_ttl: MINUTE,
        session_limit: None,
    };
    Sessions::new(Replicated::new(nodes.collect(), 2, Duration::from_hours(1), &metrics), settings, metrics)
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

/// A node that a gateway takes for down may be back and have what the others don't.
#[tokio::test]
async fn a_version_that_was_seen_is_looked_for_on_nodes_that_are_believed_down() {
    let machines = [Machine::start(), Machine::start()];
    for (away, lost) in [(0, 1), (1, 0)] {
        let id: SessionId = fresh_id().parse().unwrap();
        let (gateway, other) = (sessions(&machines), sessions(&machines));
        gateway.create(id, new_session(), None).await.unwrap();
        // One gateway has seen this node fail and does not know that it is back, the other one has not.
        machines[away].stop();
        gateway.read(id, None, None).await.unwrap();
        machines[away].come_back();
        let change = Change { subject_key: "user".to_owned(), ..Change::default() };
        let unconditional = Precondition::None;
        machines[lost].stop();
        let changed = other.change(id, &change, &unconditional, None).await.unwrap().session.version();
        machines[lost].come_back();
        let version = async |want: Option<Version>| {
            gateway.read(id, None, want).await.map(|live| live.session.version()).map_err(|error| error.to_string())
        };
        // An older version, …
        assert_eq!(version(None).await, Ok(Version::FIRST));
        assert_eq!(version(Some(Version::FIRST)).await, Ok(Version::FIRST));
        assert_eq!(version(Some(changed)).await, Ok(changed));
        assert_eq!(version(None).await, Ok(changed), "it was repaired");
        // … and none at all, neither of the session nor of its subject.
        machines[lost].wipe();
        assert!(version(None).await.is_err());
        assert_eq!(version(Some(Version::FIRST)).await, Ok(changed));
        // What no node has is not found, but it is no failure.
        let newer = changed.next();
        assert_eq!(version(Some(newer)).await, Ok(changed));
        machines[away].stop();
        assert_eq!(version(Some(newer)).await, Ok(changed));
        machines[away].come_back();
    }
}

#[tokio::test]
async fn a_version_that_is_there_costs_no_second_look() {
    let machines = [Machine::start(), Machine::start()];
    let gateway = sessions(&machines);
    let id: SessionId = fresh_id().parse().unwrap();
    gateway.create(id, new_session(), None).await.unwrap();
    let reads = async |want: Option<Version>| {
        let before = machines[0].reads.load(Ordering::SeqCst);
        gateway.read(id, None, want).await.unwrap();
        machines[0].reads.load(Ordering::SeqCst) - before
    };
    assert_eq!(reads(None).await, 2, "the session and its subject");
    assert_eq!(reads(Some(Version::FIRST)).await, 2);
    assert_eq!(reads(Some(Version::FIRST.next())).await, 4);
}

#[tokio::test]
async fn the_api_takes_the_version_that_was_seen() {
    let gateway = Gateway::start("memory:");
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    for (version, status) in [("1", 200), ("2", 200), ("x", 400)] {
        let reply = gateway.session("GET", &id, &[("session-want-version", version)], "").await;
        assert_eq!(reply.status, status, "{version}");
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
        eventually("it is back", async || gateway.metric("session_gateway_store_nodes_down").await == 0).await;
        // A session that is used now has two copies again.
        for id in alive {
            gateway.get(id).await.expect(StatusCode::OK);
        }
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
        eventually("it is back", async || gateway.metric("session_gateway_store_nodes_down").await == 0).await;
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
    let client = |node: &Memcached| (node.node(), Client::new(&[node.node()], transport));
    let store = Replicated::new(vec![client(&one), client(&two)], 2, SOON, &Metrics::new());
    let key = key(0);
    store.set(&key, b"value", MINUTE).await.unwrap();
    for node in [&one, &two] {
        let copy = Unreplicated(client(node).1).get(&key).await.unwrap().unwrap();
        assert_eq!(copy.value, b"value");
        assert_eq!(node.command(&format!("get {}", key.as_str())).split(' ').next(), Some("VALUE"));
    }
    one.command(&format!("delete {}", key.as_str()));
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"value");
    assert!(Unreplicated(client(&one).1).get(&key).await.unwrap().is_some(), "an evicted copy is repaired");
}
