//! `x-session-control`: rotate and destroy.

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

use crate::tokens::Token;

#[test]
fn an_old_token_is_good_within_the_grace_and_refused_after_it() {
    let mesh = Mesh::with(json!({"timeouts": {"rotation_grace": "5s"}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let mut in_flight = browser.clone();
    let rotated = browser.send(Request::get("/").respond("x-session-control", "rotate"));
    assert_eq!(rotated.all("x-session-control"), [""; 0]);
    assert_eq!(Token::read(&browser.token().unwrap()).version, 2);

    let old = in_flight.token().unwrap();
    let late = in_flight.get("/");
    assert_eq!((late.seen().state(), late.seen().data()), ("active".to_owned(), json!({"n": 1})));
    assert_eq!(late.all("set-cookie"), [""; 0], "an old token must not be renewed");

    wait::until("the grace is over", || {
        let mut attempt = mesh.browser();
        attempt.set(SESSION_COOKIE, &old);
        let seen = attempt.get("/").seen();
        (seen.state() == "expired" && seen.data() == json!({})).then_some(())
    });
    let seen = browser.get("/").seen();
    assert_eq!((seen.state(), seen.data(), seen.id()), ("active".to_owned(), json!({"n": 1}), rotated.seen().id()));
    mesh.envoy.until_counted("tokens_rejected.rotated", 1);
}

#[test]
fn rotation_and_patch_are_one_change() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#).respond("x-session-control", "rotate"));
    let seen = browser.get("/").seen();
    assert_eq!((seen.version(), seen.data()), (2, json!({"n": 2})));
}

#[test]
fn destroy_ends_the_session_and_takes_the_cookie() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#)).seen().id();
    let old = browser.token().unwrap();
    // It wins over a patch in the same response.
    let request = Request::get("/").respond("x-session-patch", r#"{"n":1}"#).respond("x-session-control", "destroy");
    let cookie = browser.send(request).header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("{SESSION_COOKIE}=; Max-Age=0; ")), "{cookie}");
    assert!(cookie.contains("; Secure"), "browsers ignore a __Host- cookie without it: {cookie}");
    assert_eq!(browser.token(), None);
    assert_eq!(mesh.gateway.data(&id), None);

    let mut revived = mesh.browser();
    revived.set(SESSION_COOKIE, &old);
    let seen = revived.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#)).seen();
    assert_eq!((seen.state(), seen.data()), ("expired".to_owned(), json!({})));
    assert_ne!(seen.id(), id);
    assert_eq!(mesh.gateway.data(&id), None);
    assert_eq!(revived.get("/").seen().data(), json!({"n": 2}));
}

#[test]
fn a_session_ended_through_the_gateway_is_gone() {
    let mesh = Mesh::with(json!({"cache": {"ttl": "0s"}}));
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    assert_eq!(mesh.gateway.call(Request::new("DELETE", &format!("/v1/sessions/{id}"))).status, 204);
    let response = browser.get("/");
    assert_eq!(response.seen().state(), "expired");
    assert_ne!(response.seen().id(), id);
    assert_eq!(response.seen().data(), json!({}));
    assert_eq!(response.all("set-cookie").len(), 1);
}

#[test]
fn logging_out_without_a_stored_session_clears_the_cookie_all_the_same() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.get("/");
    let calls = mesh.gateway.calls();
    browser.send(Request::get("/").respond("x-session-control", "destroy"));
    assert_eq!(browser.token(), None);
    assert_eq!(mesh.gateway.calls(), calls);
}
