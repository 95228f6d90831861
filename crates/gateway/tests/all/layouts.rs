//! The nodes and the number of copies change while clients go on: nothing is lost, and nothing comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use proptest::prelude::*;
use serde_json::json;
use session::id::SessionId;
use session::time::Seconds;
use session_gateway::store::moving::{Landed, Lead, MovedKeys, Moving};
use session_gateway::store::{Cas, Key, Keyspace, Memory, Replaced, ScanStore, Store, StoreEntry, StoreError};

use super::support::gateway::{Gateway, command};
use super::support::memcached::Memcached;
use super::support::{eventually, fresh_id};

const MINUTE: Seconds = Seconds::new(60);

/// A store that several gateways share.
#[derive(Clone)]
struct Shared(Arc<Memory>);

impl Store for Shared {
    async fn get(&self, key: &Key) -> Result<Option<StoreEntry>, StoreError> {
        self.0.get(key).await
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

    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

impl ScanStore for Shared {
    async fn keys(&self, keyspace: &Keyspace) -> Result<Vec<Key>, StoreError> {
        self.0.keys(keyspace).await
    }
}

/// A gateway in one of the steps of a change, and the keyspace that it uses.
enum Gate {
    Only(Landed<Shared>, Keyspace),
    Changing(Moving<Landed<Shared>, Shared>, Keyspace),
}

/// Old gateways, those in the first step, in the second, and new ones, in this order.
fn gates() -> [Gate; 4] {
    let shared = || Shared(Arc::new(Memory::new(1024 * 1024)));
    let (old, new) = (shared(), shared());
    let (one, two) = (Keyspace::new("t:").unwrap(), Keyspace::new("t:").unwrap().layout(2));
    let changing = |lead| {
        let keys = MovedKeys { old: one.clone(), new: two.clone() };
        Moving::new(Landed(old.clone()), new.clone(), lead, keys)
    };
    [
        Gate::Only(Landed(old.clone()), one.clone()),
        Gate::Changing(changing(Lead::Old), one.clone()),
        Gate::Changing(changing(Lead::New), two.clone()),
        Gate::Only(Landed(new.clone()), two.clone()),
    ]
}

fn name(number: u8) -> SessionId {
    SessionId::from_bytes([number; SessionId::BYTES])
}

#[derive(Clone, Debug)]
enum Action {
    Get,
    Add(u8),
    Set(u8),
    Replace(u8),
    Touch,
    MoveAll,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Get),
        any::<u8>().prop_map(Action::Add),
        any::<u8>().prop_map(Action::Set),
        any::<u8>().prop_map(Action::Replace),
        Just(Action::Touch),
        Just(Action::MoveAll),
    ]
}

async fn act(store: &impl Store, key: &Key, action: &Action, model: &mut BTreeMap<u8, u8>, name: u8) {
    let there = model.get(&name).copied();
    match action {
        Action::Get | Action::MoveAll => {
            let found = store.get(key).await.unwrap().map(|entry| entry.value);
            assert_eq!(found, there.map(|value| vec![value]));
        }
        Action::Add(value) => {
            assert_eq!(store.add(key, &[*value], MINUTE).await.unwrap(), there.is_none());
            model.entry(name).or_insert(*value);
        }
        Action::Set(value) => {
            store.set(key, &[*value], MINUTE).await.unwrap();
            model.insert(name, *value);
        }
        Action::Replace(value) => {
            let Some(entry) = store.get(key).await.unwrap() else { return assert_eq!(there, None) };
            assert_eq!(store.replace(key, &[*value], entry.cas, MINUTE).await.unwrap(), Replaced::Stored);
            let again = store.replace(key, &[0], entry.cas, MINUTE).await.unwrap();
            assert_eq!(again, Replaced::Conflict);
            model.insert(name, *value);
        }
        Action::Touch => assert_eq!(store.touch(key, MINUTE).await.unwrap(), there.is_some()),
    }
}

proptest! {
    /// Whatever gateways of two neighbouring steps do, it is as if there were one store.
    #[test]
    fn a_change_of_layout_is_as_if_there_were_one_store(
        actions in proptest::collection::vec((0..2_usize, 0..3_u8, action()), 1..60),
        changes in proptest::collection::vec(0..60_usize, 2),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gates = gates();
            let (mut model, mut step) = (BTreeMap::new(), 0);
            for (number, (which, session, action)) in actions.iter().enumerate() {
                let due = changes.iter().filter(|change| **change <= number).count();
                if due == 2 && step < 2 && let Gate::Changing(change, _) = &gates[2] {
                    change.move_all().await.unwrap();
                }
                step = due;
                match &gates[step + which] {
                    Gate::Only(store, keys) => {
                        act(store, &keys.session(name(*session)), action, &mut model, *session).await;
                    }
                    Gate::Changing(store, keys) => {
                        if matches!(action, Action::MoveAll) && step + which == 2 {
                            store.move_all().await.unwrap();
                        }
                        act(store, &keys.session(name(*session)), action, &mut model, *session).await;
                    }
                }
                if due == 2 && let Gate::Changing(change, _) = &gates[2] {
                    // From here on nothing is added to the old layout.
                    assert_eq!(change.move_all().await.unwrap(), 0);
                }
            }
        });
    }
}

