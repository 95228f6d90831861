//! How many sessions a subject may have.

mod oldest_ends {
    use super::{ends_the_oldest, no_other_session_ends, over_both_stores};
    over_both_stores!(["--max-sessions-per-subject", "3"], ends_the_oldest, no_other_session_ends);
}
mod refused {
    use super::{over_both_stores, refuses};
    over_both_stores!(["--max-sessions-per-subject", "3", "--on-max-sessions", "refuse"], refuses);
}

use std::sync::Arc;

use hyper::StatusCode;
use tokio::task::JoinSet;

use super::support::gateway::{Gateway, PATCH};
use super::support::memcached::Memcached;
use super::support::{fresh_id, over_both_stores};

async fn ends_the_oldest(gateway: &Gateway) {
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(gateway.logged_in("alice").await);
        for (age, id) in ids.iter().rev().enumerate() {
            let status = if age < 3 { StatusCode::OK } else { StatusCode::NOT_FOUND };
            gateway.get(id).await.expect(status);
        }
        assert_eq!(gateway.listed("alice").await, ids[ids.len().saturating_sub(3)..]);
    }
    // A session that was left makes room: no other has to go.
    gateway.patch(&ids[4], r#"{"user":null}"#).await.expect(StatusCode::OK);
    let seventh = gateway.logged_in("alice").await;
    gateway.get(&ids[3]).await.expect(StatusCode::OK);
    assert_eq!(gateway.listed("alice").await, [&*ids[3], &*ids[5], &*seventh]);
    gateway.revoke("alice", &format!("?except={}", ids[3])).await;
    gateway.get(&ids[3]).await.expect(StatusCode::OK);
    for _ in 0..2 {
        gateway.logged_in("alice").await;
    }
    gateway.get(&ids[3]).await.expect(StatusCode::OK);
    gateway.logged_in("alice").await;
    gateway.get(&ids[3]).await.expect(StatusCode::NOT_FOUND);
}

async fn no_other_session_ends(gateway: &Gateway) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(gateway.logged_in("alice").await);
    }
    // Neither a creation under an id that is taken ends a session, nor a change that may not be.
    gateway.put(&ids[2], r#"{"user":"alice"}"#).await.expect(StatusCode::CONFLICT);
    let bob = gateway.logged_in("bob").await;
    gateway.put(&bob, r#"{"user":"alice"}"#).await.expect(StatusCode::CONFLICT);
    let stale = [PATCH, ("if-match", "\"7\"")];
    gateway.session("PATCH", &bob, &stale, r#"{"user":"alice"}"#).await.expect(StatusCode::PRECONDITION_FAILED);
    let large = format!(r#"{{"user":"alice","x":"{}"}}"#, "y".repeat(70_000));
    gateway.patch(&bob, &large).await.expect(StatusCode::PAYLOAD_TOO_LARGE);
    for id in ids.iter().chain([&bob]) {
        gateway.get(id).await.expect(StatusCode::OK);
    }
    // The first of alice's sessions becomes bob's, and then the list has lost its first place.
    gateway.patch(&ids[0], r#"{"user":"bob"}"#).await.expect(StatusCode::OK);
    gateway.logged_in("alice").await;
    for id in ids.iter().chain([&bob]) {
        gateway.get(id).await.expect(StatusCode::OK);
    }
}

async fn refuses(gateway: &Gateway) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(gateway.logged_in("alice").await);
    }
    let fourth = fresh_id();
    let refused = gateway.put(&fourth, r#"{"user":"alice"}"#).await.expect(StatusCode::FORBIDDEN);
    assert_eq!(refused.json()["title"], "Too many sessions");
    gateway.get(&fourth).await.expect(StatusCode::NOT_FOUND);
    gateway.put(&fourth, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
    gateway.patch(&fourth, r#"{"user":"alice","n":2}"#).await.expect(StatusCode::FORBIDDEN);
    let unchanged = gateway.get(&fourth).await.expect(StatusCode::OK);
    assert_eq!((unchanged.header("etag"), &unchanged.body[..]), (Some("\"1\""), &br#"{"n":1}"#[..]));
    for id in &ids {
        gateway.patch(id, r#"{"n":1}"#).await.expect(StatusCode::OK);
    }
    // Each way to leave makes room at once.
    gateway.session("DELETE", &ids[0], &[], "").await.expect(StatusCode::NO_CONTENT);
    gateway.patch(&fourth, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    gateway.put(&fresh_id(), r#"{"user":"alice"}"#).await.expect(StatusCode::FORBIDDEN);
    gateway.patch(&ids[1], r#"{"user":"bob"}"#).await.expect(StatusCode::OK);
    gateway.logged_in("alice").await;
    gateway.patch(&ids[1], r#"{"user":"alice"}"#).await.expect(StatusCode::FORBIDDEN);
    gateway.revoke("alice", "").await;
    gateway.patch(&ids[1], r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
}

/// Logins that race through two gateways: never more sessions than allowed, and all who were let in are listed.
async fn race(policy: &str) -> (u32, Vec<String>, [Arc<Gateway>; 2], Memcached) {
    let memcached = Memcached::start();
    let store = memcached.url() + "?exchange_timeout=30s&connect_timeout=30s&queue_timeout=30s";
    let flags = ["--store-timeout", "60s", "--max-sessions-per-subject", "3", "--on-max-sessions", policy];
    let gateways = [(); 2].map(|()| Arc::new(Gateway::start_with(&store, &flags)));
    let mut logins = JoinSet::new();
    for gateway in gateways.iter().cycle().take(40) {
        let gateway = Arc::clone(gateway);
        logins.spawn(async move {
            let id = fresh_id();
            (gateway.put(&id, r#"{"user":"alice"}"#).await.status, id)
        });
    }
    let (mut good, mut let_in) = (Vec::new(), 0);
    for (status, id) in logins.join_all().await {
        assert!(matches!(status, 201 | 403), "{status}");
        let_in += u32::from(status == 201);
        if gateways[0].get(&id).await.status == 200 {
            good.push(id);
        }
    }
    let mut listed = gateways[1].listed("alice").await;
    listed.sort();
    good.sort();
    assert_eq!(good, listed);
    (let_in, good, gateways, memcached)
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_logins_end_the_oldest() {
    let (let_in, good, ..) = race("end-oldest").await;
    assert_eq!((let_in, good.len()), (40, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_logins_are_refused() {
    let (let_in, good, ..) = race("refuse").await;
    assert_eq!((let_in, good.len()), (3, 3));
}
