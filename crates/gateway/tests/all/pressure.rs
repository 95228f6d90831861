//! Callers that take what they can: connections, time, calls.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::PATIENCE;
use super::support::fresh_id;
use super::support::gateway::{Gateway, TOKEN, request};
use super::support::http::Connection;
use super::support::memcached::Memcached;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What those send who never finish a head.
const BEGINNINGS: [&[u8]; 6] = [
    b"",
    b"G",
    b"GET /v1/sessions/00000000000000000000000000000000 HTTP/1.1\r\nhost: g\r\n",
    b"PRI * HTTP/2.0\r\n",
    PREFACE,
    // Headers of HTTP/2 whose continuation never comes.
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82",
];

async fn opened(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Waits until the server closes it.
async fn closes(mut stream: TcpStream) {
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("the connection stays open");
}

async fn kept_open(connections: usize, address: &str) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for beginning in BEGINNINGS.iter().cycle().take(connections) {
        streams.push(opened(address, beginning).await);
    }
    streams
}

#[tokio::test]
async fn silent_and_half_sent_connections_end() {
    let gateway = Gateway::start_with("memory:", &["--header-timeout", "100ms"]);
    for address in [&gateway.address, &gateway.admin] {
        for beginning in BEGINNINGS {
            closes(opened(address, beginning).await).await;
        }
        // Nor does a byte now and then keep it.
        let mut slow = opened(address, b"GET / HTTP/1.1\r\nx: ").await;
        let started = Instant::now();
        while slow.write_all(b"x").await.is_ok() {
            assert!(started.elapsed() < PATIENCE, "a slow head goes on for ever");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Answers do not make a stranger welcome.
    let nothing = b"GET /v1/sessions/0 HTTP/1.1\r\nhost: g\r\n\r\n";
    closes(opened(&gateway.address, nothing).await).await;
}

#[tokio::test]
async fn a_callers_idle_connection_stays_and_its_half_sent_one_ends() {
    let gateway = Gateway::start_with("memory:", &["--header-timeout", "100ms"]);
    let target = format!("/v1/sessions/{}", fresh_id());
    let mut connection = Connection::open(&gateway.address).await.unwrap();
    for _ in 0..3 {
        connection.send(request("GET", &target, &[], "")).await.unwrap().expect(StatusCode::NOT_FOUND);
        // Three times as long as a head may take; that it stays open is what is tested.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let head = format!("GET {target} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let mut half_sent = opened(&gateway.address, head.as_bytes()).await;
    let mut answer = vec![0; 12];
    half_sent.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 404");
    half_sent.write_all(b"GET /v1/").await.unwrap();
    closes(half_sent).await;
}

/// Nobody waits for the timeout: whoever was first makes room.
#[tokio::test]
async fn strangers_do_not_keep_callers_out() {
    let gateway = Gateway::start_with("memory:", &["--header-timeout", "1h", "--max-connections", "16"]);
    let mut caller = Connection::open(&gateway.address).await.unwrap();
    let target = format!("/v1/sessions/{}", fresh_id());
    caller.send(request("GET", &target, &[], "")).await.unwrap().expect(StatusCode::NOT_FOUND);
    let strangers = kept_open(200, &gateway.address).await;
    gateway.put(&fresh_id(), "{}").await.expect(StatusCode::CREATED);
    // A caller's connection is not what room is made of.
    caller.send(request("GET", &target, &[], "")).await.unwrap().expect(StatusCode::NOT_FOUND);
    drop(strangers);
}

#[tokio::test]
async fn the_admin_port_answers_beside_strangers() {
    let gateway = Gateway::start_with("memory:", &["--header-timeout", "1h"]);
    let strangers = kept_open(200, &gateway.admin).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
    }
    drop(strangers);
}

/// memcached drops what it has under a key when a larger value than it keeps is set.
#[tokio::test]
async fn what_memcached_would_not_keep_is_refused_and_loses_nothing() {
    let small = || Memcached::start_with("-1", &["-I", "32k", "-o", "slab_chunk_max=16384"]);
    let (one, other) = (small(), small());
    let both = format!("memcached://{},{}?replicas=2", one.node(), other.node());
    for store in [one.url(), both] {
        let gateway = Gateway::start(&store);
        let id = fresh_id();
        gateway.put(&id, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
        // Around the limit, too: nowhere may memcached be the one to refuse.
        for length in (31_800..33_000).step_by(50).chain([40_000]) {
            let body = format!(r#"{{"x":"{}"}}"#, "x".repeat(length));
            let patched = gateway.patch(&id, &body).await;
            assert!([200, 413].contains(&patched.status), "{length}: {patched:?}");
            // In between it depends on what else is in the record.
            assert!((32_300..32_700).contains(&length) || (patched.status == 413) == (length >= 32_700), "{length}");
            gateway.get(&id).await.expect(StatusCode::OK);
        }
        gateway
            .put(&fresh_id(), &format!(r#"{{"x":"{}"}}"#, "x".repeat(40_000)))
            .await
            .expect(StatusCode::PAYLOAD_TOO_LARGE);
        assert!(!gateway.log().contains("the store fails"));
    }
}
