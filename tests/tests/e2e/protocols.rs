//! What happens to sessions in each of the protocols that Envoy speaks, and when either side disconnects.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use session_mesh_e2e::browser::{Browser, SESSION_COOKIE};
use session_mesh_e2e::connection::{Connection, Head};
use session_mesh_e2e::http::Request;
use session_mesh_e2e::http2::{self, Echo};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::scripted::Scripted;
use session_mesh_e2e::wait;

/// For callouts that are to hang until the test says otherwise.
const PATIENT: &str = "20s";
/// What Envoy buffers of a message by default.
const BUFFER: usize = 1 << 20;
const LARGE: usize = 20 << 20;

fn stored(mesh: &Mesh) -> Browser {
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    browser
}

fn cookie(browser: &Browser) -> String {
    format!("{SESSION_COOKIE}={}", browser.token().unwrap())
}

/// Keeps the token of a response like a browser.
fn keep(browser: &mut Browser, set_cookie: &str) {
    let token = set_cookie.strip_prefix(&format!("{SESSION_COOKIE}=")).unwrap().split(';').next().unwrap();
    browser.set(SESSION_COOKIE, token);
}

fn until_called(mesh: &Mesh) {
    wait::until("a callout is under way", || {
        (mesh.envoy.statistic("cluster.session_gateway.upstream_rq_active") > 0).then_some(())
    });
}

/// Both parts of the setup: the mesh whose `/other/` leads to this server.
fn with_server(plugin: Value, server: &Scripted) -> Mesh {
    Mesh::configured(|envoy| envoy.plugin(plugin).cluster("other", &[server.port()]))
}

#[test]
fn http_1_1_one_connection_may_carry_the_requests_of_several_clients() {
    let mesh = Mesh::start();
    let clients = [stored(&mesh), stored(&mesh)];
    let expected = clients.clone().map(|mut client| client.get("/").seen().id());
    let mut connection = Connection::open(mesh.envoy.port());
    for _ in 0..3 {
        for (client, id) in clients.iter().zip(&expected) {
            connection.send(format!("GET / HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n\r\n", cookie(client)));
            let head = connection.head().unwrap();
            let body = String::from_utf8(connection.body(&head).unwrap()).unwrap();
            assert!(body.contains(&format!("x-session-id: {id}\r\n")), "{body}");
            assert_eq!(head.all("set-cookie"), [""; 0]);
        }
        connection.send("GET / HTTP/1.1\r\nhost: e2e.test\r\n\r\n");
        let head = connection.head().unwrap();
        let body = String::from_utf8(connection.body(&head).unwrap()).unwrap();
        assert!(body.contains("x-session-state: new\r\n"), "the connection belongs to no session: {body}");
        assert_eq!(head.all("set-cookie").len(), 1);
    }
}

