//! All sessions of a subject: listed, and ended at once.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::json;
use session_gateway::store::memcached::Transport;
use session_gateway::store::{Keyspace, Memcached as Client, Store as _};

use super::support::gateway::{Gateway, JSON, PATCH, TOKEN, request};
use super::support::http::{Connection, raw};
use super::support::memcached::Memcached;
use super::support::{alice, eventually, fresh_id, over_both_stores};

over_both_stores!(
    [],
    a_revocation_ends_all_sessions_of_its_subject_and_no_others,
    all_but_one,
    listing,
    leaving,
    more_than_the_list_holds,
    names_of_all_kinds,
    ended_is_ended_for_every_method,
);

async fn a_revocation_ends_all_sessions_of_its_subject_and_no_others(gateway: &Gateway) {
    gateway.revoke("alice", "").await;
    let mut alices = Vec::new();
    for _ in 0..5 {
        alices.push(gateway.logged_in("alice").await);
    }
    let late = fresh_id();
    gateway.put(&late, "{}").await.expect(StatusCode::CREATED);
    gateway.patch(&late, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    alices.push(late);
    let merged = fresh_id();
    gateway.put(&merged, "{}").await.expect(StatusCode::CREATED);
    let merge = [JSON, ("session-merge-within", "60")];
    gateway.session("PUT", &merged, &merge, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    alices.push(merged);
    let (bob, anonymous) = (gateway.logged_in("bob").await, fresh_id());
    gateway.put(&anonymous, "{}").await.expect(StatusCode::CREATED);
    for id in alices.iter().chain([&bob, &anonymous]) {
        gateway.get(id).await.expect(StatusCode::OK);
    }

    for _ in 0..2 {
        gateway.revoke("alice", "").await;
        for id in &alices {
            gateway.get(id).await.expect(StatusCode::NOT_FOUND);
        }
        assert!(gateway.listed("alice").await.is_empty());
    }
    for id in [&bob, &anonymous] {
        gateway.get(id).await.expect(StatusCode::OK);
    }
    let again = gateway.logged_in("alice").await;
    gateway.get(&again).await.expect(StatusCode::OK);
    gateway.patch(&again, r#"{"n":1}"#).await.expect(StatusCode::OK);
    for id in &alices {
        gateway.get(id).await.expect(StatusCode::NOT_FOUND);
    }
}

async fn all_but_one(gateway: &Gateway) {
    let (here, there) = (gateway.logged_in("alice").await, gateway.logged_in("alice").await);
    let except = format!("?except={here}");
    for _ in 0..3 {
        gateway.revoke("alice", &except).await;
        gateway.get(&here).await.expect(StatusCode::OK);
        gateway.patch(&here, r#"{"n":1}"#).await.expect(StatusCode::OK);
        gateway.session("PATCH", &format!("{here}?rotate"), &[], "").await.expect(StatusCode::OK);
        gateway.get(&there).await.expect(StatusCode::NOT_FOUND);
        assert_eq!(gateway.listed("alice").await, [here.as_str()]);
    }
    let newer = gateway.logged_in("alice").await;
    assert_eq!(gateway.listed("alice").await, [here.as_str(), &newer]);
    gateway.revoke("alice", &format!("?except={newer}")).await;
    gateway.get(&here).await.expect(StatusCode::NOT_FOUND);
    gateway.get(&newer).await.expect(StatusCode::OK);
    // Another subject's session is neither spared nor ended.
    let bob = gateway.logged_in("bob").await;
    gateway.revoke("alice", &format!("?except={bob}")).await;
    gateway.get(&newer).await.expect(StatusCode::NOT_FOUND);
    gateway.get(&bob).await.expect(StatusCode::OK);
    gateway.revoke("bob", &format!("?except={}", fresh_id())).await;
    gateway.get(&bob).await.expect(StatusCode::NOT_FOUND);
}

async fn listing(gateway: &Gateway) {
    let call = async |method| gateway.call(method, "/v1/subjects/alice/sessions", &[], "").await;
    assert_eq!(call("GET").await.expect(StatusCode::OK).json(), json!([]));
    let first = gateway.logged_in("alice").await;
    let short = [JSON, ("session-idle", "100")];
    let second = fresh_id();
    gateway.session("PUT", &second, &short, r#"{"user":"alice"}"#).await.expect(StatusCode::CREATED);
    gateway.patch(&second, r#"{"n":1}"#).await.expect(StatusCode::OK);
    let list = call("GET").await.expect(StatusCode::OK);
    assert_eq!(list.header("content-type"), Some("application/json"));
    assert_eq!(list.header("cache-control"), Some("no-store"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (listed, (id, version, idle)) in
        list.json().as_array().unwrap().iter().zip([(first, 1, 1800), (second, 2, 100)])
    {
        assert_eq!((&listed["id"], &listed["version"]), (&json!(id), &json!(version)));
        assert!(listed["created"].as_u64().unwrap().abs_diff(now) <= 3, "{listed}");
        assert!(listed["expires"].as_u64().unwrap().abs_diff(now + idle) <= 3, "{listed}");
        assert_eq!(listed.as_object().unwrap().len(), 4);
    }
    let head = call("HEAD").await.expect(StatusCode::OK);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(list.body.len().to_string().as_str()));
}

async fn leaving(gateway: &Gateway) {
    let (ended, out, over) = (gateway.logged_in("alice").await, gateway.logged_in("alice").await, fresh_id());
    gateway.session("DELETE", &ended, &[], "").await.expect(StatusCode::NO_CONTENT);
    gateway.patch(&out, r#"{"user":null}"#).await.expect(StatusCode::OK);
    let brief = [JSON, ("session-idle", "1")];
    gateway.session("PUT", &over, &brief, r#"{"user":"alice"}"#).await.expect(StatusCode::CREATED);
    eventually("the idle timeout", async || gateway.listed("alice").await.is_empty()).await;
    // Who logged out of a session still has it; ending alice's does not end this one.
    gateway.revoke("alice", "").await;
    gateway.get(&out).await.expect(StatusCode::OK);
    // Out and in again at once, many times: the late departure does not take the return away.
    for _ in 0..20 {
        gateway.patch(&out, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
        gateway.patch(&out, r#"{"user":"bob"}"#).await.expect(StatusCode::OK);
    }
    gateway.patch(&out, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    assert_eq!(gateway.listed("alice").await, [out.as_str()]);
    eventually("bob's list", async || gateway.listed("bob").await.is_empty()).await;
    gateway.revoke("alice", "").await;
    gateway.get(&out).await.expect(StatusCode::NOT_FOUND);
}

async fn more_than_the_list_holds(gateway: &Gateway) {
    const SESSIONS: usize = 1100;
    let mut connection = Connection::open(&gateway.address).await.unwrap();
    let ids: Vec<String> = (0..SESSIONS).map(|_| fresh_id()).collect();
    for id in &ids {
        let put = request("PUT", &format!("/v1/sessions/{id}"), &[JSON], r#"{"user":"alice"}"#);
        connection.send(put).await.unwrap().expect(StatusCode::CREATED);
    }
    gateway.get(&ids[0]).await.expect(StatusCode::OK);
    let listed = gateway.listed("alice").await;
    assert_eq!(listed.iter().collect::<BTreeSet<_>>(), ids[100..].iter().collect::<BTreeSet<_>>(), "the newest 1000");
    gateway.revoke("alice", "").await;
    for id in &ids {
        let get = request("GET", &format!("/v1/sessions/{id}"), &[], "");
        connection.send(get).await.unwrap().expect(StatusCode::NOT_FOUND);
    }
}

async fn names_of_all_kinds(gateway: &Gateway) {
    let longest = "ä".repeat(256);
    for (name, segment) in [
        ("zoë", "zo%C3%AB"),
        ("zoe\u{308}", "zoe%cc%88"),
        ("😀", "%F0%9F%98%80"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        (".", "%2E"),
        ("..", ".."),
        ("a b+c?d#e", "a%20b+c%3Fd%23e"),
        ("\0", "%00"),
        ("a\r\nb", "a%0D%0Ab"),
        (&longest, &"%C3%A4".repeat(256)),
    ] {
        let id = gateway.logged_in(name).await;
        assert_eq!(gateway.listed(segment).await, [id.as_str()], "{segment}");
        gateway.revoke(segment, "").await;
        gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    }
    let number = fresh_id();
    gateway.put(&number, r#"{"user":42}"#).await.expect(StatusCode::CREATED);
    gateway.revoke("42", "").await;
    gateway.get(&number).await.expect(StatusCode::NOT_FOUND);
}

async fn ended_is_ended_for_every_method(gateway: &Gateway) {
    let tag = [PATCH, ("if-match", "\"1\"")];
    for method in ["GET", "PATCH", "DELETE", "PUT", "merge"] {
        let id = gateway.logged_in("alice").await;
        gateway.revoke("alice", "").await;
        match method {
            "GET" => drop(gateway.session("GET", &format!("{id}?touch"), &[], "").await.expect(StatusCode::NOT_FOUND)),
            "PATCH" => drop(gateway.session("PATCH", &id, &tag, "{}").await.expect(StatusCode::NOT_FOUND)),
            "DELETE" => drop(gateway.session("DELETE", &id, &tag[1..], "").await.expect(StatusCode::NO_CONTENT)),
            "PUT" => {
                let taken = gateway.put(&id, "{}").await.expect(StatusCode::CONFLICT);
                assert_eq!(taken.header("session-created"), None, "it was ended a moment ago");
            }
            _ => {
                let merge = [JSON, ("session-merge-within", "60")];
                drop(gateway.session("PUT", &id, &merge, "{}").await.expect(StatusCode::CONFLICT));
            }
        }
        gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn malformed_subjects_and_queries() {
    let gateway = Gateway::start("memory:");
    let id = gateway.logged_in("alice").await;
    let long = "x".repeat(513);
    for bad in ["", "%", "%4", "%zz", "al%ice", "%ff", "%C3", "%ed%a0%80", &long, &"%C3%A4".repeat(257)] {
        let list = format!("/v1/subjects/{bad}/sessions");
        gateway.call("GET", &list, &[], "").await.expect(StatusCode::BAD_REQUEST);
        let revoke = format!("/v1/subjects/{bad}/revoke");
        gateway.call("POST", &revoke, &[], "").await.expect(StatusCode::BAD_REQUEST);
    }
    for query in ["except", "except=", "except=x", "keep=1", &format!("except={id}&x"), &format!("except={id}0")] {
        let target = format!("/v1/subjects/alice/revoke?{query}");
        gateway.call("POST", &target, &[], "").await.expect(StatusCode::BAD_REQUEST);
    }
    gateway.call("GET", "/v1/subjects/alice/sessions?x", &[], "").await.expect(StatusCode::BAD_REQUEST);
    for path in ["/v1/subjects", "/v1/subjects/alice", "/v1/subjects/a/b/revoke", "/v1/subjects/alice/revoke/"] {
        gateway.call("POST", path, &[], "").await.expect(StatusCode::NOT_FOUND);
    }
    for (method, path, allow) in [
        ("GET", "revoke", "POST"),
        ("DELETE", "revoke", "POST"),
        ("POST", "sessions", "GET, HEAD"),
        ("BREW", "sessions", "GET, HEAD"),
    ] {
        let refused = gateway.call(method, &format!("/v1/subjects/alice/{path}"), &[], "").await;
        assert_eq!(refused.expect(StatusCode::METHOD_NOT_ALLOWED).header("allow"), Some(allow));
    }
    let raw_bytes = format!(
        "POST /v1/subjects/\u{1}/revoke HTTP/1.1\r\nhost: g\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let reply = raw(&gateway.address, raw_bytes.replace('\u{1}', "alice\u{ff}").as_bytes()).await;
    assert!(reply.starts_with(b"HTTP/1.1 400") || reply.starts_with(b"HTTP/1.1 204"), "{reply:?}");
    let no_token = "POST /v1/subjects/alice/revoke HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n";
    assert!(raw(&gateway.address, no_token.as_bytes()).await.starts_with(b"HTTP/1.1 401"));
    gateway.get(&id).await.expect(StatusCode::OK);
    assert!(!gateway.log().contains("panicked"));
}

/// memcached may forget a subject's record at any time, and other clients may make it.
#[tokio::test]
async fn what_a_lost_record_had_ended_stays_ended() {
    let memcached = Memcached::start();
    let store = memcached.url() + "?exchange_timeout=10s&connect_timeout=10s&queue_timeout=10s";
    let gateway = Gateway::start_with(&store, &["--store-timeout", "20s"]);
    // The SHA-256 of "alice".
    let key = "sm:u:K9gGyX8OAK8aH8Myj6djqSaXI8jbj6xPk69x2xhtbpA";
    assert_eq!(Keyspace::new("sm:").unwrap().subject(&alice()).as_str(), key);
    let (revoked, lost) = (gateway.logged_in("alice").await, fresh_id());
    gateway.revoke("alice", "").await;
    gateway.put(&lost, r#"{"user":"alice"}"#).await.expect(StatusCode::CREATED);
    assert_eq!(memcached.command(&format!("md {key}")), "HD");
    for id in [&revoked, &lost] {
        gateway.get(id).await.expect(StatusCode::NOT_FOUND);
        gateway.patch(id, "{}").await.expect(StatusCode::NOT_FOUND);
    }
    let next = gateway.logged_in("alice").await;
    for id in [&revoked, &lost] {
        gateway.get(id).await.expect(StatusCode::NOT_FOUND);
    }
    gateway.get(&next).await.expect(StatusCode::OK);
    assert_eq!(memcached.command("flush_all"), "OK");
    gateway.get(&next).await.expect(StatusCode::NOT_FOUND);
    gateway.revoke("alice", "").await;
    let after = gateway.logged_in("alice").await;
    assert_eq!(gateway.listed("alice").await, [after.as_str()]);
}

/// memcached takes a number over 30 days as a date.
#[tokio::test]
async fn the_record_lives_as_long_as_its_longest_session() {
    let memcached = Memcached::start();
    let patient = Duration::from_secs(10);
    let transport = Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() };
    let client = Client::new(&memcached.node(), transport);
    let store = memcached.url() + "?exchange_timeout=10s&connect_timeout=10s&queue_timeout=10s";
    let gateway = Gateway::start_with(&store, &["--store-timeout", "20s"]);
    let key = Keyspace::new("sm:").unwrap().subject(&alice());
    let mut kept = String::new();
    for (days, longest) in [(1, 1), (40, 40), (2, 40), (400, 400)] {
        let absolute = (days * 86_400).to_string();
        let headers = [JSON, ("session-absolute", absolute.as_str())];
        kept = fresh_id();
        gateway.session("PUT", &kept, &headers, r#"{"user":"alice"}"#).await.expect(StatusCode::CREATED);
        let left = client.get(&key).await.unwrap().unwrap().remaining.get();
        assert!((longest * 86_400 + 55..=longest * 86_400 + 61).contains(&left), "{left} s after {days} days");
    }
    gateway.revoke("alice", &format!("?except={kept}")).await;
    let left = client.get(&key).await.unwrap().unwrap().remaining.get();
    assert!(left > 399 * 86_400, "{left}");
    gateway.get(&kept).await.expect(StatusCode::OK);
}
