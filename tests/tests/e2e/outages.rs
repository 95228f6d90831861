//! The gateway or its store is down: no user is logged out, and nothing seems to be saved that is not.

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

/// A setup whose Envoy has no copies of sessions to fall back on.
fn uncached(plugin: Value) -> Mesh {
    let mut patch = json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}});
    let (Value::Object(all), Value::Object(more)) = (&mut patch, plugin) else {
        panic!("objects");
    };
    all.extend(more);
    Mesh::with(patch)
}

fn stored(mesh: &Mesh) -> Browser {
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
    browser
}

fn assert_denied(mesh: &Mesh, browser: &mut Browser) {
    let requests = mesh.app.requests();
    let answer = browser.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(answer.all("set-cookie"), [""; 0], "a valid cookie must not be touched");
    assert_eq!(mesh.app.requests(), requests, "the upstream must not see the request");
}

#[test]
fn without_a_gateway_requests_are_denied_and_no_user_is_logged_out() {
    let mut mesh = uncached(json!({"on_store_failure": "deny", "gateway": {"timeout": "1s"}}));
    // What is in memory would be lost with the process, so this outage is a hang.
    let mut browser = stored(&mesh);
    mesh.gateway.process().pause();
    assert_denied(&mesh, &mut browser);
    mesh.gateway.process().resume();
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));

    mesh.gateway.stop();
    assert_denied(&mesh, &mut browser);
    mesh.envoy.until_counted("requests.denied", 2);
    mesh.envoy.until_counted("lookups.unavailable", 2);
}

#[test]
fn something_else_on_the_gateways_port_says_nothing_about_sessions() {
    // The application answers every call with 200, or with 404, but it is no gateway.
    let mesh = uncached(json!({}));
    let mut browser = stored(&mesh);
    let impostor = Mesh::configured(|envoy| envoy.cluster("session_gateway", &[mesh.app.port()]));
    let answer = browser.with_cookies(Request::get("/")).send(impostor.envoy.port());
    assert_eq!((answer.status, answer.all("set-cookie").len()), (503, 0));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

#[test]
fn continue_forwards_and_says_that_nothing_is_known() {
    let mut mesh = uncached(json!({"on_store_failure": "continue"}));
    let mut browser = stored(&mesh);
    let id = browser.get("/").seen().id();
    mesh.gateway.stop();
    let answer = browser.get("/");
    assert_eq!((answer.status, answer.seen().state(), answer.seen().id()), (200, "unavailable".to_owned(), id));
    assert_eq!(answer.seen().all("x-session-data"), [""; 0]);
    assert_eq!(answer.all("set-cookie"), [""; 0]);
}

#[test]
fn anonymous_visitors_do_not_notice_an_outage() {
    let mut mesh = uncached(json!({}));
    let mut known = mesh.browser();
    let id = known.get("/").seen().id();
    mesh.gateway.stop();
    assert_eq!((known.get("/").status, known.get("/").seen().id()), (200, id));
    let first = mesh.browser().get("/");
    assert_eq!((first.status, first.seen().state(), first.all("set-cookie").len()), (200, "new".to_owned(), 1));
}

#[test]
fn an_eager_session_that_cannot_be_stored_gets_no_cookie() {
    let mut mesh = uncached(json!({"create": "eager"}));
    mesh.gateway.stop();
    let answer = mesh.browser().get("/");
    assert_eq!((answer.status, answer.all("set-cookie").len()), (503, 0));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn an_eager_session_that_cannot_be_stored_may_go_on_without() {
    let mut mesh = uncached(json!({"create": "eager", "on_store_failure": "continue"}));
    mesh.gateway.stop();
    let answer = mesh.browser().get("/");
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
}

#[test]
fn a_write_that_fails_is_not_pretended_to_be_saved() {
    let mut mesh = uncached(json!({"on_write_failure": "fail"}));
    let mut browser = mesh.browser();
    browser.get("/");
    let token = browser.token();
    mesh.gateway.stop();
    let answer = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!(answer.status, 503);
    assert_eq!(answer.all("set-cookie"), [""; 0]);
    assert_eq!(browser.token(), token);
    mesh.envoy.until_counted("writes_failed.unavailable", 1);
    assert_eq!(mesh.envoy.counter("writes_failed.unavailable"), 1);
}

#[test]
fn a_write_that_fails_may_be_delivered_with_a_word_about_it() {
    let mut mesh = uncached(json!({"on_write_failure": "deliver"}));
    let mut browser = mesh.browser();
    browser.get("/");
    mesh.gateway.stop();
    let answer = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!((answer.status, answer.header("x-session-error").unwrap().as_str()), (200, "store-unavailable"));
    assert_eq!(answer.all("set-cookie"), [""; 0]);
}

#[test]
fn memcached_away_is_an_outage_and_memcached_back_is_the_end_of_it() {
    let mut memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}}))
            .cluster("session_gateway", &[gateway.port()])
    });
    let mut browser = stored(&mesh);
    let token = browser.token();
    memcached.stop();
    assert_denied(&mesh, &mut browser);
    assert_eq!(browser.token(), token);

    // It comes back empty: now the session is known to be gone, which is something else.
    memcached.start_again();
    let seen = wait::until("the gateway finds memcached again", || {
        let answer = browser.with_cookies(Request::get("/")).send(mesh.envoy.port());
        (answer.status == 200).then(|| answer.seen())
    });
    assert_eq!((seen.state(), seen.data()), ("expired".to_owned(), json!({})));
}
