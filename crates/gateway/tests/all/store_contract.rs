//! Every store fulfils the contract of `Store`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use session::id::SessionId;
use session::time::Seconds;
use session_gateway::environment::Environment;
use session_gateway::metrics::Metrics;
use session_gateway::store::memcached::Transport;
use session_gateway::store::moving::{Lead, MovedKeys, Moving};
use session_gateway::store::{
    Key, Keyspace, Memcached, Memory, Pace, Replaced, Replicated, ScanStore, Sharded, Store, StoreError,
};

use super::support::memcached::Memcached as Server;
use super::support::{PATIENCE, eventually, fresh_id};

const MINUTE: Seconds = Seconds::new(60);

fn fresh_key() -> Key {
    let id: SessionId = fresh_id().parse().unwrap();
    Keyspace::new("test:").unwrap().session(id)
}

/// Patient enough for a busy machine.
fn memcached(node: &str) -> Memcached {
    let patient = Duration::from_secs(10);
    Memcached::new(node, Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() })
}

fn sharded(nodes: &[String]) -> Sharded<Memcached> {
    Sharded::new(nodes.iter().map(|node| (node.clone(), memcached(node))).collect())
}

fn replicated(nodes: &[String]) -> Replicated<Memcached> {
    // With its second node away, a first one begins alone soon.
    let pace = Pace { patience: Duration::from_millis(100), ..Pace::DEFAULT };
    let alone = |node: &String| (node.clone(), memcached(node));
    let keyspace = Keyspace::new("test:").unwrap();
    let nodes = nodes.iter().map(alone).collect();
    Replicated::new(nodes, &keyspace, pace, &Environment::machine(), &Metrics::new())
}

async fn contract(store: impl Store) {
    let store = Arc::new(store);
    store.ping().await.unwrap();
    add_once(&*store).await;
    compare_and_swap(&*store).await;
    set_and_touch(&*store).await;
    expiry(&*store).await;
    long_lives(&*store).await;
    any_bytes(&*store).await;
    races(&store).await;
}

async fn add_once(store: &impl Store) {
    let key = fresh_key();
    assert!(store.get(&key).await.unwrap().is_none());
    assert!(store.add(&key, b"one", MINUTE).await.unwrap());
    assert!(!store.add(&key, b"two", MINUTE).await.unwrap());
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!(entry.value, b"one");
    assert!((58..=61).contains(&entry.remaining.get()), "{:?}", entry.remaining);
}

async fn compare_and_swap(store: &impl Store) {
    let key = fresh_key();
    store.add(&key, b"one", MINUTE).await.unwrap();
    let first = store.get(&key).await.unwrap().unwrap().cas;
    assert_eq!(store.get(&key).await.unwrap().unwrap().cas, first, "a read is not a write");
    assert_eq!(store.replace(&key, b"two", first, MINUTE).await.unwrap(), Replaced::Stored);
    assert_eq!(store.replace(&key, b"three", first, MINUTE).await.unwrap(), Replaced::Conflict);
    let second = store.get(&key).await.unwrap().unwrap();
    assert_eq!(second.value, b"two");
    store.set(&key, b"two", MINUTE).await.unwrap();
    let replaced = store.replace(&key, b"three", second.cas, MINUTE).await.unwrap();
    assert_eq!(replaced, Replaced::Conflict, "the same bytes written again are another value");
    let missing = fresh_key();
    assert_eq!(store.replace(&missing, b"x", second.cas, MINUTE).await.unwrap(), Replaced::Missing);
    assert!(store.get(&missing).await.unwrap().is_none());
}

async fn set_and_touch(store: &impl Store) {
    let key = fresh_key();
    assert!(!store.touch(&key, MINUTE).await.unwrap());
    store.set(&key, b"one", MINUTE).await.unwrap();
    store.set(&key, b"two", MINUTE).await.unwrap();
    assert!(store.touch(&key, Seconds::new(500)).await.unwrap());
    let entry = store.get(&key).await.unwrap().unwrap();
    assert_eq!(entry.value, b"two");
    assert!((498..=501).contains(&entry.remaining.get()), "{:?}", entry.remaining);
}

async fn expiry(store: &impl Store) {
    let (key, cut) = (fresh_key(), fresh_key());
    store.add(&key, b"one", Seconds::new(1)).await.unwrap();
    store.add(&cut, b"one", MINUTE).await.unwrap();
    store.touch(&cut, Seconds::new(1)).await.unwrap();
    let cas = store.get(&cut).await.unwrap().map(|entry| entry.cas);
    for key in [&key, &cut] {
        eventually("expiry", async || store.get(key).await.unwrap().is_none()).await;
    }
    if let Some(cas) = cas {
        assert_eq!(store.replace(&cut, b"two", cas, MINUTE).await.unwrap(), Replaced::Missing);
    }
    assert!(!store.touch(&cut, MINUTE).await.unwrap());
    assert!(store.add(&key, b"two", MINUTE).await.unwrap());
}

