//! The first write of an anonymous visitor.

use std::thread;

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;

use crate::tokens::Token;

#[test]
fn the_first_write_stores_the_session_under_another_id() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let anonymous = browser.get("/").seen().id();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let promoted = Token::read(&browser.token().unwrap());
    assert_ne!(promoted.id, anonymous);
    assert_eq!(promoted.version, 1);
    assert_eq!(mesh.gateway.data(&anonymous), None);
    assert_eq!(mesh.gateway.data(&promoted.id), Some(json!({"n": 1})));
}

#[test]
fn two_tabs_that_write_first_at_the_same_time_land_in_one_session() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.get("/");
    let port = mesh.envoy.port();
    mesh.app.hold_until_together(2);
    let tabs = ["left", "right"].map(|tab| {
        let mut browser = browser.clone();
        thread::spawn(move || {
            browser.send(Request::get("/").respond("x-session-patch", format!(r#"{{"{tab}":1}}"#)));
            browser
        })
    });
    let browsers = tabs.map(|tab| tab.join().unwrap());
    mesh.app.stop_holding();
    let ids = browsers.each_ref().map(|browser| Token::read(&browser.token().unwrap()).id);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(mesh.gateway.data(&ids[0]), Some(json!({"left": 1, "right": 1})));
    for browser in browsers {
        let seen = browser.with_cookies(Request::get("/")).send(port).seen();
        assert_eq!((seen.id(), seen.data()), (ids[0].clone(), json!({"left": 1, "right": 1})));
    }
}

#[test]
fn a_planted_token_never_opens_the_session_after_login() {
    let mesh = Mesh::start();
    let mut attacker = mesh.browser();
    attacker.get("/");
    let planted = attacker.token().unwrap();

    let mut victim = mesh.browser();
    victim.set(SESSION_COOKIE, &planted);
    victim.get("/");
    victim.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let opened = victim.get("/").seen();
    assert_eq!(opened.data(), json!({"user": "alice"}));

    let seen = attacker.get("/").seen();
    assert_ne!(seen.id(), opened.id());
    assert_eq!(seen.data(), json!({}));
    assert_eq!(seen.all("x-session-subject"), [""; 0]);

    // Neither does a write with it join the victim's session.
    attacker.set(SESSION_COOKIE, &planted);
    let write = attacker.send(Request::get("/").respond("x-session-patch", r#"{"evil":1}"#));
    assert_eq!(write.status, 503);
    assert_eq!(victim.get("/").seen().data(), json!({"user": "alice"}));
}

#[test]
fn a_stored_token_that_was_planted_ends_with_the_login() {
    let mesh = Mesh::start();
    let mut attacker = mesh.browser();
    attacker.send(Request::get("/").respond("x-session-patch", r#"{"cart":1}"#));
    let planted = attacker.token().unwrap();

    let mut victim = mesh.browser();
    victim.set(SESSION_COOKIE, &planted);
    victim.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(victim.get("/").seen().data(), json!({"cart": 1, "user": "alice"}));

    let seen = attacker.get("/").seen();
    assert_eq!((seen.state(), seen.data()), ("expired".to_owned(), json!({})));
    assert_ne!(seen.id(), victim.get("/").seen().id());
}
