//! The cookie's value: only what was signed for this cookie with a configured secret opens a session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::envoy::SECRET;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

const OTHER_SECRET: &str = "YW5vdGhlciBrZXkgb2YgZW5kLXRvLWVuZCB0ZXN0cy4=";

/// A token taken apart as the design writes it down, without the code under test.
pub(crate) struct Token {
    pub(crate) format: u8,
    pub(crate) id: String,
    pub(crate) version: u32,
}

impl Token {
    pub(crate) fn read(text: &str) -> Self {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!(bytes.len(), 43, "{text}");
        Self {
            format: bytes[0],
            id: format!("{:032x}", u128::from_be_bytes(bytes[2..18].try_into().unwrap())),
            version: u32::from_be_bytes(bytes[18..22].try_into().unwrap()),
        }
    }
}

/// Sends a token and asserts that it opens nothing: the visitor is a new one, and the gateway was not asked.
fn assert_refused(mesh: &Mesh, token: &str, owner: &str) {
    let calls = mesh.gateway.calls();
    let response = Request::get("/").header("cookie", format!("{SESSION_COOKIE}={token}")).send(mesh.envoy.port());
    assert_eq!(response.seen().state(), "new", "{token}");
    assert_ne!(response.seen().id(), owner, "{token}");
    assert_eq!(response.seen().all("cookie"), [""; 0], "{token}");
    assert_eq!(mesh.gateway.calls(), calls, "{token} cost a callout");
}

#[test]
fn every_bit_counts() {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    let token = browser.token().unwrap();
    assert_eq!(browser.get("/").seen().state(), "active");

    // All six bits of all characters, so also those at the end that carry nothing.
    for (position, symbol) in token.bytes().enumerate() {
        let value = ALPHABET.iter().position(|candidate| *candidate == symbol).unwrap();
        for bit in 0..6 {
            let mut tampered = token.clone().into_bytes();
            tampered[position] = ALPHABET[value ^ (1 << bit)];
            assert_refused(&mesh, &String::from_utf8(tampered).unwrap(), &id);
        }
    }
    assert_eq!(browser.get("/").seen().state(), "active");
}

#[test]
fn forged_truncated_and_padded_tokens_are_refused() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    let token = browser.token().unwrap();
    for length in 0..token.len() {
        assert_refused(&mesh, &token[..length], &id);
    }
    let mut forged = URL_SAFE_NO_PAD.decode(&token).unwrap();
    forged[27..].fill(0);
    let long = "A".repeat(4000);
    for other in [format!("{token}="), format!("{token}A"), URL_SAFE_NO_PAD.encode(forged), id.clone(), long] {
        assert_refused(&mesh, &other, &id);
    }
    mesh.envoy.until_counted("tokens_rejected.malformed", 1);
    mesh.envoy.until_counted("tokens_rejected.bad_mac", 1);
    assert_eq!(mesh.envoy.counter("tokens_rejected.bad_mac"), 1);
}

#[test]
fn a_token_of_another_secret_or_another_cookie_is_foreign() {
    let mesh = Mesh::start();
    let elsewhere = Mesh::configured(|envoy| envoy.secrets(OTHER_SECRET));
    let mut visitor = elsewhere.browser();
    let id = visitor.get("/").seen().id();
    assert_refused(&mesh, &visitor.token().unwrap(), &id);

    let named_otherwise = Mesh::with(json!({"cookie": {"name": "__Host-other"}}));
    let cookie = named_otherwise.browser().get("/").header("set-cookie").unwrap();
    let token = cookie.strip_prefix("__Host-other=").unwrap().split(';').next().unwrap();
    assert_refused(&mesh, token, &Token::read(token).id);
}

#[test]
fn secrets_can_be_changed_without_logging_anyone_out() {
    let before = Mesh::configured(|envoy| envoy.secrets(OTHER_SECRET));
    let mut browser = before.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    let old = browser.token().unwrap();

    let gateway = before.gateway.port();
    let after = Mesh::configured(|envoy| {
        envoy.secrets(&format!("{SECRET},{OTHER_SECRET}")).cluster("session_gateway", &[gateway])
    });
    let mut moved = after.browser();
    moved.set(SESSION_COOKIE, &old);
    let response = moved.get("/");
    assert_eq!((response.seen().id(), response.seen().state()), (id.clone(), "active".to_owned()));
    // It was signed anew, so that the old secret can be taken away.
    let renewed = moved.token().unwrap();
    assert_ne!(renewed, old);

    let settled = Mesh::configured(|envoy| envoy.cluster("session_gateway", &[gateway]));
    let mut later = settled.browser();
    later.set(SESSION_COOKIE, &renewed);
    assert_eq!(later.get("/").seen().id(), id);
}

#[test]
fn no_token_reaches_an_upstream_a_log_or_the_store() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let token = browser.token().unwrap();
    let seen = browser.send(Request::get("/").header("cookie", "theme=dark")).seen();
    for (name, value) in seen.headers() {
        assert!(!String::from_utf8_lossy(value).contains(&token), "{name}");
    }
    let requests = |log: &str| log.matches(&format!("session={}", seen.id())).count();
    let log = wait::until("both requests are in the access log", || {
        let log = mesh.envoy.log();
        (requests(&log) == 2).then_some(log)
    });
    assert!(!log.contains(&token));
    let stored = mesh.gateway.call(Request::get(&format!("/v1/sessions/{}", seen.id())));
    assert!(!stored.text().contains(&token));
}
