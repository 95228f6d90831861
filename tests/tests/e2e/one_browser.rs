//! One browser, several requests and several cookies: whatever arrives late, a login is not undone.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use session_mesh_e2e::acceptor::Acceptor;
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::envoy::{Configuration, SECRET};
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::ports;
use session_mesh_e2e::wait;

const NEXT: &str = "dGhlIG5leHQgc2VjcmV0IG9mIHRoZSBlbmQtdG8tZW5kIHRlc3Rz";

/// Sends a request whose answer is held at its upstream while the browser logs in; returns that late answer.
fn login_in_the_meantime(mesh: &Mesh, browser: &mut Browser, slow: Request) -> Response {
    mesh.app.hold_until_together(2);
    let port = mesh.envoy.port();
    let slow = browser.with_cookies(slow);
    let arrived = mesh.app.requests();
    let answer = thread::spawn(move || slow.send(port));
    wait::until("the slow request is at its upstream", || (mesh.app.requests() > arrived).then_some(()));
    let login = browser.send(Request::get("/other/login").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(login.status, 200, "{}", login.text());
    // Its companion lets it go.
    Request::get("/").send(port);
    let answer = answer.join().unwrap();
    mesh.app.stop_holding();
    answer
}

fn assert_logged_in(browser: &mut Browser) {
    assert_eq!(browser.get("/").seen().one("x-session-subject"), "alice");
}

#[test]
fn a_late_answer_does_not_bring_back_a_token_that_a_login_has_replaced() {
    let mut mesh = Mesh::start();
    let mut stored = mesh.browser();
    stored.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let mut anonymous = mesh.browser();
    anonymous.get("/");
    mesh.envoy.restart_with_secrets(&format!("{NEXT},{SECRET}"));
    for browser in [&mut stored, &mut anonymous] {
        let late = login_in_the_meantime(&mesh, browser, Request::get("/"));
        assert_eq!((late.status, late.all("set-cookie")), (200, vec![]));
        assert_logged_in(browser);
    }
}

#[test]
fn a_late_answer_of_a_session_that_has_ended_leaves_the_cookie_of_a_login_alone() {
    for create in ["lazy", "eager", "on_write"] {
        for control in ["", "destroy"] {
            let mesh = Mesh::with(json!({"create": create, "cache": {"ttl": "0s"}}));
            let mut browser = mesh.browser();
            let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
            assert_eq!(mesh.gateway.call(Request::new("DELETE", &format!("/v1/sessions/{id}"))).status, 204);
            let slow = Request::get("/");
            let slow = if control.is_empty() { slow } else { slow.respond("x-session-control", control) };
            let late = login_in_the_meantime(&mesh, &mut browser, slow);
            assert_eq!((late.status, late.all("set-cookie")), (200, vec![]), "{create} {control}");
            assert_logged_in(&mut browser);
        }
    }
}

#[test]
fn a_late_logout_does_not_end_the_login_that_came_after_it() {
    let mesh = Mesh::start();
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let slow = Request::get("/").respond("x-session-control", "destroy");
    let late = login_in_the_meantime(&mesh, &mut browser, slow);
    assert_eq!((late.status, late.all("set-cookie")), (200, vec![]));
    assert_logged_in(&mut browser);
    mesh.envoy.until_counted("writes_failed.rotated", 1);
}

#[test]
fn a_logout_ends_every_session_that_the_browser_has_a_token_of() {
    let mesh = Mesh::start();
    let login = Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#);
    let mut browsers = [mesh.browser(), mesh.browser(), mesh.browser()];
    let tokens: Vec<_> = browsers
        .iter_mut()
        .map(|browser| {
            browser.send(login.clone());
            format!("__Host-session={}", browser.token().unwrap())
        })
        .collect();
    let logout = Request::get("/").header("cookie", tokens.join("; ")).respond("x-session-control", "destroy");
    assert_eq!(logout.send(mesh.envoy.port()).status, 200);
    for browser in &mut browsers {
        assert_eq!(browser.get("/").seen().state(), "expired");
    }
    mesh.envoy.until_counted("writes.destroyed", 3);
}

/// Without an icon: the browser would ask for one at any time.
const PAGE: &str =
    "<html><head><link rel=icon href='data:,'></head><body><pre id=out>waiting</pre><script>(async () => {
    const seen = [];
    const count = () => seen.push('cookies=' + (document.cookie.split('sid=').length - 1));
    count();
    await fetch('/login');
    count();
    for (let n = 0; n < 3; n++) seen.push(await (await fetch('/who')).text());
    count();
    document.getElementById('out').textContent = seen.join(' ');
})()</script></body></html>";

/// Serves a page that leads from one Envoy to the next, one that logs in there, and answers of whose session a request
/// was.
fn pages(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let subject = head.lines().find_map(|line| line.strip_prefix("x-session-subject: ")).unwrap_or("nobody").to_owned();
    let (more, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/login" => ("x-session-patch: {\"user\":\"alice\"}\r\n", String::new()),
        "/who" => ("", subject),
        "/start" => {
            ("", "<link rel=icon href='data:,'><script>location.href = location.hash.slice(1)</script>".to_owned())
        }
        "/page" => ("", PAGE.to_owned()),
        _ => ("", String::new()),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{body}"
    );
}

/// A real browser keeps the cookie without a domain beside the one with it, and sends the older first.
#[test]
fn a_browser_with_cookies_of_two_configurations_stays_logged_in_and_loses_the_older() {
    let gateway = Gateway::start("memory:");
    let app = Acceptor::listen(ports::free(), |mut stream| pages(&mut stream));
    let start = |domain: Value| {
        let cookie = json!({"name": "sid", "secure": false, "http_only": false, "domain": domain});
        Configuration::read()
            .plugin(json!({"cookie": cookie}))
            .cluster("session_gateway", &[gateway.port()])
            .cluster("app", &[app.port()])
    };
    let before = start(Value::Null).start();
    let after = start(json!("example.test")).start();

    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .arg("--host-resolver-rules=MAP app.example.test 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("http://app.example.test:{}/start#http://app.example.test:{}/page", before.port(), after.port()))
        .output()
        .expect("chromium is missing: ./test.sh installs it");
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        page.contains(">cookies=1 cookies=2 alice alice alice cookies=1<"),
        "{page}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
