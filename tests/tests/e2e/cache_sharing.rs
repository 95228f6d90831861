//! The cache and shared lookups in a crowd: many requests, few slots, short times, clients that leave.

use std::collections::HashSet;
use std::thread;

use serde_json::{Value, json};
use session_mesh_e2e::browser::{Browser, SESSION_COOKIE};
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

use crate::tokens::Token;

/// How many requests wait for one lookup.
const CROWD: usize = 10;

fn patched(mesh: &Mesh, patch: &Value) -> Browser {
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", patch.to_string()));
    browser
}

/// Sends a request of the browser's many times while the gateway is paused, and has it go on when all wait.
fn at_once(mesh: &mut Mesh, browser: &Browser, request: &Request) -> Vec<Response> {
    let (port, request) = (mesh.envoy.port(), browser.with_cookies(request.clone()));
    mesh.gateway.process().pause();
    thread::scope(|scope| {
        let tabs: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| request.send(port))).collect();
        mesh.envoy.until_active(u64::try_from(CROWD).unwrap());
        mesh.gateway.process().resume();
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    })
}

#[test]
fn without_a_ttl_every_request_asks() {
    let mesh = Mesh::with(json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}}));
    let mut browser = patched(&mesh, &json!({"n": 1}));
    let calls = mesh.gateway.calls();
    for _ in 0..5 {
        assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
    }
    assert_eq!(mesh.gateway.calls(), calls + 5);
    mesh.envoy.until_counted("cache.miss", 5);
    assert_eq!(mesh.envoy.counter("cache.hit"), 0);
}

#[test]
fn a_copy_is_used_for_its_ttl_and_no_longer() {
    let mesh = Mesh::with(json!({"cache": {"ttl": "3s"}}));
    let mut browser = patched(&mesh, &json!({"n": 1}));
    let id = browser.get("/").seen().id();
    let elsewhere = Request::new("PATCH", &format!("/v1/sessions/{id}"))
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"n":2}"#);
    assert_eq!(mesh.gateway.call(elsewhere).status, 200);
    let calls = mesh.gateway.calls();
    wait::until("another client's change is seen", || {
        let data = browser.get("/").seen().data();
        assert!([json!({"n": 1}), json!({"n": 2})].contains(&data), "{data}");
        // Only an answer of the gateway can have brought it.
        assert_eq!(data == json!({"n": 2}), mesh.gateway.calls() > calls);
        (data == json!({"n": 2})).then_some(())
    });
    assert_eq!(mesh.gateway.calls(), calls + 1);
}

#[test]
fn a_logout_on_one_envoy_reaches_another_within_the_ttl() {
    let plugin = json!({"cache": {"ttl": "2s"}});
    let here = Mesh::with(plugin.clone());
    let gateway = here.gateway.port();
    let there = Mesh::configured(|envoy| envoy.plugin(plugin).cluster("session_gateway", &[gateway]));
    let mut browser = patched(&here, &json!({"user": "alice"}));
    let stolen = browser.token().unwrap();
    let thief = |mesh: &Mesh| {
        let request = Request::get("/").header("cookie", format!("{SESSION_COOKIE}={stolen}"));
        request.send(mesh.envoy.port()).seen()
    };
    assert_eq!((thief(&here).state(), thief(&there).state()), ("active".to_owned(), "active".to_owned()));
    browser.send(Request::get("/").respond("x-session-control", "destroy"));
    assert_eq!(thief(&here).state(), "expired", "at once where it happened");
    wait::until("the other Envoy has heard", || (thief(&there).state() == "expired").then_some(()));
    // And for good.
    assert_eq!((thief(&there).state(), thief(&there).data()), ("expired".to_owned(), json!({})));
}

