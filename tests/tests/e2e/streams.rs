//! Streams that outlast their request: a session with an open stream is in use.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use session_mesh_e2e::browser::{Browser, SESSION_COOKIE};
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::envoy::xds::{File, Files, Verdict};
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::scripted::Scripted;
use session_mesh_e2e::upstream::Upstream;
use session_mesh_e2e::wait;

const IDLE: u64 = 6;

/// A server whose answers go on as long as the client stays: a WebSocket that says each frame back, or a download that
/// trickles.
fn endless() -> Scripted {
    Scripted::start(|mut connection: Connection| {
        let Some(head) = connection.head() else { return };
        if head.header("upgrade").is_some() {
            connection.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            while let Some(frame) = connection.bytes(4) {
                connection.send(frame);
            }
        } else {
            connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while connection.send("4\r\ntick\r\n") {
                thread::sleep(Duration::from_millis(200));
            }
        }
    })
}

fn mesh(server: &Scripted) -> Mesh {
    with(server, json!({}))
}

fn short() -> Value {
    let timeouts = json!({"idle": format!("{IDLE}s"), "touch_after": "1s", "rotation_grace": "1s"});
    json!({"timeouts": timeouts, "cache": {"ttl": "1s"}})
}

fn with(server: &Scripted, manager: Value) -> Mesh {
    Mesh::configured(|envoy| {
        envoy
            .plugin(short())
            .cluster("other", &[server.port()])
            .manager(json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}))
            .manager(manager)
    })
}

fn stored(mesh: &Mesh) -> (Browser, String) {
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    (browser, id)
}

/// A stream in the session of this browser, which has begun.
fn open(mesh: &Mesh, browser: &Browser, headers: &str) -> Connection {
    let mut stream = Connection::open(mesh.envoy.port());
    stream.send(format!(
        "GET /other/stream HTTP/1.1\r\nhost: e2e.test\r\ncookie: {SESSION_COOKIE}={}\r\n{headers}\r\n",
        browser.token().unwrap()
    ));
    let head = stream.head().unwrap();
    assert!(matches!(head.status(), 101 | 200), "{}", head.line);
    stream
}

/// When the session was created, and when it ends unless it is used from now on. Looked at without `?touch`, which is
/// no use of it.
fn life(gateway: &Gateway, id: &str) -> Option<(u64, u64)> {
    let answer = gateway.call(Request::get(&format!("/v1/sessions/{id}")));
    let field = |name: &str| answer.header(name).unwrap().parse::<u64>().unwrap();
    (answer.status == 200).then(|| (field("session-created"), field("session-expires")))
}

/// How many seconds it lives in all unless it is used from now on.
fn lifetime(gateway: &Gateway, id: &str) -> u64 {
    let (created, expires) = life(gateway, id).unwrap();
    expires - created
}

/// Waits until the session could not have lived so long without being used, and has frames pass meanwhile.
fn outlives_its_idle_timeout(gateway: &Gateway, id: &str, mut frame: impl FnMut()) {
    wait::until("the session was used long after its request", || {
        frame();
        (lifetime(gateway, id) > 2 * IDLE).then_some(())
    });
}

/// Sends a frame and gets it back.
fn echo(socket: &mut Connection) {
    socket.send(b"ping");
    assert_eq!(socket.bytes(4).unwrap(), b"ping");
}

fn keeps_its_session_alive(headers: &str, mut frame: impl FnMut(&mut Connection)) {
    let server = endless();
    let mesh = mesh(&server);
    let (mut browser, id) = stored(&mesh);
    let mut stream = open(&mesh, &browser, headers);
    outlives_its_idle_timeout(&mesh.gateway, &id, || frame(&mut stream));
    assert_eq!(browser.get("/").seen().state(), "active");
    drop(stream);
    wait::until("it was not used for its idle timeout", || mesh.gateway.data(&id).is_none().then_some(()));
    assert_eq!(browser.get("/").seen().state(), "expired");
}

const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_keeps_its_session_alive_while_it_is_open() {
    keeps_its_session_alive(WEBSOCKET, echo);
}

#[test]
fn a_slow_download_keeps_its_session_alive() {
    keeps_its_session_alive("", |download| assert_eq!(download.chunk().unwrap(), b"tick"));
}

