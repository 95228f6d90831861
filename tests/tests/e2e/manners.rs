//! Behaviour towards browsers, scripts, caches and gRPC clients.

use serde_json::{Value, json};
use session_mesh_e2e::http::{Request, Response, exchange};
use session_mesh_e2e::mesh::Mesh;

const ORIGIN: &str = "https://app.example";

fn preflight(path: &str) -> Request {
    Request::new("OPTIONS", path).header("origin", ORIGIN).header("access-control-request-method", "PUT")
}

#[test]
fn a_preflight_passes_and_has_no_session() {
    let mesh = Mesh::with(json!({"create": "eager", "rules": [{"path_prefix": "/api/", "session": "required"}]}));
    let response = preflight("/api/x").header("x-session-subject", "root").send(mesh.envoy.port());
    assert_eq!((response.status, response.all("set-cookie")), (200, vec![]));
    let seen = response.seen();
    assert!(!seen.headers().iter().any(|(name, _)| name.starts_with("x-session-")), "{seen:?}");
    assert_eq!(mesh.gateway.calls(), 0);
    assert_eq!(Request::get("/api/x").header("origin", ORIGIN).send(mesh.envoy.port()).status, 401);
}

#[test]
fn scripts_get_401_where_pages_are_redirected() {
    let mesh = Mesh::with(json!({"rules": [{"path_prefix": "/a/", "session": "required", "redirect": "/login"}]}));
    let status = |name: &str, value: &str| Request::get("/a/").header(name, value).send(mesh.envoy.port()).status;
    assert_eq!(status("accept", "text/html,*/*;q=0.8"), 302);
    assert_eq!(status("sec-fetch-mode", "navigate"), 302);
    assert_eq!(status("sec-fetch-mode", "cors"), 401);
    assert_eq!(status("x-requested-with", "XMLHttpRequest"), 401);
    assert_eq!(status("accept", "application/json"), 401);
    assert_eq!(status("content-type", "application/grpc-web"), 401);
}

#[test]
fn a_response_with_our_cookie_stays_out_of_cdns() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let page = || {
        let page = Request::get("/").respond("cache-control", "must-understand, no-store, max-age=60");
        let page =
            page.respond("CDN-Cache-Control", "max-age=60").respond("cloudflare-cdn-cache-control", "max-age=60");
        page.respond("surrogate-control", "max-age=60").respond("x-accel-expires", "60")
    };
    let first = browser.send(page());
    assert_eq!(first.all("set-cookie").len(), 1);
    assert_eq!(first.header("cache-control").unwrap(), "must-understand, no-store, max-age=60, private");
    for name in ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control"] {
        assert_eq!(first.header(name).unwrap(), "no-store", "{name}");
    }
    assert_eq!(first.header("x-accel-expires").unwrap(), "0");
    assert_eq!(browser.send(page()).header("cdn-cache-control").unwrap(), "max-age=60");
}

