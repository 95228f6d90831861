//! The session filter together with Envoy's own responses, redirects and retries, and with other filters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::built;
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::envoy::Configuration;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::scripted::Scripted;
use session_mesh_e2e::upstream::Upstream;
use session_mesh_e2e::wait;
use tempfile::TempDir;

fn lua(code: &str) -> Value {
    json!({"name": "lua", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": code},
    }})
}

/// A filter that answers requests with `x-stop`.
fn stopping() -> Value {
    lua(r#"
function envoy_on_request(handle)
  if handle:headers():get("x-stop") then
    handle:respond({[":status"] = "418", ["x-session-patch"] = '{"lua":1}'}, "stopped")
  end
end
"#)
}

fn stored(mesh: &Mesh) -> Browser {
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    browser
}

#[test]
fn an_answer_of_a_filter_in_front_has_no_session_and_does_no_harm() {
    let mesh = Mesh::configured(|envoy| envoy.filter_in_front(stopping()));
    let mut browser = stored(&mesh);
    let token = browser.token();
    let calls = mesh.gateway.calls();
    let answer = browser.send(Request::get("/").header("x-stop", "1"));
    assert_eq!((answer.status, answer.all("set-cookie"), answer.text().as_str()), (418, vec![], "stopped"));
    let first = mesh.browser().send(Request::get("/").header("x-stop", "1"));
    assert_eq!((first.status, first.all("set-cookie")), (418, vec![]));
    assert_eq!((browser.token(), mesh.gateway.calls()), (token, calls));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

#[test]
fn an_answer_of_a_filter_behind_is_treated_like_an_upstreams() {
    let mesh = Mesh::configured(|envoy| envoy.filter_behind(stopping()));
    let mut browser = stored(&mesh);
    let answer = browser.send(Request::get("/").header("x-stop", "1"));
    assert_eq!((answer.status, answer.all("x-session-patch")), (418, vec![]));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1, "lua": 1}));
}

#[test]
fn a_direct_response_has_a_session_too() {
    let route = json!({
        "match": {"path": "/direct"},
        "direct_response": {"status": 200, "body": {"inline_string": "direct"}},
        "response_headers_to_add": [{"header": {"key": "x-direct", "value": "1"}}],
    });
    let mesh = Mesh::configured(|envoy| envoy.routes(vec![route]));
    let mut browser = mesh.browser();
    let first = browser.get("/direct");
    assert_eq!((first.status, first.text().as_str(), first.all("set-cookie").len()), (200, "direct", 1));
    assert_eq!(first.header("cache-control").unwrap(), "private");
    assert_eq!(browser.get("/direct").all("set-cookie"), [""; 0]);
    assert_eq!(mesh.app.requests(), 0);
}

