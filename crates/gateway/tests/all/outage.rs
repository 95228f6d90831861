//! When memcached is gone, silent, empty or full of nonsense.

use std::time::Duration;

use hyper::StatusCode;
use session::id::SessionId;
use session::time::Seconds;
use session_gateway::store::memcached::Transport;
use session_gateway::store::{Keyspace, Memcached as Client, Store as _};

use super::support::gateway::{Gateway, JSON, PATCH};
use super::support::memcached::Memcached;
use super::support::{alice, eventually, fresh_id};

/// For tests in which nothing is meant to be slow, on machines that are.
const PATIENT: &str = "?exchange_timeout=10s&connect_timeout=10s&queue_timeout=10s";

fn patient_client(memcached: &Memcached) -> Client {
    let patient = Duration::from_secs(10);
    let transport = Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() };
    Client::new(&memcached.node(), transport)
}

async fn everything_is_unavailable(gateway: &Gateway, id: &str) {
    for (method, target) in [("GET", "/v1/subjects/alice/sessions"), ("POST", "/v1/subjects/alice/revoke")] {
        let refused = gateway.call(method, target, &[], "").await.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.header("retry-after"), Some("1"), "{method}");
    }
    for (method, headers) in [
        ("GET", vec![]),
        ("HEAD", vec![]),
        ("PUT", vec![JSON]),
        ("PATCH", vec![PATCH]),
        ("DELETE", vec![]),
        ("DELETE", vec![("if-match", "\"1\"")]),
    ] {
        let refused = gateway.session(method, id, &headers, "{}").await.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.header("retry-after"), Some("1"), "{method}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("127.0.0.1"), "{refused:?}");
    }
}

#[tokio::test]
async fn memcached_dies_and_comes_back_empty() {
    let memcached = Memcached::start();
    let gateway = Gateway::start_with(&(memcached.url() + PATIENT), &["--store-timeout", "20s"]);
    let id = fresh_id();
    gateway.ready_turns(200).await;
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let port = memcached.stop();
    gateway.ready_turns(503).await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    everything_is_unavailable(&gateway, &id).await;

    let _memcached = Memcached::start_on(&port.to_string());
    gateway.ready_turns(200).await;
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    gateway.patch(&id, "{}").await.expect(StatusCode::NOT_FOUND);
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    // Once each, however many requests failed; the log arrives when it arrives.
    let times = |line: &str| gateway.log().matches(line).count();
    eventually("the log", async || times("the store has recovered") > 0).await;
    assert_eq!((times("the store is failing"), times("the store has recovered")), (1, 1));
}

#[tokio::test]
async fn memcached_falls_silent_and_goes_on() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let id = fresh_id();
    eventually("creation", async || matches!(gateway.put(&id, "{}").await.status, 201 | 409)).await;
    memcached.freeze();
    gateway.ready_turns(503).await;
    gateway.get(&id).await.expect(StatusCode::SERVICE_UNAVAILABLE);
    gateway.patch(&id, "{}").await.expect(StatusCode::SERVICE_UNAVAILABLE);
    memcached.thaw();
    eventually("recovery", async || gateway.get(&id).await.status == 200).await;
    gateway.ready_turns(200).await;
}

#[tokio::test]
async fn memcached_is_not_there_at_the_start() {
    let gateway = Gateway::start("memcached://127.0.0.1:9,no-such-host.invalid:11211");
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    gateway.ready_turns(503).await;
    everything_is_unavailable(&gateway, &fresh_id()).await;
}

