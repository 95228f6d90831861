//! Every way in which the gateway can fail, combined with everything that a request may need and with the policies.
//!
//! The rows are what can happen to a callout (no way to send it, no connection, no answer, half an answer, another
//! server's answer). In every row, a read, a write and a logout have one outcome each per policy, an outage neither
//! replaces nor clears a cookie, and the same cookie opens the same session once the gateway is back.

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::detour::{Detour, Way};
use session_mesh_e2e::envoy::Configuration;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

use crate::tokens::Token;

/// A path whose session is never taken from the cache: a read there meets the failure.
const ASKS: &str = "/strict/";
/// A path whose session is in the cache: only what is done to the session meets the failure.
const CACHED: &str = "/";
/// How much of an answer Envoy takes, in bytes; 32 MiB unless it is told.
const ANSWER_LIMIT: u32 = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Policy {
    on_store_failure: &'static str,
    on_write_failure: &'static str,
}

impl Policy {
    fn plugin(self) -> Value {
        json!({
            "on_store_failure": self.on_store_failure,
            "on_write_failure": self.on_write_failure,
            "cache": {"ttl": "10m"},
            "rules": [{"path_prefix": ASKS, "session": "strict"}],
        })
    }
}

#[test]
fn deny_and_fail() {
    fails_in_every_way(Policy { on_store_failure: "deny", on_write_failure: "fail" });
}

#[test]
fn deny_and_deliver() {
    fails_in_every_way(Policy { on_store_failure: "deny", on_write_failure: "deliver" });
}

#[test]
fn continue_and_fail() {
    fails_in_every_way(Policy { on_store_failure: "continue", on_write_failure: "fail" });
}

#[test]
fn continue_and_deliver() {
    fails_in_every_way(Policy { on_store_failure: "continue", on_write_failure: "deliver" });
}

#[test]
fn deny_and_fail_where_no_call_can_be_sent() {
    can_not_even_be_asked(Policy { on_store_failure: "deny", on_write_failure: "fail" });
}

#[test]
fn continue_and_deliver_where_no_call_can_be_sent() {
    can_not_even_be_asked(Policy { on_store_failure: "continue", on_write_failure: "deliver" });
}

/// An answer of a gateway, with its marker and all that belongs to the session that was asked for.
fn gateway_answers(status: &str, length: usize, body: &str) -> Vec<u8> {
    gateway_answers_about("session-id: {id}\r\n", status, length, body)
}

fn gateway_answers_about(id: &str, status: &str, length: usize, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nsession-gateway: 1\r\n{id}etag: \"7\"\r\nsession-min-version: 1\r\nsession-created: 1\r\n\
         session-expires: 99999999999\r\nsession-idle: 1800\r\nsession-absolute: 43200\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn another_server_answers(status: &str, headers: &str, body: &str) -> Way {
    let length = body.len();
    Way::Answer(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())
}

