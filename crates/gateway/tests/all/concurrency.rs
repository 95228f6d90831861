//! Writers that race lose nothing.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::support::fresh_id;
use super::support::gateway::{Gateway, JSON};
use super::support::memcached::Memcached;

const WRITERS: u32 = 200;
/// Long enough for a debug build on a busy machine: what is counted here is losses, not time.
const PATIENT: [&str; 2] = ["--store-timeout", "60s"];
const PATIENT_STORE: &str = "?exchange_timeout=30s&connect_timeout=30s&queue_timeout=30s";

/// Every writer sets its own key; the gateways take turns.
async fn all_patches_arrive(gateways: Vec<Gateway>) {
    let gateways: Vec<_> = gateways.into_iter().map(Arc::new).collect();
    let id = fresh_id();
    gateways[0].put(&id, "{}").await.expect(StatusCode::CREATED);
    let mut writers = JoinSet::new();
    for (writer, gateway) in (0..WRITERS).zip(gateways.iter().cycle()) {
        let (gateway, id) = (Arc::clone(gateway), id.clone());
        writers.spawn(async move {
            let patch = json!({ writer.to_string(): writer }).to_string();
            let patched = gateway.patch(&id, &patch).await.expect(StatusCode::OK);
            assert_eq!(patched.json()[writer.to_string()], writer);
            patched.header("etag").map(str::to_owned)
        });
    }
    let mut versions: Vec<_> = writers.join_all().await;
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), WRITERS as usize, "each change has a version of its own");
    for gateway in &gateways {
        let session = gateway.get(&id).await.expect(StatusCode::OK);
        let expected: serde_json::Map<_, _> = (0..WRITERS).map(|writer| (writer.to_string(), json!(writer))).collect();
        assert_eq!(session.json(), json!(expected));
        assert_eq!(session.header("etag"), Some(format!("\"{}\"", WRITERS + 1).as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    all_patches_arrive(vec![Gateway::start_with("memory:", &PATIENT)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_two_gateways_on_memcached() {
    let memcached = Memcached::start();
    let store = memcached.url() + PATIENT_STORE;
    all_patches_arrive(vec![Gateway::start_with(&store, &PATIENT), Gateway::start_with(&store, &PATIENT)]).await;
}

/// Two tabs write first at the same time, many times over: one session, both writes in it.
#[tokio::test(flavor = "multi_thread")]
async fn racing_first_writes_land_in_one_session() {
    let memcached = Memcached::start();
    let store = memcached.url() + PATIENT_STORE;
    let gateways = [Gateway::start_with(&store, &PATIENT), Gateway::start_with(&store, &PATIENT)];
    for _ in 0..20 {
        let id = fresh_id();
        let merge = [JSON, ("session-merge-within", "60")];
        let (one, two) = tokio::join!(
            gateways[0].session("PUT", &id, &merge, r#"{"one":1}"#),
            gateways[1].session("PUT", &id, &merge, r#"{"two":2}"#),
        );
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(gateways[0].get(&id).await.json(), json!({"one": 1, "two": 2}));
    }
}

/// Patches that race with the end never bring the session back.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_wins() {
    let memcached = Memcached::start();
    let store = memcached.url() + PATIENT_STORE;
    let gateway = Arc::new(Gateway::start_with(&store, &PATIENT));
    for _ in 0..10 {
        let id = fresh_id();
        gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
        let mut writers = JoinSet::new();
        for writer in 0..10 {
            let (gateway, id) = (Arc::clone(&gateway), id.clone());
            writers.spawn(async move { gateway.patch(&id, &json!({ "n": writer }).to_string()).await.status });
        }
        gateway.session("DELETE", &id, &[], "").await.expect(StatusCode::NO_CONTENT);
        for status in writers.join_all().await {
            assert!(status == 200 || status == 404, "{status}");
        }
        gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
        gateway.put(&id, "{}").await.expect(StatusCode::CONFLICT);
    }
}