/// memcached takes a number over 30 days as a date.
async fn long_lives(store: &impl Store) {
    for days in [29, 30, 31, 40, 400] {
        let key = fresh_key();
        let ttl = Seconds::new(days * 86_400);
        let near = |entry: session_gateway::store::StoreEntry| ttl.get().abs_diff(entry.remaining.get()) <= 2;
        assert!(store.add(&key, b"one", ttl).await.unwrap());
        let entry = store.get(&key).await.unwrap().unwrap();
        let cas = entry.cas;
        assert!(near(entry), "add, {days} days");
        assert_eq!(store.replace(&key, b"two", cas, ttl).await.unwrap(), Replaced::Stored);
        assert!(near(store.get(&key).await.unwrap().unwrap()), "replace, {days} days");
        assert!(store.touch(&key, MINUTE).await.unwrap());
        assert!(store.touch(&key, ttl).await.unwrap());
        assert!(near(store.get(&key).await.unwrap().unwrap()), "touch, {days} days");
    }
}

async fn any_bytes(store: &impl Store) {
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for value in [b"\r\nEN\r\n\0".as_slice(), &all] {
        let key = fresh_key();
        store.set(&key, value, MINUTE).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
    }
}

async fn races(store: &Arc<impl Store>) {
    const WRITERS: usize = 32;
    let key = fresh_key();
    let adds = (0..WRITERS).map(|writer| {
        let (store, key) = (Arc::clone(store), key.clone());
        tokio::spawn(async move { store.add(&key, &[u8::try_from(writer).unwrap()], MINUTE).await.unwrap() })
    });
    let mut added = 0;
    for add in adds.collect::<Vec<_>>() {
        added += usize::from(add.await.unwrap());
    }
    assert_eq!(added, 1);

    store.set(&key, b"0", MINUTE).await.unwrap();
    let counts = (0..WRITERS).map(|_| {
        let (store, key) = (Arc::clone(store), key.clone());
        tokio::spawn(async move {
            loop {
                let entry = store.get(&key).await.unwrap().unwrap();
                let count: usize = str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let next = (count + 1).to_string();
                if store.replace(&key, next.as_bytes(), entry.cas, MINUTE).await.unwrap() == Replaced::Stored {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    for count in counts.collect::<Vec<_>>() {
        count.await.unwrap();
    }
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, WRITERS.to_string().as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    contract(Memory::new(64 * 1024 * 1024)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_keeps_the_contract() {
    let server = Server::start();
    contract(memcached(&server.node())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_of_memcached_keep_the_contract() {
    let servers = [Server::start(), Server::start(), Server::start()];
    let nodes = servers.each_ref().map(Server::node);
    contract(sharded(&nodes)).await;
    // Each node alone knows only its share, so keys really are spread.
    let (all, mut found) = (sharded(&nodes), [0; 3]);
    for _ in 0..100 {
        let key = fresh_key();
        all.set(&key, b"x", MINUTE).await.unwrap();
        for (node, found) in nodes.iter().zip(&mut found) {
            *found += usize::from(memcached(node).get(&key).await.unwrap().is_some());
        }
    }
    assert_eq!(found.iter().sum::<usize>(), 100, "{found:?}");
    assert!(found.iter().all(|share| *share > 10), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_on_three_nodes_of_memcached_keep_the_contract() {
    let servers = [Server::start(), Server::start(), Server::start()];
    contract(replicated(&servers.each_ref().map(Server::node))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_with_a_node_away_keep_the_contract() {
    let (here, away) = (Server::start(), Server::start());
    let nodes = [here.node(), away.node()];
    away.stop();
    let store = replicated(&nodes);
    eventually("one node alone", async || store.get(&fresh_key()).await.is_ok()).await;
    contract(store).await;
}

/// What a scanning store adds to the contract.
async fn lists_what_it_has(store: impl ScanStore) {
    let store = Arc::new(store);
    // Characters that a list has to encode.
    let keyspace = Keyspace::new("50%=a/b?c&d+").unwrap();
    let key = || keyspace.session(fresh_id().parse().unwrap());
    let ours: Vec<Key> = (0..3_000).map(|_| key()).collect();
    let expired = key();
    store.set(&expired, b"x", Seconds::new(1)).await.unwrap();
    for key in &ours {
        store.set(key, &[b'x'; 100], MINUTE).await.unwrap();
        store.set(&fresh_key(), b"of another keyspace", MINUTE).await.unwrap();
    }
    eventually("expiry", async || store.get(&expired).await.unwrap().is_none()).await;
    let expected: BTreeSet<&str> = ours.iter().map(Key::as_str).collect();
    // A memcached makes one list at a time: others wait.
    let lists = (0..3).map(|_| store.keys(&keyspace));
    for listed in try_join_all(lists).await.unwrap() {
        assert_eq!(listed.len(), ours.len());
        assert_eq!(listed.iter().map(Key::as_str).collect::<BTreeSet<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_steps_of_a_change_of_layout_keep_the_contract() {
    let memory = || Memory::new(64 * 1024 * 1024);
    let (one, two) = (Keyspace::new("test:").unwrap(), Keyspace::new("test:").unwrap().layout(2));
    // The tests' keys are those of the layout that leads.
    let keys = MovedKeys { old: one.clone(), new: two.clone() };
    contract(Moving::new(memory(), memory(), Lead::Old, keys)).await;
    let keys = MovedKeys { old: two, new: one };
    contract(Moving::new(memory(), memory(), Lead::New, keys)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_lists_what_it_has() {
    lists_what_it_has(Memory::new(64 * 1024 * 1024)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_lists_what_it_has() {
    let servers = [Server::start(), Server::start()];
    lists_what_it_has(sharded(&servers.each_ref().map(Server::node))).await;
}

#[tokio::test]
async fn a_memcached_that_lists_no_keys_is_an_error_and_not_an_empty_list() {
    let server = Server::start_with("-1", &["-o", "no_lru_crawler"]);
    let store = memcached(&server.node());
    let keyspace = Keyspace::new("test:").unwrap();
    let listed = tokio::time::timeout(PATIENCE, store.keys(&keyspace)).await.unwrap();
    assert!(matches!(listed, Err(StoreError::Unavailable(_))), "{listed:?}");
    let node = server.node();
    server.stop();
    let listed = memcached(&node).keys(&keyspace).await;
    assert!(matches!(listed, Err(StoreError::Unavailable(_))), "{listed:?}");
}

#[tokio::test]
async fn memory_stays_within_its_bound_and_keeps_the_latest() {
    let store = Memory::new(100_000);
    let keys: Vec<Key> = (0..1000).map(|_| fresh_key()).collect();
    for key in &keys {
        assert!(store.add(key, &[0; 1000], MINUTE).await.unwrap());
        assert!(store.get(key).await.unwrap().is_some(), "a new entry is never turned away");
    }
    let kept = async || {
        let mut kept = 0;
        for key in &keys {
            kept += usize::from(store.get(key).await.unwrap().is_some());
        }
        kept
    };
    eventually("eviction", async || kept().await <= 100).await;
    assert!(kept().await > 0);
}

#[tokio::test]
async fn memcached_says_what_it_refuses() {
    let server = Server::start();
    let store = memcached(&server.node());
    let too_large = vec![b'x'; 2 * 1024 * 1024];
    let refused = store.set(&fresh_key(), &too_large, MINUTE).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let no_time = store.add(&fresh_key(), b"x", Seconds::ZERO).await;
    assert!(matches!(no_time, Err(StoreError::Refused(_))), "{no_time:?}");
    assert!(store.ping().await.is_ok());
}

#[tokio::test]
async fn a_dead_node_is_unavailable_and_a_silent_one_leaves_a_write_unknown() {
    let server = Server::start();
    let brief = Duration::from_millis(300);
    let transport = Transport { connect_timeout: brief, exchange_timeout: brief, ..Transport::default() };
    let store = Memcached::new(&server.node(), transport);
    let key = fresh_key();
    eventually("a first write", async || store.set(&key, b"one", MINUTE).await.is_ok()).await;
    server.freeze();
    let silent = store.set(&key, b"two", MINUTE).await;
    assert!(matches!(silent, Err(StoreError::Unknown(_))), "{silent:?}");
    assert!(store.get(&key).await.is_err());
    assert!(store.ping().await.is_err());
    server.thaw();
    // What the silent node had been sent, it does when it comes back.
    eventually("the late write", async || matches!(store.get(&key).await, Ok(Some(entry)) if entry.value == b"two"))
        .await;
    server.stop();
    // A write on a connection that just broke is unknown; one that no server takes is not.
    eventually("the end is noticed", async || {
        matches!(store.set(&key, b"three", MINUTE).await, Err(StoreError::Unavailable(_)))
    })
    .await;
    let nowhere = Memcached::new("no-such-host.invalid:11211", transport);
    assert!(matches!(nowhere.get(&key).await, Err(StoreError::Unavailable(_))));
}
