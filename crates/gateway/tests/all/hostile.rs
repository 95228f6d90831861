//! Requests that no well-behaved caller sends: each is clearly refused, with the marker, and the gateway survives.

use hyper::StatusCode;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::gateway::{Gateway, JSON, PATCH, PATCHES, TOKEN};
use super::support::http::raw;
use super::support::{eventually, fresh_id};

#[tokio::test]
async fn malformed_ids_paths_and_queries() {
    let gateway = Gateway::start("memory:");
    let id = fresh_id();
    for bad in ["", "x", &id[1..], &format!("{id}0"), &"A".repeat(32), &format!("%30{}", &id[1..])] {
        gateway.get(bad).await.expect(StatusCode::BAD_REQUEST);
        gateway.session("DELETE", bad, &[], "").await.expect(StatusCode::BAD_REQUEST);
    }
    for path in ["/", "/v1/", "/v1/session", "/v1/sessions", "/v2/sessions/x", "/metrics", "//v1/sessions/x"] {
        let nothing = gateway.call("GET", path, &[], "").await.expect(StatusCode::NOT_FOUND);
        assert_eq!(nothing.header("session-id"), None, "{path}: says something about a session");
    }
    gateway.get(&format!("{id}/x")).await.expect(StatusCode::NOT_FOUND);
    for query in ["touch=1", "rotate", "touch&touch", "x", "Touch", "%74ouch"] {
        gateway.get(&format!("{id}?{query}")).await.expect(StatusCode::BAD_REQUEST);
    }
    gateway.session("PATCH", &format!("{id}?touch"), &[PATCH], "{}").await.expect(StatusCode::BAD_REQUEST);
    for method in ["POST", "OPTIONS", "TRACE", "BREW"] {
        let refused = gateway.session(method, &id, &[], "").await.expect(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.header("allow"), Some("GET, HEAD, PUT, PATCH, DELETE"));
    }
}

#[tokio::test]
async fn tokens() {
    let gateway = Gateway::start("memory:");
    let id = fresh_id();
    let get = |authorization: &str| {
        format!("GET /v1/sessions/{id} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n{authorization}\r\n")
    };
    let good = format!("authorization: Bearer {TOKEN}\r\n");
    for (authorization, status) in [
        (String::new(), "401"),
        ("authorization: Bearer wrong-token-0123456\r\n".to_owned(), "401"),
        (format!("authorization: Basic {TOKEN}\r\n"), "401"),
        (format!("authorization: Bearer {TOKEN}x\r\n"), "401"),
        (format!("{good}{good}"), "401"),
        (good, "404"),
        ("authorization: bearer another-token-98765\r\n".to_owned(), "404"),
    ] {
        let reply = String::from_utf8(raw(&gateway.address, get(&authorization).as_bytes()).await).unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{authorization} {reply}");
        assert!(reply.contains("session-gateway: 1\r\n"), "{reply}");
        assert_eq!(reply.contains(&format!("session-id: {id}\r\n")), status != "401", "{reply}");
        assert_eq!(reply.contains("www-authenticate: Bearer\r\n"), status == "401", "{reply}");
    }
    // A caller without a token learns nothing about what exists.
    let unknown = "GET /v1/nothing HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n";
    assert!(raw(&gateway.address, unknown.as_bytes()).await.starts_with(b"HTTP/1.1 401"));
    // Once, however many come; the log arrives when it arrives.
    let warnings = || gateway.log().matches("had no valid bearer token").count();
    eventually("the warning", async || warnings() > 0).await;
    assert_eq!(warnings(), 1);
    assert!(!gateway.log().contains(TOKEN) && !gateway.log().contains("wrong-token"), "a token is in the log");
}

#[tokio::test]
async fn headers_are_refused_by_name() {
    let gateway = Gateway::start("memory:");
    let long_cookie = "x".repeat(257);
    let long_key = "x".repeat(129);
    for (method, name, value) in [
        ("GET", "session-touch-after", "+5"),
        ("GET", "session-touch-after", "1.5"),
        ("GET", "session-touch-after", ""),
        ("PUT", "session-idle", "0"),
        ("PUT", "session-idle", "99999999999"),
        ("PUT", "session-absolute", "0"),
        ("PUT", "session-absolute", "999999999999999999999999"),
        ("PUT", "session-merge-within", "soon"),
        ("PUT", "session-subject-key", ""),
        ("PUT", "session-subject-key", &long_key),
        ("PUT", "session-upstream-cookie", ""),
        ("PUT", "session-upstream-cookie", "a b"),
        ("PUT", "session-upstream-cookie", "a;b"),
        ("PUT", "session-upstream-cookie", "\"a\""),
        ("PUT", "session-upstream-cookie", "a,b"),
        ("PUT", "session-upstream-cookie", &long_cookie),
        ("PATCH", "session-upstream-cookie", "a\\b"),
        ("PATCH", "session-rotation-grace", "ten"),
        ("PATCH", "session-subject-key", ""),
    ] {
        let content_type = if method == "PUT" { JSON } else { PATCH };
        let headers = [content_type, (name, value)];
        let refused = gateway.session(method, &fresh_id(), &headers, "{}").await.expect(StatusCode::BAD_REQUEST);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(name), "{name}: {value}: {detail}");
        let twice = [content_type, (name, "1"), (name, "1")];
        let twice = gateway.session(method, &fresh_id(), &twice, "{}").await.expect(StatusCode::BAD_REQUEST);
        assert_eq!(twice.json()["detail"], format!("{name} is given twice"));
    }
    let smuggled = format!(
        "PUT /v1/sessions/{} HTTP/1.1\r\nhost: g\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\nsession-upstream-cookie: a\u{ff}b\r\nsession-subject-key: \u{fe}\r\n\
         content-length: 2\r\n\r\n{{}}",
        fresh_id()
    );
    let bytes: Vec<u8> = smuggled.chars().map(|character| character as u8).collect();
    let reply = raw(&gateway.address, &bytes).await;
    assert!(reply.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&reply));
}

