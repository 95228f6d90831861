//! Copies of sessions in Envoy: they save callouts, survive outages and never hide a client's own write.

use std::thread;

use serde_json::json;
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

/// Longer than any test: what is cached stays cached.
const LONG: &str = "10m";

#[test]
fn a_cached_session_costs_no_callout() {
    let mesh = Mesh::with(json!({"cache": {"ttl": LONG}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
    let calls = mesh.gateway.calls();
    for _ in 0..20 {
        let seen = browser.get("/").seen();
        assert_eq!((seen.state(), seen.version(), seen.data()), ("active".to_owned(), 1, json!({"n": 1})));
    }
    assert_eq!(mesh.gateway.calls(), calls);
    mesh.envoy.until_counted("cache.hit", 20);
}

#[test]
fn a_client_reads_its_own_write_on_any_envoy() {
    let here = Mesh::with(json!({"cache": {"ttl": LONG}}));
    let gateway = here.gateway.port();
    let there =
        Mesh::configured(|envoy| envoy.plugin(json!({"cache": {"ttl": LONG}})).cluster("session_gateway", &[gateway]));
    let mut browser = here.browser();
    let elsewhere = |browser: &mut Browser, request: Request| {
        let mut moved = there.browser();
        moved.set(session_mesh_e2e::browser::SESSION_COOKIE, &browser.token().unwrap());
        let response = moved.send(request);
        browser.set(session_mesh_e2e::browser::SESSION_COOKIE, &moved.token().unwrap());
        response.seen()
    };
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":0}"#));
    for n in 1..6 {
        // Both have a copy by now, and it is this client's write that makes one of them old.
        assert_eq!(elsewhere(&mut browser, Request::get("/")).data(), json!({"n": n - 1}));
        assert_eq!(browser.get("/").seen().data(), json!({"n": n - 1}));
        elsewhere(&mut browser, Request::get("/").respond("x-session-patch", json!({"n": n}).to_string()));
    }
    assert_eq!(browser.get("/").seen().data(), json!({"n": 5}));
}

#[test]
fn a_logout_leaves_no_copy_behind() {
    let mesh = Mesh::with(json!({"cache": {"ttl": LONG}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(browser.get("/").seen().data(), json!({"user": "alice"}));
    let mut thief = browser.clone();
    browser.send(Request::get("/").respond("x-session-control", "destroy"));
    let seen = thief.get("/").seen();
    assert_eq!((seen.state(), seen.data()), ("expired".to_owned(), json!({})));
}

#[test]
fn an_outage_is_not_noticed_where_there_is_a_copy() {
    let mut mesh = Mesh::with(json!({"cache": {"ttl": "1s", "stale_if_error": LONG}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    browser.get("/");
    mesh.gateway.stop();
    wait::until("the copy is stale, and used all the same", || {
        let seen = browser.get("/").seen();
        assert_eq!((seen.state(), seen.data()), ("active".to_owned(), json!({"n": 1})));
        (mesh.envoy.statistic("wasmcustom.session_mesh.requests.stale") > 0).then_some(())
    });
    // Nothing new can be saved, though.
    let write = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!((write.status, write.all("set-cookie").len()), (503, 0));
}

#[test]
fn requests_that_miss_at_the_same_time_share_one_callout() {
    const REQUESTS: u64 = 12;
    let mut mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    // A new Envoy has no copies.
    mesh.envoy.restart();
    let calls = mesh.gateway.calls();
    mesh.gateway.process().pause();
    let port = mesh.envoy.port();
    let request = browser.with_cookies(Request::get("/"));
    thread::scope(|scope| {
        let tabs: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| request.send(port).seen())).collect();
        wait::until("all requests have arrived", || {
            (mesh.envoy.statistic("http.ingress.downstream_rq_active") == REQUESTS).then_some(())
        });
        mesh.gateway.process().resume();
        for tab in tabs {
            assert_eq!(tab.join().unwrap().data(), json!({"n": 1}));
        }
    });
    assert_eq!(mesh.gateway.calls(), calls + 1);
}