#[test]
fn an_outage_is_bridged_for_stale_if_error_and_no_longer() {
    let mut mesh = Mesh::with(json!({"cache": {"ttl": "1s", "stale_if_error": "2s"}}));
    let mut browser = patched(&mesh, &json!({"n": 1}));
    assert_eq!(browser.get("/").seen().state(), "active");
    let token = browser.token();
    mesh.gateway.stop();
    wait::until("the copy is too old", || {
        let answer = browser.get("/");
        assert_eq!(answer.all("set-cookie"), [""; 0]);
        if answer.status == 503 {
            return Some(());
        }
        assert_eq!((answer.seen().state(), answer.seen().data()), ("active".to_owned(), json!({"n": 1})));
        None
    });
    mesh.envoy.until_counted("requests.stale", 1);
    assert_eq!(browser.token(), token);
}

#[test]
fn clients_that_share_the_lookup_of_one_that_leaves_are_served() {
    let mut mesh = Mesh::with(json!({"gateway": {"timeout": "20s"}}));
    let browser = patched(&mesh, &json!({"n": 1}));
    // A new Envoy has no copies.
    mesh.envoy.restart();
    let calls = mesh.gateway.calls();
    let port = mesh.envoy.port();
    mesh.gateway.process().pause();
    let mut leader = Connection::open(port);
    let cookie = format!("{SESSION_COOKIE}={}", browser.token().unwrap());
    leader.send(format!("GET / HTTP/1.1\r\nhost: e2e.test\r\ncookie: {cookie}\r\n\r\n"));
    mesh.envoy.until_active(1);
    let request = browser.with_cookies(Request::get("/"));
    thread::scope(|scope| {
        let tabs: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| request.send(port).seen())).collect();
        let crowd = u64::try_from(CROWD).unwrap();
        mesh.envoy.until_active(crowd + 1);
        drop(leader);
        mesh.envoy.until_active(crowd);
        mesh.gateway.process().resume();
        for tab in tabs {
            let seen = tab.join().unwrap();
            assert_eq!((seen.state(), seen.data()), ("active".to_owned(), json!({"n": 1})));
        }
    });
    // The answer to the one who left is lost with it; for all others together there is one more.
    assert_eq!(mesh.gateway.calls(), calls + 2);
}

#[test]
fn a_crowd_meets_an_outage_together_and_no_user_is_logged_out() {
    let mut mesh = Mesh::with(json!({"gateway": {"timeout": "1s"}, "cache": {"ttl": "1s", "stale_if_error": "0s"}}));
    let browser = patched(&mesh, &json!({"n": 1}));
    mesh.envoy.restart();
    let (port, request) = (mesh.envoy.port(), browser.with_cookies(Request::get("/")));
    mesh.gateway.process().pause();
    thread::scope(|scope| {
        let tabs: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| request.send(port))).collect();
        for tab in tabs {
            let answer = tab.join().unwrap();
            assert_eq!((answer.status, answer.all("set-cookie")), (503, vec![]));
        }
    });
    mesh.gateway.process().resume();
    assert_eq!(request.send(port).seen().data(), json!({"n": 1}));
}

#[test]
fn a_client_that_has_seen_more_does_not_wait_for_an_answer_to_a_lesser_question() {
    let mut mesh = Mesh::with(json!({"gateway": {"timeout": "20s"}}));
    let mut browser = patched(&mesh, &json!({"n": 1}));
    let older = browser.with_cookies(Request::get("/"));
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#));
    let newer = browser.with_cookies(Request::get("/"));
    mesh.envoy.restart();
    let (port, calls) = (mesh.envoy.port(), mesh.gateway.calls());
    mesh.gateway.process().pause();
    thread::scope(|scope| {
        let first = scope.spawn(|| older.send(port).seen());
        mesh.envoy.until_active(1);
        let second = scope.spawn(|| newer.send(port).seen());
        mesh.envoy.until_active(2);
        mesh.gateway.process().resume();
        for tab in [first, second] {
            assert_eq!(tab.join().unwrap().data(), json!({"n": 2}));
        }
    });
    assert_eq!(mesh.gateway.calls(), calls + 2);
}