#[test]
fn a_grpc_call_with_a_bad_patch_does_not_look_retryable() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let mut call = |patch: &str| {
        let call = Request::new("POST", "/pkg.Service/Method").header("content-type", "application/grpc").body("x");
        browser.send(call.respond("x-session-patch", patch))
    };
    let bad = call("nonsense");
    assert_eq!((bad.status, bad.header("grpc-status").as_deref()), (200, Some("13")), "{:?}", bad.headers);
    assert_eq!(bad.header("x-session-error").as_deref(), Some("invalid-patch"));
    let half = "x".repeat(40_000);
    assert_eq!(call(&format!(r#"{{"a":"{half}"}}"#)).header("grpc-status"), None);
    let large = call(&format!(r#"{{"b":"{half}"}}"#));
    assert_eq!(large.header("grpc-status").as_deref(), Some("13"));
    assert_eq!(large.header("x-session-error").as_deref(), Some("data-too-large"));
}

#[test]
fn a_grpc_call_without_a_store_or_a_login_says_which() {
    let mut mesh = Mesh::with(json!({"rules": [{"path_prefix": "/pkg.Private/", "session": "required"}]}));
    let call = |port, path: &str| {
        let call = Request::new("POST", path).header("content-type", "application/grpc").body("x");
        call.respond("x-session-patch", r#"{"n":1}"#).send(port).header("grpc-status")
    };
    assert_eq!(call(mesh.envoy.port(), "/pkg.Private/Method").as_deref(), Some("16"));
    mesh.gateway.stop();
    assert_eq!(call(mesh.envoy.port(), "/pkg.Service/Method").as_deref(), Some("14"));
}

#[test]
fn an_error_in_place_of_a_response_can_be_read_by_scripts() {
    let mesh = Mesh::start();
    let request = Request::get("/").header("origin", ORIGIN).respond("x-session-patch", "nonsense");
    let request = request.respond("access-control-allow-origin", ORIGIN).respond("access-control-expose-headers", "x");
    let response = request.respond("vary", "origin").respond("x-private", "1").send(mesh.envoy.port());
    assert_eq!((response.status, response.header("x-session-error").as_deref()), (502, Some("invalid-patch")));
    assert_eq!(response.header("access-control-allow-origin").as_deref(), Some(ORIGIN));
    assert_eq!(response.header("access-control-expose-headers").as_deref(), Some("x"));
    assert_eq!((response.header("vary").as_deref(), response.all("x-private")), (Some("origin"), vec![]));
}

fn cors(name: &str) -> Value {
    json!({"name": name, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}})
}

/// Envoy's own `cors` filter in front of ours answers preflights and makes our answers to requests readable; behind
/// ours it makes our answers in place of responses readable. Both places together cover all.
#[test]
fn envoys_cors_filter_stands_on_both_sides() {
    let policy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": ORIGIN}], "allow_methods": "PUT", "allow_credentials": true,
    });
    let readable = |response: &Response| response.header("access-control-allow-origin").as_deref() == Some(ORIGIN);
    for (in_front, behind) in [(true, false), (false, true), (true, true)] {
        let route = json!({
            "match": {"prefix": "/"}, "route": {"cluster": "app"},
            "typed_per_filter_config": {"cors": policy, "cors-behind": policy},
        });
        let mesh = Mesh::configured(|envoy| {
            let rules = json!({"rules": [{"path_prefix": "/api/", "session": "required"}]});
            let mut envoy = envoy.plugin(rules).routes(vec![route]);
            if behind {
                envoy = envoy.filter_behind(cors("cors-behind"));
            }
            if in_front {
                envoy = envoy.filter_in_front(cors("cors"));
            }
            envoy
        });
        let port = mesh.envoy.port();
        let asked = preflight("/api/x").send(port);
        assert!(asked.status == 200 && readable(&asked) && asked.all("set-cookie").is_empty(), "{:?}", asked.headers);
        assert_eq!(mesh.app.requests(), 0);
        let refused = Request::get("/api/x").header("origin", ORIGIN).send(port);
        let failed = Request::get("/").header("origin", ORIGIN).respond("x-session-patch", "nonsense").send(port);
        assert_eq!((refused.status, failed.status), (401, 502));
        assert_eq!((readable(&refused), readable(&failed)), (in_front, behind), "{in_front} {behind}");
    }
}

#[test]
fn a_rule_may_be_for_a_host() {
    let mesh = Mesh::with(json!({"rules": [
        {"path_prefix": "/", "hosts": ["admin.example", "*.intra.example"], "session": "required"},
        {"path_prefix": "/", "hosts": ["cdn.example"], "session": "off"},
    ]}));
    let get = |host: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        exchange(mesh.envoy.port(), request.as_bytes()).expect("an answer")
    };
    for host in ["admin.example", "ADMIN.example:8080", "admin.example.", "a.b.intra.example"] {
        assert_eq!(get(host).status, 401, "{host}");
    }
    for host in ["www.example", "intra.example", "xadmin.example"] {
        assert_eq!(get(host).seen().state(), "new", "{host}");
    }
    assert_eq!(get("CDN.example").seen().all("x-session-state"), [""; 0]);
}

#[test]
fn numbers_keep_their_digits() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    let data = r#"{"d":0.10,"n":12345678901234567890123}"#;
    browser.send(Request::get("/").respond("x-session-patch", data));
    browser.send(Request::get("/").respond("x-session-patch", r#"{"z":1}"#));
    browser.send(Request::get("/").respond("x-session-patch", r#"{"z":null}"#));
    assert_eq!(browser.get("/").seen().one("x-session-data"), data);
    for (user, status) in [("1", 200), ("1.0", 502), ("1e0", 502)] {
        let patch = format!(r#"{{"user":{user}}}"#);
        assert_eq!(mesh.browser().send(Request::get("/").respond("x-session-patch", patch)).status, status, "{user}");
    }
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":12345678901234567890124}"#));
    assert_eq!(browser.get("/").seen().one("x-session-subject"), "12345678901234567890124");
}