#[test]
fn head_commits_and_keeps_the_length_it_speaks_of() {
    let mesh = Mesh::start();
    let mut browser = stored(&mesh);
    let request = browser.with_cookies(Request::new("HEAD", "/")).respond("x-session-patch", r#"{"n":2}"#);
    let answer = request.send(mesh.envoy.port());
    assert_eq!((answer.status, answer.body.len(), answer.all("set-cookie").len()), (200, 0, 1));
    assert!(answer.header("content-length").unwrap().parse::<usize>().unwrap() > 0);
    keep(&mut browser, &answer.header("set-cookie").unwrap());
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
}

#[test]
fn http_2_cookies_may_come_in_crumbs_and_requests_all_at_once() {
    const STREAMS: usize = 30;
    let mesh = Mesh::start();
    let mut browser = stored(&mesh);
    let port = mesh.envoy.port();
    let token = cookie(&browser);
    let cookies: Vec<String> = http2::run(async {
        let client = http2::connect(port).await;
        // RFC 9113 section 8.2.3: each cookie may be a field of its own.
        let crumbs = http::Request::get("http://e2e.test/")
            .header("cookie", "a=1")
            .header("cookie", &token)
            .header("cookie", "b=2");
        let (response, _) = client.clone().send_request(crumbs.body(()).unwrap(), true).unwrap();
        let (body, _) = http2::rest(response.await.unwrap().into_body()).await;
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("x-session-state: active\r\n"), "{body}");
        assert!(body.contains("cookie: a=1; b=2\r\n"), "{body}");

        let mut streams = Vec::new();
        for n in 0..STREAMS {
            let request = http::Request::get("http://e2e.test/")
                .header("cookie", &token)
                .header("respond-x-session-patch", format!(r#"{{"tab{n}":true}}"#));
            let mut client = client.clone().ready().await.unwrap();
            streams.push(client.send_request(request.body(()).unwrap(), true).unwrap().0);
        }
        let mut cookies = Vec::new();
        for stream in streams {
            let response = stream.await.unwrap();
            assert_eq!(response.status(), 200);
            cookies.push(response.headers()["set-cookie"].to_str().unwrap().to_owned());
        }
        cookies
    });
    assert_eq!(cookies.len(), STREAMS);
    keep(&mut browser, &cookies[STREAMS - 1]);
    let seen = wait::until("all writes are seen", || {
        let seen = browser.get("/").seen();
        (seen.version() == u32::try_from(STREAMS + 1).unwrap()).then_some(seen)
    });
    for n in 0..STREAMS {
        assert_eq!(seen.data()[format!("tab{n}")], true);
    }
}

#[test]
fn grpc_like_streams_go_both_ways_with_trailers_and_a_write_at_their_start() {
    let app = Echo::start();
    let mesh = Mesh::configured(|envoy| {
        envoy.cluster("other", &[app.port()]).cluster_options(
            "other",
            json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }}}),
        )
    });
    let mut browser = stored(&mesh);
    // A new Envoy has no copy: the stream begins with a lookup and its response with a write.
    let (port, token) = (mesh.envoy.port(), cookie(&browser));
    let set_cookie = http2::run(async {
        let mut client = http2::connect(port).await;
        let request = http::Request::post("http://e2e.test/other/shop.Cart/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("cookie", token)
            .header("respond-x-session-patch", r#"{"n":2}"#)
            .header("respond-content-type", "application/grpc");
        let (response, mut out) = client.send_request(request.body(()).unwrap(), false).unwrap();
        out.send_data(Bytes::from_static(b"first"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let set_cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(!response.headers().contains_key("x-session-patch"));
        let mut body = response.into_body();
        let mut shown = Vec::new();
        while !shown.ends_with(b"first") {
            shown.extend(http2::piece(&mut body).await);
        }
        let shown = String::from_utf8(shown).unwrap();
        assert!(
            shown.contains("x-session-state: active\n") && shown.contains("x-session-data: {\"n\":1}\n"),
            "{shown}"
        );
        // Each message is answered before the next is sent: nothing is held back any more.
        for message in ["second", "third"] {
            out.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
            assert_eq!(http2::piece(&mut body).await, message);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("abc"));
        out.send_trailers(trailers).unwrap();
        let (rest, trailers) = http2::rest(body).await;
        let trailers = trailers.unwrap();
        assert_eq!(
            (rest.len(), &trailers["x-checksum"], &trailers["grpc-status"]),
            (0, &"abc".parse().unwrap(), &"0".parse().unwrap())
        );
        set_cookie
    });
    keep(&mut browser, &set_cookie);
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
}

#[test]
fn a_websocket_has_the_session_of_its_handshake_and_may_write_with_it() {
    let server = Scripted::start(|mut connection: Connection| {
        let Some(head) = connection.head() else { return };
        let data = head.header("x-session-data").unwrap_or_default();
        let state = head.header("x-session-state").unwrap_or_default();
        connection.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             x-session-patch: {{\"n\":2}}\r\nx-shown: {state} {data}\r\n\r\n"
        ));
        while let Some(mut frame) = connection.bytes(4) {
            frame.reverse();
            connection.send(frame);
        }
    });
    let mesh = Mesh::configured(|envoy| {
        envoy.cluster("other", &[server.port()]).manager(json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}))
    });
    let mut browser = stored(&mesh);
    let mut socket = Connection::open(mesh.envoy.port());
    socket.send(format!(
        "GET /other/chat HTTP/1.1\r\nhost: e2e.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncookie: {}\r\n\r\n",
        cookie(&browser)
    ));
    let head = socket.head().unwrap();
    assert_eq!((head.status(), head.header("x-shown").unwrap().as_str()), (101, r#"active {"n":1}"#));
    assert_eq!(head.all("x-session-patch"), [""; 0]);
    keep(&mut browser, &head.header("set-cookie").unwrap());
    for (sent, back) in [(b"abcd", b"dcba"), (b"\xff\0\x01\x02", b"\x02\x01\0\xff")] {
        socket.send(sent);
        assert_eq!(socket.bytes(4).unwrap(), back);
    }
    // The session goes on beside it.
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":3}"#));
    socket.send(b"1234");
    assert_eq!(socket.bytes(4).unwrap(), b"4321");
    assert_eq!(browser.get("/").seen().data(), json!({"n": 3}));
}

/// Reads the whole request, then answers with as many bytes, writing to the session.
fn mirror(mut connection: Connection) {
    while let Some(head) = connection.head() {
        let Some(body) = connection.body(&head) else { return };
        let state = head.header("x-session-state").unwrap_or_default();
        connection.send(format!(
            "HTTP/1.1 200 OK\r\nx-state: {state}\r\nx-session-patch: {{\"bytes\":{length}}}\r\n\
             content-length: {length}\r\n\r\n",
            length = body.len()
        ));
        connection.send(body);
    }
}

fn post(connection: &mut Connection, browser: &Browser, headers: &str) {
    connection.send(format!("POST /other/ HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n{headers}\r\n", cookie(browser)));
}

/// A mesh whose `/other/` leads to this server. `is_pause_for_headers` lets filters hold headers without their bodies:
/// an option of Envoy's that must make no difference.
fn with_pauses(plugin: &Value, server: &Scripted, is_pause_for_headers: bool) -> Mesh {
    Mesh::configured(|envoy| {
        envoy
            .plugin(plugin.clone())
            .cluster("other", &[server.port()])
            .wasm(json!({"allow_on_headers_stop_iteration": is_pause_for_headers}))
    })
}

/// Waits until Envoy has read more of a message than it may buffer.
fn until_read(mesh: &Mesh, statistic: &str, length: usize) {
    let enough = u64::try_from(length.min(BUFFER)).unwrap();
    wait::until("a buffer is full", || (mesh.envoy.statistic(statistic) >= enough).then_some(()));
}

/// Bytes of which none is at another's place.
fn long_body(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[test]
fn large_bodies_wait_for_the_lookup_and_for_the_commit() {
    let server = Scripted::start(mirror);
    for (is_pause_for_headers, length) in [(false, 5), (false, LARGE), (true, 5), (true, LARGE)] {
        let plugin = json!({"cache": {"ttl": "0s"}, "gateway": {"timeout": PATIENT}});
        let mut mesh = with_pauses(&plugin, &server, is_pause_for_headers);
        let mut browser = stored(&mesh);
        let body = long_body(length);
        mesh.gateway.process().pause();
        let mut connection = Connection::open(mesh.envoy.port());
        post(&mut connection, &browser, &format!("content-length: {length}\r\n"));
        until_called(&mesh);
        let mut connection = thread::scope(|scope| {
            // Envoy takes no more than its buffers hold while the lookup is pending, so this blocks for now.
            let sending = scope.spawn(|| {
                connection.send(&body);
                connection
            });
            until_read(&mesh, "http.ingress.downstream_cx_rx_bytes_total", length);
            mesh.gateway.process().resume();
            sending.join().unwrap()
        });
        let head = connection.head().unwrap();
        assert_eq!((head.status(), head.header("x-state").unwrap().as_str()), (200, "active"));
        keep(&mut browser, &head.header("set-cookie").unwrap());
        assert!(connection.body(&head).unwrap() == body, "the body has changed on its way");
        assert_eq!(browser.get("/").seen().data(), json!({"n": 1, "bytes": length}));
    }
}

#[test]
fn a_large_response_waits_as_a_whole_until_its_write_is_committed() {
    let server = Scripted::start(|mut connection| {
        connection.head();
        connection.send(format!("HTTP/1.1 200 OK\r\nx-session-patch: {{\"n\":2}}\r\ncontent-length: {LARGE}\r\n\r\n"));
        connection.send(long_body(LARGE));
    });
    for is_pause_for_headers in [false, true] {
        let plugin = json!({"cache": {"ttl": "10m"}, "gateway": {"timeout": PATIENT}});
        let mut mesh = with_pauses(&plugin, &server, is_pause_for_headers);
        let mut browser = stored(&mesh);
        browser.get("/");
        mesh.gateway.process().pause();
        let mut connection = Connection::open(mesh.envoy.port());
        connection.send(format!("GET /other/ HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n\r\n", cookie(&browser)));
        until_called(&mesh);
        until_read(&mesh, "cluster.other.upstream_cx_rx_bytes_total", LARGE);
        mesh.gateway.process().resume();
        let head = connection.head().unwrap();
        assert_eq!(head.status(), 200);
        keep(&mut browser, &head.header("set-cookie").unwrap());
        assert!(connection.body(&head).unwrap() == long_body(LARGE), "the body has changed on its way");
        assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
    }
}

#[test]
fn slow_bodies_flow_piece_by_piece_once_the_session_is_settled() {
    let server = Scripted::start(|mut connection: Connection| {
        let Some(head) = connection.head() else { return };
        connection.send("HTTP/1.1 200 OK\r\nx-session-patch: {\"n\":2}\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(head.header("transfer-encoding").is_some());
        while let Some(chunk) = connection.chunk() {
            connection.send(format!("{:x}\r\n", chunk.len()));
            connection.send([&chunk, b"\r\n".as_slice()].concat());
            if chunk.is_empty() {
                return;
            }
        }
    });
    let mesh = with_server(json!({}), &server);
    let mut browser = stored(&mesh);
    let mut connection = Connection::open(mesh.envoy.port());
    post(&mut connection, &browser, "transfer-encoding: chunked\r\n");
    let head = connection.head().unwrap();
    keep(&mut browser, &head.header("set-cookie").unwrap());
    // Neither body is anywhere near its end, and the write is saved and seen.
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
    for piece in ["one", "two", "three"] {
        connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(connection.chunk().unwrap(), piece.as_bytes());
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.chunk().unwrap(), b"");
}

#[test]
fn expect_100_continue_is_answered_while_the_lookup_is_pending() {
    let server = Scripted::start(mirror);
    let mut mesh = with_server(json!({"cache": {"ttl": "0s"}, "gateway": {"timeout": PATIENT}}), &server);
    let browser = stored(&mesh);
    mesh.gateway.process().pause();
    let mut connection = Connection::open(mesh.envoy.port());
    post(&mut connection, &browser, "content-length: 5\r\nexpect: 100-continue\r\n");
    let interim = connection.head().unwrap();
    assert_eq!((interim.status(), interim.all("set-cookie")), (100, vec![]));
    connection.send("hello");
    until_called(&mesh);
    mesh.gateway.process().resume();
    let head = connection.head().unwrap();
    assert_eq!((head.status(), head.all("set-cookie").len()), (200, 1));
    assert_eq!(connection.body(&head).unwrap(), b"hello");
}

#[test]
fn a_100_of_the_upstream_passes_and_the_session_belongs_to_the_final_response() {
    let server = Scripted::start(|mut connection: Connection| {
        let Some(head) = connection.head() else { return };
        connection.send("HTTP/1.1 100 Continue\r\nx-session-patch: {\"interim\":1}\r\n\r\n");
        let Some(body) = connection.body(&head) else { return };
        connection.send("HTTP/1.1 200 OK\r\nx-session-patch: {\"n\":2}\r\ncontent-length: 5\r\n\r\n");
        connection.send(body);
    });
    let mesh =
        Mesh::configured(|envoy| envoy.cluster("other", &[server.port()]).manager(json!({"proxy_100_continue": true})));
    let mut browser = stored(&mesh);
    let mut connection = Connection::open(mesh.envoy.port());
    post(&mut connection, &browser, "content-length: 5\r\nexpect: 100-continue\r\n");
    let interim = connection.head().unwrap();
    assert_eq!((interim.status(), interim.all("set-cookie")), (100, vec![]));
    connection.send("hello");
    let head = connection.head().unwrap();
    assert_eq!((head.status(), head.all("x-session-patch")), (200, vec![]));
    keep(&mut browser, &head.header("set-cookie").unwrap());
    assert_eq!(connection.body(&head).unwrap(), b"hello");
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
}

#[test]
fn early_hints_of_the_upstream_do_not_disturb_the_final_response() {
    let server = Scripted::start(|mut connection: Connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nset-cookie: a=1\r\n\r\n");
            connection.send("HTTP/1.1 200 OK\r\nx-session-patch: {\"n\":2}\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let mesh = with_server(json!({}), &server);
    let mut browser = stored(&mesh);
    let mut connection = Connection::open(mesh.envoy.port());
    connection.send(format!("GET /other/ HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n\r\n", cookie(&browser)));
    let mut heads: Vec<Head> = Vec::new();
    while heads.last().is_none_or(|head| head.status() < 200) {
        heads.push(connection.head().unwrap());
    }
    let last = heads.pop().unwrap();
    assert!(heads.iter().all(|head| head.status() == 103), "{heads:?}");
    assert_eq!((last.status(), connection.body(&last).unwrap()), (200, b"ok".to_vec()));
    keep(&mut browser, &last.header("set-cookie").unwrap());
    assert_eq!(browser.get("/").seen().data(), json!({"n": 2}));
}

#[test]
fn a_client_that_leaves_during_the_lookup_leaves_nothing_behind() {
    let mut mesh = Mesh::with(json!({"cache": {"ttl": "0s"}, "gateway": {"timeout": PATIENT}}));
    let mut browser = stored(&mesh);
    let requests = mesh.app.requests();
    mesh.gateway.process().pause();
    for _ in 0..3 {
        let mut client = Connection::open(mesh.envoy.port());
        client.send(format!("GET / HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n\r\n", cookie(&browser)));
        mesh.envoy.until_active(1);
        until_called(&mesh);
        drop(client);
        mesh.envoy.until_active(0);
    }
    // Others need no lookup, and are not held up.
    assert_eq!(mesh.browser().get("/").status, 200);
    mesh.gateway.process().resume();
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
    assert_eq!(mesh.app.requests(), requests + 2);
}

/// The gateway may have read the change to `{"n":2}`, or seen the connection end first. No client was told that it is
/// saved.
fn lives_on_with_or_without_the_write(mesh: &Mesh, browser: &mut Browser, id: &str) {
    let data = mesh.gateway.data(id).unwrap();
    assert!([json!({"n": 1}), json!({"n": 2})].contains(&data), "{data}");
    assert_eq!(browser.get("/").seen().state(), "active");
    // The copy from before may be out of date.
    mesh.envoy.until_counted("cache.miss", 1);
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":3}"#));
    assert_eq!((browser.get("/").seen().id(), browser.get("/").seen().data()), (id.to_owned(), json!({"n": 3})));
}

#[test]
fn a_client_that_leaves_during_a_write_keeps_its_session_with_or_without_it() {
    let mut mesh = Mesh::with(json!({"cache": {"ttl": "10m"}, "gateway": {"timeout": PATIENT}}));
    let mut browser = stored(&mesh);
    let id = browser.get("/").seen().id();
    mesh.gateway.process().pause();
    let mut client = Connection::open(mesh.envoy.port());
    client.send(format!(
        "GET / HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\nrespond-x-session-patch: {{\"n\":2}}\r\n\r\n",
        cookie(&browser)
    ));
    until_called(&mesh);
    drop(client);
    mesh.envoy.until_active(0);
    mesh.gateway.process().resume();
    lives_on_with_or_without_the_write(&mesh, &mut browser, &id);
}

#[test]
fn an_upstream_that_breaks_off_while_its_response_is_held_costs_the_response_and_not_the_session() {
    let (broken, breaks) = mpsc::channel::<()>();
    let breaks = Arc::new(Mutex::new(breaks));
    let server = Scripted::start(move |mut connection: Connection| {
        if connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nx-session-patch: {\"n\":2}\r\ncontent-length: 100\r\n\r\nhalf");
            // The end of the channel is as good a sign.
            let _ = breaks.lock().unwrap().recv();
        }
    });
    let mut mesh = with_server(json!({"cache": {"ttl": "10m"}, "gateway": {"timeout": PATIENT}}), &server);
    let mut browser = stored(&mesh);
    let id = browser.get("/").seen().id();
    mesh.gateway.process().pause();
    let mut client = Connection::open(mesh.envoy.port());
    client.send(format!("GET /other/ HTTP/1.1\r\nhost: e2e.test\r\ncookie: {}\r\n\r\n", cookie(&browser)));
    until_called(&mesh);
    broken.send(()).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status(), head.all("set-cookie"), head.all("x-session-patch")), (502, vec![], vec![]));
    mesh.gateway.process().resume();
    lives_on_with_or_without_the_write(&mesh, &mut browser, &id);
}