#[tokio::test]
async fn bodies() {
    let gateway = Gateway::start("memory:");
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    for bad in ["", "[]", "1", "null", "{", "{}x", r#"{"a":01}"#, r#"{"a":NaN}"#, &deep, "\u{feff}{}"] {
        gateway.put(&fresh_id(), bad).await.expect(StatusCode::BAD_REQUEST);
        gateway.patch(&id, bad).await.expect(StatusCode::BAD_REQUEST);
    }
    for bad in ["", "{}", "[1]", "[{}", "[[]]", &format!("[{deep}]")] {
        gateway.session("PATCH", &id, &[PATCHES], bad).await.expect(StatusCode::BAD_REQUEST);
    }
    // As deep as the parser goes, and still good when it is read back and patched.
    let deepest = format!("{}1{}", r#"{"a":"#.repeat(127), "}".repeat(127));
    gateway.patch(&id, &deepest).await.expect(StatusCode::OK);
    gateway.patch(&id, r#"{"b":1}"#).await.expect(StatusCode::OK);

    for content_type in ["text/plain", "application/json", "", "application/merge-patch+jsonx", "a/b; application/json"]
    {
        let wrong = [("content-type", content_type)];
        let refused = gateway.session("PATCH", &id, &wrong, "{}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(refused.header("accept").unwrap().contains("application/merge-patch+json"));
    }
    gateway.session("PUT", &fresh_id(), &[PATCH], "{}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    gateway.session("PUT", &fresh_id(), &[], "{}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    gateway.session("PATCH", &format!("{id}?rotate"), &[], "{}").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    gateway.session("PATCH", &format!("{id}?rotate"), &[PATCH], "").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_never_end() {
    let gateway = Gateway::start_with("memory:", &["--body-timeout", "100ms"]);
    let head = format!(
        "PUT /v1/sessions/{} HTTP/1.1\r\nhost: g\r\nconnection: close\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\n",
        fresh_id()
    );
    let reply = async |rest: &str| {
        let reply = raw(&gateway.address, format!("{head}{rest}").as_bytes()).await;
        String::from_utf8(reply).unwrap()
    };
    let stalled = reply("content-length: 10\r\n\r\n{").await;
    assert!(stalled.starts_with("HTTP/1.1 408") && stalled.contains("session-gateway: 1\r\n"), "{stalled}");
    let announced = reply("content-length: 99999999999\r\n\r\n{").await;
    assert!(announced.starts_with("HTTP/1.1 413") && announced.contains("session-gateway: 1\r\n"), "{announced}");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let endless = reply(&format!("transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(5))).await;
    assert!(endless.starts_with("HTTP/1.1 413") && endless.contains("session-gateway: 1\r\n"), "{endless}");
    gateway.put(&fresh_id(), "{}").await.expect(StatusCode::CREATED);
}

/// Whatever bytes arrive: an answer or a closed connection, and no panic.
#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_bytes() {
    let gateway = Gateway::start_with("memory:", &["--body-timeout", "50ms", "--idle-timeout", "200ms"]);
    let (address, id) = (gateway.address.clone(), fresh_id());
    let runtime = tokio::runtime::Handle::current();
    let piece = prop_oneof![
        Just(b"GET ".to_vec()),
        Just(b"PUT ".to_vec()),
        Just(format!("/v1/sessions/{id}").into_bytes()),
        Just(b" HTTP/1.1\r\n".to_vec()),
        Just(format!("authorization: Bearer {TOKEN}\r\n").into_bytes()),
        Just(b"content-type: application/json\r\n".to_vec()),
        Just(b"content-length: 3\r\n\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let pieces = proptest::collection::vec(piece, 0..12);
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, ..Config::default() });
        runner.run(&pieces, |pieces| {
            runtime.block_on(raw(&address, &pieces.concat()));
            Ok(())
        })
    })
    .await
    .unwrap()
    .unwrap();
    assert_eq!(gateway.metric("session_gateway_panics_total").await, 0);
    gateway.put(&fresh_id(), "{}").await.expect(StatusCode::CREATED);
}
