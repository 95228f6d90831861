//! Whatever an upstream sends has a clear outcome, and the worker keeps serving.

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;

const BROKEN_PATCHES: [&[u8]; 9] = [
    b"{",
    b"",
    b"null",
    b"[1]",
    b"\"text\"",
    b"{\"a\":\xff}",
    b"\xff\xfe",
    b"{\"a\":1}{\"b\":2}",
    b"{\"a\":{\"$serde_json::private::Number\":\"1\"}}",
];

#[test]
fn a_broken_patch_fails_and_changes_nothing() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    for patch in BROKEN_PATCHES {
        // A good one beside it is not saved, either.
        let request = Request::get("/").respond("x-session-patch", r#"{"good":1}"#).respond("x-session-patch", patch);
        let answer = browser.send(request);
        assert_eq!(answer.status, 502, "{:?}", String::from_utf8_lossy(patch));
        let seen = browser.get("/").seen();
        assert_eq!((seen.version(), seen.data()), (1, json!({"n": 1})));
    }
    let broken = u64::try_from(BROKEN_PATCHES.len()).unwrap();
    mesh.envoy.until_counted("writes_failed.invalid", broken);
    assert_eq!(mesh.envoy.counter("writes_failed.invalid"), broken);
}

#[test]
fn a_broken_patch_may_be_delivered_with_a_word_about_it() {
    let mesh = Mesh::with(json!({"on_write_failure": "deliver"}));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    for patch in BROKEN_PATCHES {
        let answer = browser.send(Request::get("/").respond("x-session-patch", patch));
        assert_eq!((answer.status, answer.header("x-session-error").unwrap().as_str()), (200, "invalid-patch"));
        assert_eq!(answer.all("x-session-patch"), [""; 0]);
    }
    let control = browser.send(Request::get("/").respond("x-session-control", "explode"));
    assert_eq!(control.header("x-session-error").unwrap(), "invalid-patch");
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

#[test]
fn a_patch_of_hostile_depth_or_size_is_refused() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(2000), "}".repeat(2000));
    assert_eq!(browser.send(Request::get("/").respond("x-session-patch", deep)).status, 502);

    // 64 KiB of data is the gateway's limit; each of these is under Envoy's for headers.
    let mut statuses = Vec::new();
    for n in 0..4 {
        let patch = json!({ format!("part{n}"): "x".repeat(20_000) }).to_string();
        statuses.push(browser.send(Request::get("/").respond("x-session-patch", patch)).status);
    }
    assert_eq!(statuses, [200, 200, 200, 502]);
    mesh.envoy.until_counted("writes_failed.too_large", 1);
    assert_eq!(mesh.envoy.counter("writes_failed.too_large"), 1);
    assert_eq!(browser.get("/").status, 200);
}

#[test]
fn headers_that_are_not_utf8_pass_through() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.get("/");
    let request = Request::get("/")
        .respond("x-odd", b"\xff\xfe\x80")
        .respond("set-cookie", b"name=\xff\xfe")
        .respond("cache-control", b"\xff, max-age=1")
        .respond("x-session-patch", r#"{"n":1}"#);
    let answer = mesh.browser().send(request);
    assert_eq!(answer.status, 200);
    let has = |name: &str, value: &[u8]| answer.headers.iter().any(|(n, v)| n == name && v == value);
    assert!(has("x-odd", b"\xff\xfe\x80") && has("set-cookie", b"name=\xff\xfe"), "{:?}", answer.headers);
    assert!(has("cache-control", b"\xff, max-age=1, private"), "{:?}", answer.headers);
    for control in [b"\xff".as_slice(), b"", b"rotate, destroy"] {
        let answer = browser.send(Request::get("/").respond("x-session-control", control));
        assert_eq!(answer.status, 502, "{control:?}");
    }
    assert_eq!(browser.get("/").status, 200);
}

#[test]
fn our_cookie_is_ours_to_set() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.get("/");
    let request = Request::get("/")
        .respond("set-cookie", "a=1; Path=/")
        .respond("set-cookie", format!("{SESSION_COOKIE}=planted; Path=/; Secure"))
        .respond("set-cookie", format!(" {SESSION_COOKIE} = planted"))
        .respond("set-cookie", format!("{SESSION_COOKIE}=; Max-Age=0"))
        .respond("set-cookie", "b=2; HttpOnly");
    let answer = browser.send(request.clone());
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2; HttpOnly"]);
    let first = mesh.browser().send(request);
    let cookies = first.all("set-cookie");
    assert_eq!((cookies.len(), cookies.iter().filter(|cookie| cookie.starts_with(SESSION_COOKIE)).count()), (3, 1));
}

#[test]
fn an_upstream_can_not_speak_to_the_client_in_our_name() {
    let mesh = Mesh::start();
    let answer = mesh.browser().send(Request::get("/").respond("x-session-error", "store-unavailable"));
    assert_eq!((answer.status, answer.all("x-session-error")), (200, vec![]));
}

#[test]
fn an_upstream_that_is_gone_costs_no_session() {
    let mesh = Mesh::configured(|envoy| envoy.cluster("other", &[session_mesh_e2e::ports::free()]));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    assert_eq!(browser.get("/other/").status, 503);
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}