#[tokio::test]
async fn one_node_of_two_is_down() {
    let (one, two) = (Memcached::start(), Memcached::start());
    let gateway = Gateway::start(&format!("memcached://{},{}", one.node(), two.node()));
    let mut ids = Vec::new();
    for _ in 0..40 {
        let id = fresh_id();
        eventually("creation", async || matches!(gateway.put(&id, "{}").await.status, 201 | 409)).await;
        ids.push(id);
    }
    two.stop();
    let (mut served, mut refused) = (0, 0);
    for id in &ids {
        match gateway.get(id).await.status {
            200 => served += 1,
            503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
    // Taken out of service, it could not serve the others either.
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    one.stop();
    gateway.ready_turns(503).await;
}

#[tokio::test]
async fn a_value_that_no_gateway_wrote() {
    let memcached = Memcached::start();
    let gateway = Gateway::start_with(&(memcached.url() + PATIENT), &["--key-prefix", "p:", "--store-timeout", "20s"]);
    let client = patient_client(&memcached);
    let id: SessionId = fresh_id().parse().unwrap();
    let key = Keyspace::new("p:").unwrap().session(id);
    for nonsense in ["nonsense", "", "S1{}\n{}", "S9{}", "T1"] {
        client.set(&key, nonsense.as_bytes(), Seconds::new(60)).await.unwrap();
        let id = id.to_string();
        for (method, headers) in [("GET", vec![]), ("PUT", vec![JSON]), ("PATCH", vec![PATCH])] {
            gateway.session(method, &id, &headers, "{}").await.expect(StatusCode::INTERNAL_SERVER_ERROR);
        }
        // Whether that token still opens it, or whether that is its version, can't be known.
        for conditions in [&[("session-seen-version", "1")][..], &[("if-match", "\"1\"")]] {
            gateway.session("DELETE", &id, conditions, "").await.expect(StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(client.get(&key).await.unwrap().unwrap().value, nonsense.as_bytes());
        }
        gateway.session("DELETE", &id, &[], "").await.expect(StatusCode::NO_CONTENT);
        gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_subject_record_that_no_gateway_wrote() {
    let memcached = Memcached::start();
    let gateway = Gateway::start_with(&(memcached.url() + PATIENT), &["--store-timeout", "20s"]);
    let client = patient_client(&memcached);
    let key = Keyspace::new("sm:").unwrap().subject(&alice());
    for nonsense in ["nonsense", "", "U1{}\n", "U9{\"e\":1,\"u\":1}\n", "T1{\"e\":1}"] {
        let id = gateway.logged_in("alice").await;
        client.set(&key, nonsense.as_bytes(), Seconds::new(60)).await.unwrap();
        gateway.get(&id).await.expect(StatusCode::INTERNAL_SERVER_ERROR);
        gateway.put(&fresh_id(), r#"{"user":"alice"}"#).await.expect(StatusCode::INTERNAL_SERVER_ERROR);
        let list = gateway.call("GET", "/v1/subjects/alice/sessions", &[], "").await;
        list.expect(StatusCode::INTERNAL_SERVER_ERROR);
        // To end everything works whatever is there.
        gateway.revoke("alice", "").await;
        gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    }
    let (id, damaged) = (gateway.logged_in("alice").await, gateway.logged_in("alice").await);
    let session = Keyspace::new("sm:").unwrap().session(damaged.parse().unwrap());
    client.set(&session, b"nonsense", Seconds::new(60)).await.unwrap();
    assert_eq!(gateway.listed("alice").await, [id.as_str()]);
    gateway.revoke("alice", &format!("?except={damaged}")).await;
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    assert!(!gateway.log().contains("alice"), "the log names a subject");
}

#[tokio::test]
async fn prefixes_keep_installations_apart() {
    let memcached = Memcached::start();
    let one = Gateway::start_with(&(memcached.url() + PATIENT), &["--store-timeout", "20s"]);
    let two = Gateway::start_with(&(memcached.url() + PATIENT), &["--key-prefix", "other:", "--store-timeout", "20s"]);
    let id = fresh_id();
    one.put(&id, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
    two.get(&id).await.expect(StatusCode::NOT_FOUND);
    two.put(&id, r#"{"n":2}"#).await.expect(StatusCode::CREATED);
    one.get(&id).await.expect(StatusCode::OK);
    let client = patient_client(&memcached);
    let key = Keyspace::new("sm:").unwrap().session(id.parse().unwrap());
    assert_eq!(key.as_str(), format!("sm:s:{id}"));
    let stored = client.get(&key).await.unwrap().unwrap().value;
    assert!(stored.starts_with(b"S1{\"v\":1,\"m\":1,") && stored.ends_with(b"}\n{\"n\":1}"), "{stored:?}");
}