#[test]
fn a_strict_path_asks_for_each_request_of_a_crowd() {
    let mut mesh = Mesh::with(json!({
        "gateway": {"timeout": "20s"},
        "rules": [{"path_prefix": "/pay/", "session": "strict"}],
    }));
    let browser = patched(&mesh, &json!({"n": 1}));
    let calls = mesh.gateway.calls();
    for response in at_once(&mut mesh, &browser, &Request::get("/pay/")) {
        assert_eq!(response.seen().data(), json!({"n": 1}));
    }
    assert_eq!(mesh.gateway.calls(), calls + u64::try_from(CROWD).unwrap());
}

#[test]
fn a_crowd_whose_eager_session_has_ended_gets_one_cookie() {
    let mut mesh = Mesh::with(json!({"create": "eager", "gateway": {"timeout": "20s"}, "cache": {"ttl": "0s"}}));
    let mut browser = mesh.browser();
    let ended = browser.get("/").seen().id();
    assert_eq!(mesh.gateway.call(Request::new("DELETE", &format!("/v1/sessions/{ended}"))).status, 204);
    let calls = mesh.gateway.calls();
    let mut ids = HashSet::from([ended]);
    let mut cookies = 0;
    for response in at_once(&mut mesh, &browser, &Request::get("/")) {
        let seen = response.seen();
        assert_eq!(seen.state(), "expired");
        // They are one browser: after the first, no answer takes away what it may have logged in with.
        if let Some(cookie) = response.header("set-cookie") {
            cookies += 1;
            let token = cookie.split(['=', ';']).nth(1).unwrap();
            assert_eq!((Token::read(token).id, Token::read(token).version), (seen.id(), 1));
        }
        assert_eq!(mesh.gateway.data(&seen.id()), Some(json!({})));
        assert!(ids.insert(seen.id()), "two clients share the session {}", seen.id());
    }
    assert_eq!(cookies, 1);
    // One lookup for all; a session stored for each, and looked at by this test.
    assert_eq!(mesh.gateway.calls(), calls + 1 + 2 * u64::try_from(CROWD).unwrap());
}

#[test]
fn a_session_used_only_from_copies_outlives_its_idle_timeout() {
    let mesh = Mesh::with(json!({
        "timeouts": {"idle": "5s", "touch_after": "1s", "rotation_grace": "1s"},
        "cache": {"ttl": "3s", "stale_if_error": "0s"},
    }));
    let mut browser = patched(&mesh, &json!({"n": 1}));
    let id = browser.get("/").seen().id();
    let header = |name: &str| -> u64 {
        let answer = mesh.gateway.call(Request::get(&format!("/v1/sessions/{id}")));
        assert_eq!(answer.status, 200, "the session has ended while it was in use");
        answer.header(name).unwrap().parse().unwrap()
    };
    wait::until("it is used after what would have been its end", || {
        assert_eq!(browser.get("/").seen().state(), "active");
        (header("session-expires") >= header("session-created") + 2 * 5).then_some(())
    });
    // It is the background's work, no request waited for it.
    mesh.envoy.until_counted("cache.hit", 2);
    assert_eq!(mesh.envoy.counter("cache.miss"), 0);
    assert_eq!(mesh.envoy.counter("lookups.found"), 0);
}

#[test]
fn more_sessions_than_slots_are_each_their_own() {
    let mesh = Mesh::with(json!({"cache": {"ttl": "10m", "slots": 2}}));
    let mut browsers: Vec<Browser> = (0..12).map(|n| patched(&mesh, &json!({"n": n}))).collect();
    for round in 0..3 {
        for (n, browser) in browsers.iter_mut().enumerate() {
            assert_eq!(browser.get("/").seen().data(), json!({"n": n}), "round {round}");
        }
    }
    let before = browsers[0].get("/").seen().id();
    browsers[0].send(Request::get("/").respond("x-session-control", "destroy"));
    assert_eq!(mesh.gateway.data(&before), None);
    assert_eq!(browsers[1].get("/").seen().data(), json!({"n": 1}));
}