#[test]
fn a_retry_of_the_router_is_one_request_and_one_write() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let server = Scripted::start(move |mut connection: Connection| {
        while let Some(head) = connection.head() {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            let status = if attempt == 0 { "503 Service Unavailable" } else { "200 OK" };
            let shown = head.header("x-session-data").unwrap_or_default();
            connection.send(format!(
                "HTTP/1.1 {status}\r\nx-session-patch: {{\"attempt{attempt}\":1}}\r\nx-shown: {shown}\r\ncontent-length: 0\r\n\r\n"
            ));
        }
    });
    let route = json!({
        "match": {"prefix": "/flaky"},
        "route": {"cluster": "other", "retry_policy": {"retry_on": "5xx", "num_retries": 3}},
    });
    let mesh = Mesh::configured(|envoy| envoy.routes(vec![route]).cluster("other", &[server.port()]));
    let mut browser = stored(&mesh);
    let answer = browser.get("/flaky");
    assert_eq!((answer.status, answer.header("x-shown").unwrap().as_str()), (200, r#"{"n":1}"#));
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    let seen = browser.get("/").seen();
    assert_eq!((seen.version(), seen.data()), (2, json!({"n": 1, "attempt1": 1})));
}

#[test]
fn an_internal_redirect_arrives_as_a_new_visitor_and_leaves_the_cookie_alone() {
    let server = Scripted::start(|mut connection: Connection| {
        while let Some(head) = connection.head() {
            let shown = format!(
                "{} {} {}",
                head.header("x-session-state").unwrap_or_default(),
                head.header("x-session-id").unwrap_or_default(),
                head.header("x-session-data").unwrap_or_default()
            );
            let to = if head.line.contains("/old") {
                "302 Found\r\nlocation: http://e2e.test/moved/new\r\nx-session-patch: {\"redirect\":1}"
            } else {
                "200 OK"
            };
            connection.send(format!("HTTP/1.1 {to}\r\nx-shown: {shown}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let route = json!({
        "match": {"prefix": "/moved/"},
        "route": {"cluster": "other", "internal_redirect_policy": {
            "max_internal_redirects": 1, "redirect_response_codes": [302], "allow_cross_scheme_redirect": true,
        }},
    });
    let mesh = Mesh::configured(|envoy| envoy.routes(vec![route]).cluster("other", &[server.port()]));
    let mut browser = stored(&mesh);
    let id = browser.get("/").seen().id();
    let token = browser.token();
    let answer = browser.get("/moved/old");
    assert_eq!(answer.status, 200);
    // The filter runs again on the request that it sent on, and the token is no longer in it.
    let shown = answer.header("x-shown").unwrap();
    assert!(shown.starts_with("new ") && shown.ends_with(" {}") && !shown.contains(&id), "{shown}");
    assert_eq!(answer.all("set-cookie"), Vec::<String>::new());
    assert_eq!(browser.token(), token);
    // What the first upstream wrote with its redirect was never a response, and is not saved.
    assert_eq!(mesh.gateway.data(&id), Some(json!({"n": 1})));
}

#[test]
fn a_filter_behind_can_decide_by_the_sessions_state() {
    let known = json!({"permissions": [{"any": true}], "principals": [
        {"filter_state": {"key": "wasm.session_state", "string_match": {"exact": "active"}}},
    ]});
    let rbac = json!({"name": "rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"known": known}},
    }});
    let mesh = Mesh::configured(|envoy| envoy.filter_behind(rbac));
    let mut browser = mesh.browser();
    let forged = Request::get("/").header("x-session-state", "active");
    let first = browser.send(forged);
    assert_eq!((first.status, first.all("set-cookie").len()), (403, 1));
    assert_eq!(browser.get("/").seen().state(), "active");
}

/// The example of docs/operations.md, as it is printed there.
#[test]
fn the_documented_rbac_filter_lets_only_active_sessions_through() {
    let page = std::fs::read_to_string(built::root().join("docs/operations.md")).unwrap();
    let (_, rest) = page.split_once("```yaml\n- name: envoy.filters.http.rbac\n").expect("the example is there");
    let (example, _) = rest.split_once("```").unwrap();
    let example = format!("name: envoy.filters.http.rbac\n{}", example.replace("\n  ", "\n").trim_start());
    let rbac: Value = serde_saphyr::from_str(&example).unwrap();
    let mesh = Mesh::configured(|envoy| envoy.filter_behind(rbac));
    let mut browser = mesh.browser();
    assert_eq!(browser.get("/checkout/").status, 403, "new");
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let active = browser.get("/checkout/");
    assert_eq!(active.status, 200, "active");
    let session = format!("/v1/sessions/{}", active.seen().id());
    assert_eq!(mesh.gateway.call(Request::new("DELETE", &session)).status, 204);
    wait::until("the copy is over", || (browser.clone().get("/checkout/").status == 403).then_some(()));
    assert_eq!(browser.get("/").status, 200);
}

/// Envoy's codecs let no such name in. Where another filter makes one, reading the headers ends the filter's VM.
#[test]
fn a_name_that_is_not_utf8_from_a_filter_in_front_fails_its_request_and_the_next_ones_have_a_new_vm() {
    let odd = lua(r#"
function envoy_on_request(handle)
  if handle:headers():get("x-odd") then
    handle:headers():add("x-\255", "1")
  end
end
"#);
    let (app, folder) = (Upstream::start(), TempDir::new().unwrap());
    let configuration = Configuration::read().cluster("app", &[app.port()]).filter_in_front(odd);
    let (port, admin_port) = (configuration.listener_port(), configuration.admin_port());
    let mut envoy = configuration.process(folder.path());
    envoy.until(|| Request::get("/ready").try_send(admin_port).filter(|answer| answer.status == 200));
    let asked_with = |name| Request::get("/").header(name, "1").send(port);
    assert_eq!(asked_with("x-even").seen().state(), "new");
    assert_eq!((asked_with("x-odd").status, app.requests()), (503, 1));
    // For a second after it was loaded again, it would not be.
    wait::until("the filter is loaded again", || (asked_with("x-even").status == 200).then_some(()));
    assert_eq!(asked_with("x-even").seen().state(), "new");
}
