//! Rules for paths, and tokens that are bound to a client's properties.

use serde_json::{Value, json};
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

fn rules() -> Value {
    json!({"rules": [
        {"path_prefix": "/static/", "session": "off"},
        {"path_prefix": "/account/", "session": "required", "redirect": "/login"},
        {"path_prefix": "/api/", "session": "required"},
        {"path_prefix": "/pay/", "session": "strict"},
    ]})
}

#[test]
fn static_files_have_no_session() {
    let mesh = Mesh::with(rules());
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    for visitor in [&mut browser, &mut mesh.browser()] {
        let calls = mesh.gateway.calls();
        let forged = Request::get("/static/a.css").header("x-session-id", "mallory").header("x_session_id", "mallory");
        let response = visitor.send(forged.respond("cache-control", "public").respond("set-cookie", "a=1"));
        assert_eq!(response.header("cache-control").unwrap(), "public");
        assert_eq!(response.all("set-cookie"), ["a=1"]);
        let seen = response.seen();
        assert!(!seen.headers().iter().any(|(name, _)| name.replace('_', "-").starts_with("x-session-")), "{seen:?}");
        assert!(!seen.all("cookie").concat().contains(SESSION_COOKIE), "{seen:?}");
        assert_eq!(mesh.gateway.calls(), calls);
    }
}

#[test]
fn some_paths_need_a_login() {
    let mesh = Mesh::with(rules());
    let mut browser = mesh.browser();
    for path in ["/account/", "/account/x?y", "/account//x", "/%61ccount/x", "/x/../account/x"] {
        let response = browser.get(path);
        assert_eq!(response.status / 100, 3, "{path}");
        assert!(response.header("location").unwrap().starts_with("/login"), "{path}");
    }
    assert_eq!(browser.get("/api/x").status, 401);
    browser.send(Request::get("/").respond("x-session-patch", r#"{"cart":1}"#));
    assert_eq!(browser.get("/api/x").status, 401, "a session without a subject is no login");
    assert_eq!(mesh.app.requests(), 1);

    browser.send(Request::get("/login").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(browser.get("/account/").seen().one("x-session-subject"), "alice");
    assert_eq!(browser.get("/api/x").status, 200);
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":null}"#));
    assert_eq!(browser.get("/api/x").status, 401);
}

#[test]
fn a_sensitive_path_needs_a_recent_login() {
    let mesh = Mesh::with(json!({
        "upstream": {"auth_time": true},
        "rules": [{"path_prefix": "/password/", "session": "required", "redirect": "/login", "max_age": "1s", "strict": true}]
    }));
    let mut browser = mesh.browser();
    let location = |response: &Response| response.header("location");
    assert_eq!(location(&browser.get("/password/")).unwrap(), "/login?return_to=/password/");
    browser.send(Request::get("/login").respond("x-session-patch", r#"{"user":"alice"}"#));
    let login: u64 = browser.get("/").seen().one("x-session-auth-time").parse().unwrap();
    let refused = wait::until("the login is too old", || location(&browser.get("/password/")));
    assert_eq!(refused, "/login?max_age=1&return_to=/password/");
    assert_eq!(browser.get("/").seen().one("x-session-subject"), "alice");

    browser.send(Request::get("/login").respond("x-session-control", "authenticated"));
    assert_eq!(browser.get("/password/").status, 200);
    let again: u64 = browser.get("/").seen().one("x-session-auth-time").parse().unwrap();
    assert!(again > login, "{again} {login}");
}

#[test]
fn a_strict_path_never_trusts_a_copy() {
    let mesh = Mesh::with(rules());
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    assert_eq!(browser.get("/").seen().state(), "active");
    assert_eq!(mesh.gateway.call(Request::new("DELETE", &format!("/v1/sessions/{id}"))).status, 204);
    assert_eq!(browser.clone().get("/pay/").seen().state(), "expired");
}

#[test]
fn a_bound_token_is_worthless_in_another_browser() {
    let mesh = Mesh::with(json!({"bind": ["request.useragent"]}));
    let mut browser = mesh.browser();
    let with_agent = |agent: &str| Request::get("/").header("user-agent", agent);
    let id = browser.send(with_agent("one").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    assert_eq!(browser.send(with_agent("one")).seen().id(), id);
    for stolen in [with_agent("two"), Request::get("/")] {
        let seen = browser.with_cookies(stolen).send(mesh.envoy.port()).seen();
        assert_ne!(seen.id(), id);
        assert_eq!((seen.state(), seen.data()), ("new".to_owned(), json!({})));
    }
    assert_eq!(browser.send(with_agent("one")).seen().data(), json!({"n": 1}));
}
