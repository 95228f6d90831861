//! The gateway next to Envoy: the store behind it, its sockets, and applications that call it directly.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde_json::json;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;

#[test]
fn two_hundred_concurrent_patches_lose_none() {
    const PATCHES: u32 = 200;
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let session = format!("/v1/sessions/{}", "ab".repeat(16));
    let put = Request::new("PUT", &session).header("content-type", "application/json").body("{}");
    assert_eq!(gateway.call(put).status, 201);
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= PATCHES {
                        return;
                    }
                    let patch = Request::new("PATCH", &session)
                        .header("content-type", "application/merge-patch+json")
                        .body(json!({ format!("k{n}"): n }).to_string());
                    let answer = gateway.call(patch);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
    let answer = gateway.call(Request::get(&session));
    let data = answer.json();
    for n in 0..PATCHES {
        assert_eq!(data[format!("k{n}")], n);
    }
    assert_eq!(answer.header("etag").unwrap(), format!("\"{}\"", PATCHES + 1));
}

#[test]
fn the_record_is_in_memcached_under_the_designs_key_for_the_idle_timeout() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(json!({"timeouts": {"idle": "10m", "absolute": "15m"}}))
            .cluster("session_gateway", &[gateway.port()])
    });
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#)).seen().id();
    let item = memcached.item(&format!("sm:s:{id}")).expect("the session is in memcached");
    assert!((590..=600).contains(&item.ttl), "{item:?}");
    assert!(item.value.ends_with(r#"{"user":"alice"}"#), "{item:?}");

    let anonymous = mesh.browser().get("/").seen().id();
    assert!(memcached.item(&format!("sm:s:{anonymous}")).is_none());
}

#[test]
fn a_session_never_outlives_its_absolute_timeout_in_memcached() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(
                json!({"timeouts": {"idle": "20s", "absolute": "20s", "touch_after": "0s"}, "cache": {"ttl": "0s"}}),
            )
            .cluster("session_gateway", &[gateway.port()])
    });
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    let key = format!("sm:s:{id}");
    session_mesh_e2e::wait::until("a touch would have to be cut short", || {
        let item = memcached.item(&key)?;
        (item.ttl <= 16).then_some(())
    });
    assert_eq!(browser.get("/").seen().state(), "active");
    let item = memcached.item(&key).unwrap();
    // Extended as if there were no absolute timeout it would be 20 again; memcached's clock has whole seconds.
    assert!(item.ttl <= 17, "{item:?}");
}

#[test]
fn envoy_reaches_the_gateway_over_a_unix_socket() {
    let gateway = Gateway::start("memory:");
    let mesh = Mesh::configured(|envoy| envoy.cluster_on_socket("session_gateway", gateway.socket()));
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
    assert_eq!(gateway.data(&id), Some(json!({"n": 1})));
    assert_eq!(mesh.gateway.calls(), 0);
}

#[test]
fn a_write_of_an_application_through_the_gateway_is_seen() {
    let mesh = Mesh::with(json!({"cache": {"ttl": "0s"}}));
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    let patch = Request::new("PATCH", &format!("/v1/sessions/{id}"))
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"job":"done"}"#);
    assert_eq!(mesh.gateway.call(patch).status, 200);
    let seen = browser.get("/").seen();
    assert_eq!((seen.version(), seen.data()), (2, json!({"n": 1, "job": "done"})));
}