fn url(nodes: &[&Memcached], options: &str) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| node.node()).collect();
    format!("memcached://{}?{options}", nodes.join(","))
}

/// Sessions of all kinds, and what they should be.
struct Sessions {
    changed: Vec<String>,
    ended: Vec<String>,
    revoked: Vec<String>,
    round: u32,
}

impl Sessions {
    async fn new(gateway: &Gateway) -> Self {
        let mut sessions = Self { changed: Vec::new(), ended: Vec::new(), revoked: Vec::new(), round: 0 };
        for _ in 0..8 {
            let id = fresh_id();
            gateway.put(&id, r#"{"n":0}"#).await.expect(StatusCode::CREATED);
            sessions.changed.push(id);
        }
        sessions
    }

    /// Some sessions are changed, some end.
    async fn go_on(&mut self, gateway: &Gateway) {
        self.round += 1;
        for (number, id) in self.changed.iter().enumerate() {
            assert_eq!(gateway.get(id).await.expect(StatusCode::OK).json()["n"], json!(self.last(number)));
            if number.is_multiple_of(2) {
                gateway.patch(id, &json!({"n": self.round}).to_string()).await.expect(StatusCode::OK);
            }
        }
        let ended = fresh_id();
        gateway.put(&ended, "{}").await.expect(StatusCode::CREATED);
        gateway.session("DELETE", &ended, &[], "").await.expect(StatusCode::NO_CONTENT);
        self.ended.push(ended);
        let subject = format!("user-{}", self.round);
        self.revoked.push(gateway.logged_in(&subject).await);
        gateway.revoke(&subject, "").await;
        self.look(gateway).await;
    }

    /// The second half is left alone.
    fn last(&self, number: usize) -> u32 {
        if number.is_multiple_of(2) { self.round - 1 } else { 0 }
    }

    async fn look(&self, gateway: &Gateway) {
        for id in self.ended.iter().chain(&self.revoked) {
            gateway.get(id).await.expect(StatusCode::NOT_FOUND);
        }
    }
}

/// All gateways through the three steps, one after the other.
async fn change(gateways: &mut [Gateway; 2], old: &str, new: &str, sessions: &mut Sessions) {
    let flags = ["--tombstone-ttl", "1s"];
    let steps = [(old, vec!["--next-store", new]), (new, vec!["--previous-store", old]), (new, vec![])];
    for (number, (store, more)) in steps.iter().enumerate() {
        for which in 0..2 {
            if number == 2 {
                for gateway in &*gateways {
                    eventually("all is moved", async || {
                        gateway.metric("session_gateway_store_keys_to_move").await == 0
                    })
                    .await;
                }
            }
            gateways[which] = Gateway::start_with(store, &[&flags, more.as_slice()].concat());
            gateways[which].ready_turns(200).await;
            sessions.go_on(&gateways[0]).await;
            sessions.go_on(&gateways[1]).await;
        }
    }
}

/// Nodes that are removed and added again, in turn with one copy and with two: what they have kept must not speak.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_copies_change_while_clients_go_on() {
    let (one, two, three) = (Memcached::start(), Memcached::start(), Memcached::start());
    let layouts = [
        url(&[&one, &two], "layout=1"),
        url(&[&one, &two, &three], "layout=2"),
        url(&[&one, &three], "layout=3&replicas=2"),
        url(&[&two], "layout=4"),
        url(&[&one, &two, &three], "layout=5&replicas=2"),
    ];
    let start = |store: &str| Gateway::start_with(store, &["--tombstone-ttl", "1s"]);
    let mut gateways = [start(&layouts[0]), start(&layouts[0])];
    gateways[0].ready_turns(200).await;
    let mut sessions = Sessions::new(&gateways[0]).await;
    for (old, new) in layouts.iter().zip(layouts.iter().skip(1)) {
        change(&mut gateways, old, new, &mut sessions).await;
    }
    assert_eq!(sessions.ended.len(), 4 * 3 * 2 * 2);
}

#[tokio::test]
async fn a_gateway_out_of_turn_is_refused() {
    let (one, two) = (Memcached::start(), Memcached::start());
    let (old, new) = (url(&[&one], "layout=1"), url(&[&one, &two], "layout=2"));
    let first = Gateway::start(&old);
    first.ready_turns(200).await;
    let refused = |flags: &[&str]| {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(flags);
        let output = command.env("SESSION_GATEWAY_TOKEN", "test-token-0123456789").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let elsewhere = url(&[&one, &two], "layout=1");
    for (flags, said) in [
        (vec!["--store", &elsewhere], "--store is not what the nodes have"),
        (vec!["--store", &new], "--store is not what the nodes have"),
        (vec!["--store", &new, "--previous-store", &old], "--next-store first"),
        (vec!["--store", &old, "--next-store", &elsewhere], "layout=2"),
        (vec!["--store", "memory:", "--next-store", &new], "from memcached to memcached"),
        (vec!["--store", &old, "--next-store", &new, "--previous-store", &new], "cannot be used with"),
    ] {
        let text = refused(&flags);
        assert!(text.contains(said), "{flags:?}: {text}");
    }
}