/// What can go wrong behind a cluster that is there.
fn failures_on_the_way() -> Vec<(&'static str, Way)> {
    let half = || gateway_answers("200 OK", 100, r#"{"n":"#);
    let too_much = format!(r#"{{"n":"{}"}}"#, "x".repeat(usize::try_from(ANSWER_LIMIT).unwrap()));
    let chunked = "HTTP/1.1 200 OK\r\nsession-gateway: 1\r\nsession-id: {id}\r\netag: \"7\"\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"n\":\r\n";
    let no_version = "HTTP/1.1 200 OK\r\nsession-gateway: 1\r\nsession-id: {id}\r\ncontent-length: 2\r\n\r\n{}";
    let another = "session-id: 0123456789abcdef0123456789abcdef\r\n";
    vec![
        ("connection refused", Way::Refused),
        ("reset before the headers", Way::Reset),
        ("closed before the headers", Way::Answer(Vec::new())),
        ("closed within the headers", Way::Answer(b"HTTP/1.1 200 OK\r\nsession-gate".to_vec())),
        ("no answer in time", Way::Silent),
        ("no end of the headers in time", Way::AnswerAndHang(b"HTTP/1.1 200 OK\r\nsession-gate".to_vec())),
        ("no end of the body in time", Way::AnswerAndHang(half())),
        ("closed within the body", Way::Answer(half())),
        ("closed within a chunked body", Way::Answer(chunked.into())),
        ("oversized body", Way::Answer(gateway_answers("200 OK", too_much.len(), &too_much))),
        ("another server: 200", another_server_answers("200 OK", "etag: \"7\"\r\n", r#"{"n":7}"#)),
        ("another server: 201", another_server_answers("201 Created", "etag: \"7\"\r\n", r#"{"n":7}"#)),
        ("another server: 204", Way::Answer(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("another server: 404", another_server_answers("404 Not Found", "", "not here")),
        ("another server: 409", another_server_answers("409 Conflict", "session-created: 1\r\n", "")),
        ("another server: 500", another_server_answers("500 Internal Server Error", "", "")),
        (
            "a marker of another value",
            another_server_answers("404 Not Found", "session-gateway: 2\r\nsession-id: {id}\r\n", ""),
        ),
        ("a proxy that asks for another path", Way::Rewritten),
        ("about no session: 404", Way::Answer(gateway_answers_about("", "404 Not Found", 0, ""))),
        ("about another session: 200", Way::Answer(gateway_answers_about(another, "200 OK", 2, "{}"))),
        ("about another session: 201", Way::Answer(gateway_answers_about(another, "201 Created", 2, "{}"))),
        ("about another session: 204", Way::Answer(gateway_answers_about(another, "204 No Content", 0, ""))),
        ("about another session: 404", Way::Answer(gateway_answers_about(another, "404 Not Found", 0, ""))),
        ("about another session: 409", Way::Answer(gateway_answers_about(another, "409 Conflict", 0, ""))),
        ("about another session: 412", Way::Answer(gateway_answers_about(another, "412 Precondition Failed", 0, ""))),
        ("no HTTP", Way::Answer(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())),
        ("a gateway whose store is away", Way::Answer(gateway_answers("503 Service Unavailable", 0, ""))),
        ("a gateway that doesn't take the token", Way::Answer(gateway_answers("401 Unauthorized", 0, ""))),
        ("a gateway that broke", Way::Answer(gateway_answers("500 Internal Server Error", 0, ""))),
        ("an answer without its version", Way::Answer(no_version.into())),
        ("an answer that is no object", Way::Answer(gateway_answers("200 OK", 2, "[]"))),
    ]
}

/// What keeps Envoy from even sending a callout.
fn failures_of_the_cluster() -> Vec<(&'static str, fn(Configuration) -> Configuration)> {
    vec![
        ("unknown cluster", |envoy| envoy.plugin(json!({"gateway": {"cluster": "nowhere"}}))),
        ("no endpoints", |envoy| envoy.cluster("session_gateway", &[])),
        ("circuit breaker full", |envoy| {
            let nothing = json!({"max_connections": 0, "max_pending_requests": 0, "max_requests": 0, "max_retries": 0});
            envoy.cluster_options("session_gateway", json!({"circuit_breakers": {"thresholds": [nothing]}}))
        }),
    ]
}

fn fails_in_every_way(policy: Policy) {
    let gateway = Gateway::start("memory:");
    let mut detour = Detour::to(gateway.port());
    let start = |timeout: &str| {
        Mesh::configured(|envoy| {
            envoy
                .runtime("http.async_response_buffer_limit", &ANSWER_LIMIT.into())
                .plugin(policy.plugin())
                .plugin(json!({"gateway": {"timeout": timeout}}))
                .cluster("session_gateway", &[detour.port()])
                // The detour breaks off answers where HTTP/1 lets it; over HTTP/2 it would have to speak frames.
                .cluster_options("session_gateway", json!({"typed_extension_protocol_options": null}))
        })
    };
    // What hangs is left to an Envoy that does not wait long; on a busy machine it may see an outage where there is
    // none.
    let (patient, hasty) = (start("20s"), start("100ms"));
    let mut stored = patient.browser();
    let id = stored.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    wait::until("there is a copy in both", || {
        let answer = stored.with_cookies(Request::get(CACHED)).send(hasty.envoy.port());
        (answer.status == 200 && answer.seen().state() == "active").then_some(())
    });

    for (row, way) in failures_on_the_way() {
        let mesh = if matches!(way, Way::Silent | Way::AnswerAndHang(_)) { &hasty } else { &patient };
        let mut anonymous = patient.browser();
        let anonymous_id = anonymous.get(CACHED).seen().id();
        detour.take(&way);
        let case = Case { row, policy, mesh, id: &id };
        case.read(&stored);
        case.write("a change", &stored);
        case.write("a first write", &anonymous);
        case.write_of_a_new_visitor();
        case.logout(&stored);
        detour.take(&Way::Open);
        // A connection that has just ended may be met once more.
        let seen = wait::until(&format!("{row}: the gateway is found again"), || {
            let answer = stored.with_cookies(Request::get(ASKS)).send(patient.envoy.port());
            let is_over = answer.status == 200 && answer.seen().state() != "unavailable";
            is_over.then(|| answer.seen())
        });
        assert_eq!((seen.state(), seen.id(), seen.version()), ("active".to_owned(), id.clone(), 1), "{row}");
        assert_eq!(seen.data(), json!({"n": 1}), "{row}: nothing that failed was saved");
        assert_eq!(anonymous.get(CACHED).seen().id(), anonymous_id, "{row}");
        anonymous.send(Request::get(CACHED).respond("x-session-patch", r#"{"late":1}"#));
        assert_eq!(anonymous.get(ASKS).seen().data(), json!({"late": 1}), "{row}");
    }
}

fn can_not_even_be_asked(policy: Policy) {
    let gateway = Gateway::start("memory:");
    let connected = |envoy: Configuration| envoy.plugin(policy.plugin()).cluster("session_gateway", &[gateway.port()]);
    let mesh = Mesh::configured(connected);
    let mut stored = mesh.browser();
    let id = stored.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    for (row, change) in failures_of_the_cluster() {
        let broken = Mesh::configured(|envoy| change(connected(envoy)));
        let case = Case { row, policy, mesh: &broken, id: &id };
        case.read(&stored);
        case.write("a first write", &broken.browser());
        // Without a copy in this Envoy, nothing else gets as far as the upstream.
        if policy.on_store_failure == "continue" {
            case.write("a change of an unknown session", &stored);
            case.logout(&stored);
        }
    }
    assert_eq!(stored.get(ASKS).seen().data(), json!({"n": 1}));
}

/// One row of the table under one policy.
struct Case<'a> {
    row: &'static str,
    policy: Policy,
    mesh: &'a Mesh,
    /// The stored session's.
    id: &'a str,
}

impl Case<'_> {
    fn send(&self, browser: &Browser, request: Request) -> (Response, usize) {
        let before = self.mesh.app.requests();
        let response = browser.with_cookies(request).send(self.mesh.envoy.port());
        (response, self.mesh.app.requests() - before)
    }

    fn is_replaced(&self, what: &str, response: &Response) {
        let Self { row, policy, .. } = self;
        assert_eq!(response.status, 503, "{row}, {what}, {policy:?}");
        assert_eq!(response.header("retry-after").as_deref(), Some("1"), "{row}, {what}");
        assert_eq!(response.header("x-session-error").as_deref(), Some("store-unavailable"), "{row}, {what}");
        assert_eq!(response.header("cache-control").as_deref(), Some("no-store"), "{row}, {what}");
        assert_eq!(response.all("set-cookie"), [""; 0], "{row}, {what}: a valid cookie must not be touched");
    }

    fn read(&self, stored: &Browser) {
        let row = self.row;
        let (response, reached) = self.send(stored, Request::get(ASKS));
        if self.policy.on_store_failure == "deny" {
            self.is_replaced("a read", &response);
            assert_eq!(reached, 0, "{row}: the upstream must not see the request");
        } else {
            assert_eq!((response.status, reached), (200, 1), "{row}");
            assert_eq!(response.all("set-cookie"), [""; 0], "{row}");
            let seen = response.seen();
            assert_eq!((seen.state(), seen.id()), ("unavailable".to_owned(), self.id.to_owned()), "{row}");
            for unknown in ["x-session-data", "x-session-data-omitted", "x-session-subject"] {
                assert_eq!(seen.all(unknown), [""; 0], "{row}: {unknown}");
            }
        }
    }

    fn write(&self, what: &str, browser: &Browser) {
        let row = self.row;
        let request = Request::get(CACHED).respond("x-session-patch", r#"{"n":2}"#).respond("x-app", "1");
        let (response, reached) = self.send(browser, request);
        assert_eq!(reached, 1, "{row}, {what}: the upstream is asked once");
        if self.policy.on_write_failure == "fail" {
            self.is_replaced(what, &response);
            assert_eq!(response.header("x-app"), None, "{row}, {what}: the response is not the upstream's");
        } else {
            self.is_delivered(what, &response);
            let cookies = usize::from(browser.token().is_none());
            assert_eq!(response.all("set-cookie").len(), cookies, "{row}, {what}");
        }
    }

    /// Without a store a new visitor still is one: what may go out is an anonymous token, which promises nothing.
    fn write_of_a_new_visitor(&self) {
        let mut visitor = self.mesh.browser();
        let response = visitor.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":2}"#));
        if self.policy.on_write_failure == "fail" {
            self.is_replaced("a new visitor's write", &response);
        } else {
            self.is_delivered("a new visitor's write", &response);
            assert_eq!(Token::read(&visitor.token().unwrap()).version, 0, "{}", self.row);
        }
    }

    fn logout(&self, stored: &Browser) {
        let row = self.row;
        let (response, reached) = self.send(stored, Request::get(CACHED).respond("x-session-control", "destroy"));
        assert_eq!(reached, 1, "{row}, a logout");
        if self.policy.on_write_failure == "fail" {
            self.is_replaced("a logout", &response);
        } else {
            self.is_delivered("a logout", &response);
            // What the user asked for, as far as it can be done: it isn't the outage that takes the cookie.
            assert!(response.header("set-cookie").unwrap().contains("; Max-Age=0"), "{row}, a logout");
        }
    }

    fn is_delivered(&self, what: &str, response: &Response) {
        let row = self.row;
        assert_eq!(response.status, 200, "{row}, {what}");
        assert_eq!(response.header("x-session-error").as_deref(), Some("store-unavailable"), "{row}, {what}");
        for ours in ["x-session-patch", "x-session-control"] {
            assert_eq!(response.all(ours), [""; 0], "{row}, {what}");
        }
        response.seen();
    }
}

#[test]
fn a_memcached_that_hangs_is_an_outage_that_ends() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let policy = Policy { on_store_failure: "deny", on_write_failure: "fail" };
    let mesh = Mesh::configured(|envoy| envoy.plugin(policy.plugin()).cluster("session_gateway", &[gateway.port()]));
    let mut stored = mesh.browser();
    let id = stored.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":1}"#)).seen().id();

    memcached.process().pause();
    let case = Case { row: "memcached hangs", policy, mesh: &mesh, id: &id };
    case.read(&stored);
    case.write("a change", &stored);
    case.write_of_a_new_visitor();
    case.logout(&stored);
    memcached.process().resume();
    let answer = wait::until("memcached is found again", || {
        let answer = stored.with_cookies(Request::get(ASKS)).send(mesh.envoy.port());
        (answer.status == 200).then_some(answer)
    });
    // What was asked of memcached while it hung it may have done since. No client is told so, and that is no
    // reason to log a user out, unless a logout is what was asked for.
    match answer.seen().state().as_str() {
        "active" => {
            assert_eq!(answer.seen().id(), id);
            assert!([json!({"n": 1}), json!({"n": 2})].contains(&answer.seen().data()), "{:?}", answer.seen());
        }
        state => assert_eq!(state, "expired"),
    }
}

#[test]
fn a_memcached_that_was_wiped_ends_sessions_and_says_so() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let policy = Policy { on_store_failure: "continue", on_write_failure: "deliver" };
    let mesh = Mesh::configured(|envoy| envoy.plugin(policy.plugin()).cluster("session_gateway", &[gateway.port()]));
    let mut stored = mesh.browser();
    let id = stored.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    memcached.wipe();

    // A copy may still be used, but nothing can be written to what is gone, and it isn't brought back.
    assert_eq!(stored.clone().get(CACHED).seen().state(), "active");
    let write = stored.clone().send(Request::get(CACHED).respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!((write.status, write.header("x-session-error").as_deref()), (200, Some("session-ended")));
    assert_eq!(gateway.data(&id), None);

    let answer = stored.get(ASKS);
    assert_eq!((answer.seen().state(), answer.seen().data()), ("expired".to_owned(), json!({})));
    assert_ne!(answer.seen().id(), id);
    assert_eq!(answer.all("set-cookie").len(), 1);
    stored.send(Request::get(CACHED).respond("x-session-patch", r#"{"n":3}"#));
    assert_eq!(stored.get(ASKS).seen().data(), json!({"n": 3}));
}

#[test]
fn a_login_that_can_not_be_seen_opens_nothing_even_with_continue() {
    let mut mesh = Mesh::with(json!({
        "on_store_failure": "continue",
        "cache": {"ttl": "0s"},
        "rules": [{"path_prefix": "/account/", "session": "required", "redirect": "/login"}],
    }));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(browser.get("/account/").seen().one("x-session-subject"), "alice");
    mesh.gateway.stop();
    let requests = mesh.app.requests();
    let token = browser.token();
    let answer = browser.get("/account/");
    assert_eq!((answer.status, answer.all("location"), answer.all("set-cookie")), (503, vec![], vec![]));
    assert_eq!((mesh.app.requests(), browser.token()), (requests, token));
}
