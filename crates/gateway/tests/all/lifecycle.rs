//! Starting, listening, draining.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::support::gateway::{Gateway, TOKEN, command, request};
use super::support::http::Connection;
use super::support::{PATIENCE, eventually, fresh_id};

/// The start of a creation that waits for its body.
async fn half_a_request(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(&gateway.address).await.unwrap();
    let head = format!(
        "PUT /v1/sessions/{} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: 2\r\n\r\n",
        fresh_id()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Now the handler waits for the body.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn rest(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("the connection stays open").unwrap();
    text
}

async fn drains(signal: Signal, workers: &str) {
    let mut gateway =
        Gateway::start_with("memory:", &["--workers", workers, "--drain-timeout", "60s", "--body-timeout", "60s"]);
    gateway.ready_turns(200).await;
    let mut idle = TcpStream::connect(&gateway.address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n").await.unwrap();
    assert_ne!(idle.read(&mut [0; 1000]).await.unwrap(), 0);
    let fresh = TcpStream::connect(&gateway.address).await.unwrap();
    let mut busy = half_a_request(&gateway).await;
    // None of them is left in the queue of connections to accept.
    eventually("three connections", async || gateway.metric("session_gateway_connections").await == 3).await;

    gateway.signal(signal);
    gateway.ready_turns(503).await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    assert_eq!(rest(idle).await, "");
    assert_eq!(rest(fresh).await, "");
    eventually("the API is closed", async || Connection::open(&gateway.address).await.is_err()).await;
    busy.write_all(b"{}").await.unwrap();
    let answer = rest(busy).await;
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn sigterm_drains() {
    drains(Signal::SIGTERM, "2").await;
}

#[tokio::test]
async fn sigint_drains_a_single_worker() {
    drains(Signal::SIGINT, "1").await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut gateway = Gateway::start_with("memory:", &["--drain-timeout", "1h", "--body-timeout", "1h"]);
    let _busy = half_a_request(&gateway).await;
    gateway.signal(Signal::SIGTERM);
    gateway.ready_turns(503).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit().await.code(), Some(1));
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let mut gateway = Gateway::start_with("memory:", &["--drain-timeout", "50ms", "--body-timeout", "1h"]);
    let _busy = half_a_request(&gateway).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit().await.code(), Some(1));
    eventually("the log", async || gateway.log().contains("--drain-timeout")).await;
}

async fn unix_get(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n").await.unwrap();
    rest(stream).await
}

#[tokio::test]
async fn unix_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.sock");
    let address = format!("unix:{}", path.display());
    let start = |mode: &str| Gateway::start_with("memory:", &["--admin-listen", &address, "--unix-socket-mode", mode]);

    // clap takes the last of a flag that is no list, but these are lists: the TCP port stays.
    let first = start("600");
    eventually("the socket", async || path.exists()).await;
    assert!(unix_get(&path).await.ends_with("alive\n"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let refused = run(&["--listen", &address, "--admin-listen", "127.0.0.1:0"], Some(TOKEN));
    assert!(text(&refused).contains("another process listens there"), "{}", text(&refused));
    assert!(unix_get(&path).await.ends_with("alive\n"));

    first.signal(Signal::SIGKILL);
    drop(first);
    assert!(path.exists(), "a killed process leaves its socket");
    let mut second = start("660");
    eventually("the socket works again", async || UnixStream::connect(&path).await.is_ok()).await;
    second.signal(Signal::SIGTERM);
    assert!(second.exit().await.success());
    assert!(!path.exists(), "a drained process removes its socket");

    fs::write(&path, "precious").unwrap();
    let refused = run(&["--listen", &address, "--admin-listen", "127.0.0.1:0"], Some(TOKEN));
    assert!(text(&refused).contains("not a socket"), "{}", text(&refused));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn http2_without_tls() {
    let gateway = Gateway::start("memory:");
    let stream = TcpStream::connect(&gateway.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let target = format!("http://gateway/v1/sessions/{}", fresh_id());
    let mut call = async |method: &str, body: &'static str| {
        let mut request = request(method, &target, &[("content-type", "application/json")], body);
        request.headers_mut().remove("host");
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        assert_eq!(head.headers["session-gateway"], "1");
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(call("GET", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(call("PUT", r#"{"n":1}"#).await.0, StatusCode::CREATED);
    let (status, headers, body) = call("HEAD", "").await;
    assert_eq!((status, headers["content-length"].as_bytes(), body), (StatusCode::OK, &b"7"[..], Bytes::new()));
    assert_eq!(call("GET", "").await.2, r#"{"n":1}"#);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let gateway = Gateway::start_with("memory:", &["--idle-timeout", "100ms"]);
    let mut idle = TcpStream::connect(&gateway.address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nhost: g\r\n\r\n").await.unwrap();
    assert!(rest(idle).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn connections_are_bounded() {
    let gateway = Gateway::start_with("memory:", &["--max-connections", "1"]);
    let mut first = Connection::open(&gateway.address).await.unwrap();
    // A caller that has shown a good token never has to make room.
    let target = format!("/v1/sessions/{}", fresh_id());
    let get = || request("GET", &target, &[], "");
    first.send(get()).await.unwrap();
    let mut second = Connection::open(&gateway.address).await.unwrap();
    let mut waiting = Box::pin(second.send(get()));
    assert!(timeout(Duration::from_millis(100), &mut waiting).await.is_err(), "served beyond the bound");
    drop(first);
    assert_eq!(waiting.await.unwrap().status, 404);
}

fn run(flags: &[&str], token: Option<&str>) -> Output {
    let mut command = command();
    if let Some(token) = token {
        command.env("SESSION_GATEWAY_TOKEN", token);
    }
    command.args(flags).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn it_does_not_start_without_a_token() {
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let missing = text(&run(&ports, None));
    assert!(missing.contains("set SESSION_GATEWAY_TOKEN"), "{missing}");
    let short = text(&run(&ports, Some("0123456789,hunter2")));
    assert!(short.contains("shorter than 16") && !short.contains("hunter2"), "{short}");
    let file = [&ports[..], &["--token-file", "/nonexistent"]].concat();
    assert!(text(&run(&file, None)).contains("--token-file /nonexistent"));
    assert!(text(&run(&file, Some(TOKEN))).contains("use one of them"));
}

#[tokio::test]
async fn the_token_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("token"), dir.path().join("socket"));
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut process = command()
        .args(["--listen", &format!("unix:{}", socket.display()), "--admin-listen", "127.0.0.1:0"])
        .env("SESSION_GATEWAY_TOKEN_FILE", &file)
        .spawn()
        .unwrap();
    eventually("the socket", async || UnixStream::connect(&socket).await.is_ok()).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(
        UnixStream::connect(&socket).await.unwrap(),
    ))
    .await
    .unwrap();
    tokio::spawn(connection);
    let target = format!("/v1/sessions/{}", fresh_id());
    let status = sender.send_request(request("GET", &target, &[], "")).await.map(|answer| answer.status());
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(status.unwrap(), StatusCode::NOT_FOUND);
}

#[test]
fn mistakes_name_their_flag() {
    for (flag, value) in [
        ("--listen", "9100"),
        ("--admin-listen", "unix:relative"),
        ("--unix-socket-mode", "999"),
        ("--store", "redis://h:1"),
        ("--store", "memcached://h:1?replicas=2"),
        ("--key-prefix", "a b"),
        ("--max-session-bytes", "2000000"),
        ("--max-body-bytes", "1"),
        ("--body-timeout", "5"),
        ("--store-timeout", "0s"),
        ("--tombstone-ttl", "1500ms"),
        ("--max-sessions-per-subject", "1001"),
        ("--on-max-sessions", "panic"),
        ("--idle-timeout", "soon"),
        ("--max-connections", "0"),
        ("--drain-timeout", "-1s"),
        ("--workers", "0"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
    ] {
        let said = text(&run(&[&format!("{flag}={value}")], Some(TOKEN)));
        assert!(said.contains(flag), "{flag}={value}: {said}");
        assert!(!said.contains("RUST_BACKTRACE"), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = text(&run(&["--listen", &address, "--admin-listen", "127.0.0.1:0"], Some(TOKEN)));
    assert!(said.contains(&address), "{said}");
}