/// Those that began under a configuration which was replaced go on under it. Here an upstream takes its time.
#[test]
fn a_stream_keeps_its_session_alive_although_the_filter_has_another_configuration() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
    files.plugin(short());
    files.gateways(&[gateway.port()]);
    let mut mesh = files.start();
    let mut browser = Browser::new(mesh.envoy.port());
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    app.hold_until_together(2);
    let mut slow = Connection::open(mesh.envoy.port());
    let cookie = format!("{SESSION_COOKIE}={}", browser.token().unwrap());
    slow.send(format!("GET / HTTP/1.1\r\nhost: e2e.test\r\ncookie: {cookie}\r\n\r\n"));
    wait::until("it has arrived", || (app.requests() == 2).then_some(()));
    let other = json!({"upstream": {"max_data_bytes": 1000}});
    assert_eq!(mesh.change(File::Filter, |files| files.plugin(other)), Verdict::Taken);
    outlives_its_idle_timeout(&gateway, &id, || {});
    assert_eq!(browser.get("/").seen().state(), "active");
    assert_eq!(slow.response().unwrap().seen().state(), "active");
}

/// Nothing tells Envoy of it. The stream goes on, and brings nothing back.
#[test]
fn a_stream_revives_no_session_that_was_ended() {
    let server = endless();
    let mesh = mesh(&server);
    let (mut browser, id) = stored(&mesh);
    let mut socket = open(&mesh, &browser, WEBSOCKET);
    outlives_its_idle_timeout(&mesh.gateway, &id, || echo(&mut socket));
    assert_eq!(mesh.gateway.call(Request::new("DELETE", &format!("/v1/sessions/{id}"))).status, 204);
    assert_no_more_touches(&mesh);
    assert_eq!(life(&mesh.gateway, &id), None);
    assert_eq!(browser.get("/").seen().state(), "expired");
    echo(&mut socket);
}

#[test]
fn a_stream_whose_token_was_replaced_by_a_login_keeps_nothing_alive() {
    let server = endless();
    let mesh = mesh(&server);
    let (mut browser, id) = stored(&mesh);
    let mut socket = open(&mesh, &browser, WEBSOCKET);
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let (_, expires) = life(&mesh.gateway, &id).unwrap();
    wait::until("it was not used for its idle timeout", || {
        echo(&mut socket);
        let life = life(&mesh.gateway, &id);
        assert!(life.is_none_or(|(_, now)| now <= expires + 1), "the stream has extended it");
        life.is_none().then_some(())
    });
    echo(&mut socket);
}

/// What an operator does about streams that outlive their sessions.
#[test]
fn a_stream_ends_with_the_duration_that_envoy_grants_it() {
    let server = endless();
    let mesh = with(&server, json!({"common_http_protocol_options": {"max_stream_duration": "1s"}}));
    let (browser, _) = stored(&mesh);
    let mut socket = open(&mesh, &browser, WEBSOCKET);
    wait::until("Envoy ends it", || {
        let is_open = socket.send(b"ping") && socket.bytes(4).is_some();
        (!is_open).then_some(())
    });
}

const CALLOUTS: &str = "cluster.session_gateway.upstream_rq_total";

/// Waits until the filter has stopped asking for the session: no callout for three times as long as one would take.
fn assert_no_more_touches(mesh: &Mesh) {
    let mut last = (mesh.envoy.statistic(CALLOUTS), Instant::now());
    wait::until("the stream asks no more", || {
        let made = mesh.envoy.statistic(CALLOUTS);
        if made != last.0 {
            last = (made, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(5)).then_some(())
    });
}

#[test]
fn many_streams_of_one_session_are_one_use_of_it() {
    let server = endless();
    let mesh = mesh(&server);
    let (browser, id) = stored(&mesh);
    let streams: Vec<_> = (0..20).map(|_| open(&mesh, &browser, WEBSOCKET)).collect();
    outlives_its_idle_timeout(&mesh.gateway, &id, || {});
    let made = mesh.envoy.statistic(CALLOUTS);
    // One a second, and not twenty; a write and some lookups came before.
    let lived = lifetime(&mesh.gateway, &id);
    assert!(made <= lived + 5, "{made} callouts in {lived} s");
    drop(streams);
}
