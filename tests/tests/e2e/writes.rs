//! Upstreams change sessions with `x-session-patch`, and the next request sees the change, anywhere.

use std::fmt::Write as _;
use std::thread;

use serde_json::{Value, json};
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;

#[test]
fn a_write_on_one_cluster_is_seen_by_the_next_request_on_another() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"cart":{"n":1}}"#));
    for n in 2..8 {
        let (reads, writes) = if n % 2 == 0 { ("/other/", "/") } else { ("/", "/other/") };
        assert_eq!(browser.get(reads).seen().data(), json!({"cart": {"n": n - 1}}));
        browser.send(Request::get(writes).respond("x-session-patch", format!(r#"{{"cart":{{"n":{n}}}}}"#)));
    }
    assert_eq!((mesh.app.requests(), mesh.other.requests()), (7, 6));
}

#[test]
fn patches_are_merge_patches_applied_in_order() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let patch = |patches: &[&str]| {
        patches.iter().fold(Request::get("/"), |request, patch| request.respond("x-session-patch", patch))
    };
    browser.send(patch(&[r#"{"a":{"c":3},"tmp":1}"#]));
    // These two do not compose into one merge patch: the first makes a number of what the second extends.
    let response = browser.send(patch(&[r#"{"a":1,"tmp":null}"#, r#"{"a":{"b":2}}"#]));
    assert_eq!(response.all("x-session-patch"), [""; 0]);
    let seen = browser.get("/").seen();
    assert_eq!((seen.data(), seen.version()), (json!({"a": {"b": 2}}), 2));
}

#[test]
fn any_unicode_and_any_control_character_in_data_comes_back_as_it_was() {
    let mesh = Mesh::with(json!({"upstream": {"max_data_bytes": 20_000}}));
    let mut browser = mesh.browser();
    let text: String = (0..=0x2ff_u32)
        .chain([0x2028, 0xd7ff, 0xe000, 0xfeff, 0xfffd, 0xffff, 0x1_0000, 0x1_f600, 0x10_ffff])
        .filter_map(char::from_u32)
        .collect();
    let data = json!({ text.clone(): text, "crlf": "a\r\nset-cookie: b=c\r\n\r\n" });
    let written = browser.send(Request::get("/").respond("x-session-patch", ascii(&data)));
    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(written.all("set-cookie").len(), 1);
    let seen = browser.get("/").seen();
    assert_eq!(seen.data(), data);
    assert_eq!(mesh.gateway.data(&seen.id()), Some(data));

    // Also when the upstream writes the characters themselves: a header value is bytes.
    let raw = json!({"greeting": "grüß dich, 世界 🎉"});
    browser.send(Request::get("/").respond("x-session-patch", raw.to_string()));
    assert_eq!(browser.get("/").seen().data()["greeting"], raw["greeting"]);
}

#[test]
fn data_over_the_limit_is_left_out_and_said_to_be() {
    let mesh = Mesh::with(json!({"upstream": {"max_data_bytes": 100}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", json!({"text": "x".repeat(100)}).to_string()));
    let seen = browser.get("/").seen();
    assert_eq!(seen.all("x-session-data"), [""; 0]);
    assert_eq!(seen.one("x-session-data-omitted"), r#"{"text":""}"#.len().saturating_add(100).to_string());
}

#[test]
fn data_is_exposed_under_the_headers_of_the_configuration() {
    let mesh = Mesh::with(json!({"upstream": {"expose": {"user": "x-user"}}}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").header("x-user", "mallory").respond("x-session-patch", r#"{"user":"alice"}"#));
    let seen = browser.send(Request::get("/").header("x-user", "mallory")).seen();
    assert_eq!((seen.one("x-user"), seen.one("x-session-subject")), ("alice".to_owned(), "alice".to_owned()));

    let anonymous = mesh.browser().send(Request::get("/").header("x-user", "mallory")).seen();
    assert_eq!(anonymous.all("x-user"), [""; 0]);
}

#[test]
fn concurrent_writes_of_one_browser_all_arrive() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":0}"#));
    let port = mesh.envoy.port();
    let tabs: Vec<_> = (0..20)
        .map(|n| {
            let request = browser.with_cookies(Request::get("/"));
            let request = request.respond("x-session-patch", format!(r#"{{"tab{n}":true}}"#));
            thread::spawn(move || request.send(port).status)
        })
        .collect();
    for tab in tabs {
        assert_eq!(tab.join().unwrap(), 200);
    }
    let seen = browser.get("/").seen();
    assert_eq!(seen.version(), 21);
    let data = seen.data();
    for n in 0..20 {
        assert_eq!(data[format!("tab{n}")], true, "tab {n} in {data}");
    }
}

/// JSON without anything that can't stand in a header.
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if matches!(character, ' '..='~') {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").unwrap();
            }
        }
    }
    text
}
