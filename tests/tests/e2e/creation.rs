//! When a session begins: `create` is `lazy`, `eager` or `on_write`.

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;

use crate::tokens::Token;

#[test]
fn a_lazy_visitor_gets_a_cookie_and_costs_the_store_nothing() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let calls = mesh.gateway.calls();

    let first = browser.get("/");
    let seen = first.seen();
    assert_eq!((seen.state(), seen.version(), seen.data()), ("new".to_owned(), 0, json!({})));
    let token = Token::read(&browser.token().unwrap());
    assert_eq!((token.format, token.id, token.version), (1, seen.id(), 0));

    for _ in 0..3 {
        let next = browser.get("/");
        assert_eq!(next.all("set-cookie"), [""; 0]);
        assert_eq!((next.seen().id(), next.seen().state(), next.seen().version()), (seen.id(), "active".to_owned(), 0));
    }
    assert_eq!(mesh.gateway.calls(), calls);
    assert_eq!(mesh.gateway.data(&seen.id()), None);
}

#[test]
fn the_cookie_has_the_attributes_of_the_configuration_and_stays_out_of_shared_caches() {
    let mesh = Mesh::start();
    let first = mesh.browser().send(Request::get("/").respond("cache-control", "public, max-age=60"));
    let cookie = first.header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("{SESSION_COOKIE}=")), "{cookie}");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{attribute} in {cookie}");
    }
    assert!(!cookie.contains("Domain") && !cookie.contains("Max-Age"), "{cookie}");
    assert_eq!(first.header("cache-control").unwrap(), "max-age=60, private");

    let silent = mesh.browser().get("/");
    assert_eq!(silent.header("cache-control").unwrap(), "private");
    let never_kept = mesh.browser().send(Request::get("/").respond("cache-control", "no-store"));
    assert_eq!(never_kept.header("cache-control").unwrap(), "no-store");
}

#[test]
fn a_response_without_a_new_cookie_keeps_its_cache_control() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.get("/");
    let next = browser.send(Request::get("/").respond("cache-control", "public, max-age=60"));
    assert_eq!(next.header("cache-control").unwrap(), "public, max-age=60");
}

#[test]
fn the_first_request_of_all_may_write() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let first = browser.send(Request::get("/").respond("x-session-patch", r#"{"visits":1}"#));
    let token = Token::read(&browser.token().unwrap());
    // No other client can have a token for an id that was drawn for this request: it can stay.
    assert_eq!((token.id, token.version), (first.seen().id(), 1));

    let next = browser.get("/").seen();
    assert_eq!((next.id(), next.state(), next.version()), (first.seen().id(), "active".to_owned(), 1));
    assert_eq!(next.data(), json!({"visits": 1}));
}

#[test]
fn an_eager_session_is_stored_before_its_cookie_goes_out() {
    let mesh = Mesh::with(json!({"create": "eager"}));
    let mut browser = mesh.browser();
    let first = browser.get("/").seen();
    assert_eq!(first.state(), "new");
    assert_eq!(Token::read(&browser.token().unwrap()).version, 1);
    assert_eq!(mesh.gateway.data(&first.id()), Some(json!({})));

    let next = browser.get("/");
    assert_eq!(next.all("set-cookie"), [""; 0]);
    assert_eq!((next.seen().id(), next.seen().state()), (first.id(), "active".to_owned()));
}

#[test]
fn on_write_there_is_no_cookie_before_the_first_write() {
    let mesh = Mesh::with(json!({"create": "on_write"}));
    let mut browser = mesh.browser();
    for _ in 0..2 {
        let response = browser.get("/");
        assert_eq!(response.all("set-cookie"), [""; 0]);
        assert_eq!(response.seen().state(), "new");
    }
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let token = Token::read(&browser.token().unwrap());
    assert_eq!(token.version, 1);
    assert_eq!(mesh.gateway.data(&token.id), Some(json!({"n": 1})));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

#[test]
fn a_post_with_a_body_and_a_head_request_have_sessions_too() {
    let mesh = Mesh::with(json!({"create": "eager"}));
    let mut browser = mesh.browser();
    let id = browser.send(Request::new("POST", "/").body(vec![b'x'; 300_000])).seen().id();
    let patch = Request::new("POST", "/").body(vec![b'x'; 300_000]).respond("x-session-patch", r#"{"n":1}"#);
    assert_eq!(browser.send(patch).seen().id(), id);
    let head = browser.send(Request::new("HEAD", "/").respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!(head.status, 200);
    let empty = browser.send(Request::get("/").respond("status", "204").respond("x-session-patch", r#"{"m":3}"#));
    assert_eq!(empty.status, 204);
    assert_eq!(mesh.gateway.data(&id), Some(json!({"n": 2, "m": 3})));
}
