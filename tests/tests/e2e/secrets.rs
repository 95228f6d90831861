//! Secrets are replaced one after the other, and no user is logged out.

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::envoy::SECRET;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;

const NEXT: &str = "dGhlIG5leHQgc2VjcmV0IG9mIHRoZSBlbmQtdG8tZW5kIHRlc3Rz";

#[test]
fn a_secret_is_replaced_in_two_restarts_and_the_client_stays_logged_in() {
    let mut mesh = Mesh::start();
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#)).seen().id();
    let mut absent = browser.clone();
    let old = browser.token().unwrap();

    // The new one has to be known everywhere before any Envoy signs with it.
    mesh.envoy.restart_with_secrets(&format!("{SECRET},{NEXT}"));
    assert_eq!(browser.get("/").all("set-cookie"), [""; 0]);

    mesh.envoy.restart_with_secrets(&format!("{NEXT},{SECRET}"));
    let answer = browser.get("/");
    assert_eq!((answer.seen().state(), answer.seen().id()), ("active".to_owned(), id.clone()));
    assert_eq!(answer.all("set-cookie").len(), 1, "it is signed anew");
    assert_eq!(answer.header("cache-control").unwrap(), "private");
    assert_ne!(browser.token().unwrap(), old);
    assert_eq!(browser.get("/").all("set-cookie"), [""; 0], "once");

    mesh.envoy.restart_with_secrets(NEXT);
    let seen = browser.get("/").seen();
    assert_eq!(
        (seen.state(), seen.id(), seen.one("x-session-subject")),
        ("active".to_owned(), id.clone(), "alice".to_owned())
    );

    // A user who has not been here in between has to log in again; the old secret is worth nothing any more.
    let calls = mesh.gateway.calls();
    let answer = absent.get("/");
    assert_eq!((answer.seen().state(), answer.seen().data()), ("new".to_owned(), json!({})));
    assert_ne!(answer.seen().id(), id);
    assert_eq!(mesh.gateway.calls(), calls);
    mesh.envoy.until_counted("tokens_rejected.unknown_key", 1);
}

#[test]
fn an_envoy_that_has_the_new_secret_and_one_that_still_signs_with_the_old_serve_one_client() {
    let ahead = Mesh::configured(|envoy| envoy.secrets(&format!("{NEXT},{SECRET}")));
    let gateway = ahead.gateway.port();
    let behind =
        Mesh::configured(|envoy| envoy.secrets(&format!("{SECRET},{NEXT}")).cluster("session_gateway", &[gateway]));
    let mut token: Option<String> = None;
    for n in 0..4 {
        for mesh in [&ahead, &behind] {
            let mut browser = mesh.browser();
            if let Some(token) = &token {
                browser.set(SESSION_COOKIE, token);
                assert_eq!(browser.get("/").seen().state(), "active", "round {n}");
            }
            let patch = browser.send(Request::get("/").respond("x-session-patch", json!({"n": n}).to_string()));
            assert_eq!(patch.status, 200);
            assert_eq!(browser.get("/").seen().data(), json!({"n": n}));
            token = browser.token();
        }
    }
}
