//! Callers that use as much as they can: connections, time, calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::gateway::{Gateway, JSON, TOKEN, request};
use super::support::http::Connection;
use super::support::memcached::Memcached;
use super::support::{PATIENCE, eventually, fresh_id};

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

/// No caller waits for the timeout: the first connection makes room.
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

/// Beyond the limit a call is refused at once; a caller without a token has no place to take.
#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_bound_are_refused_at_once() {
    let memcached = Memcached::start();
    let store = memcached.url() + "?exchange_timeout=1h&connect_timeout=1h&queue_timeout=1h";
    let gateway = Arc::new(Gateway::start_with(&store, &["--max-calls", "2", "--store-timeout", "1h"]));
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    memcached.freeze();
    let waiting: Vec<_> = [(); 2]
        .map(|()| {
            let (gateway, id) = (Arc::clone(&gateway), id.clone());
            tokio::spawn(async move { gateway.get(&id).await })
        })
        .into();
    eventually("both are in flight", async || gateway.metric("session_gateway_calls_in_flight").await == 2).await;
    for call in [("GET", ""), ("PUT", "{}"), ("PATCH", "{}"), ("DELETE", "")] {
        let refused = gateway.session(call.0, &id, &[JSON], call.1).await;
        assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("overloaded")), "{refused:?}");
        assert_eq!((refused.header("retry-after"), refused.header("session-gateway")), (Some("1"), Some("1")));
    }
    let mut stranger = Connection::open(&gateway.address).await.unwrap();
    let asked = Request::get(format!("/v1/sessions/{id}")).header("host", "g").body(Full::default()).unwrap();
    stranger.send(asked).await.unwrap().expect(StatusCode::UNAUTHORIZED);
    for path in ["/healthz", "/metrics"] {
        assert_eq!(gateway.admin(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.metric(r#"session_gateway_calls_refused_total{reason="max_calls"}"#).await, 4);
    assert!(gateway.log().contains("calls are refused") && !gateway.log().contains("the store is failing"));
    memcached.thaw();
    for call in waiting {
        call.await.unwrap().expect(StatusCode::OK);
    }
    eventually("no call is in flight", async || gateway.metric("session_gateway_calls_in_flight").await == 0).await;
    gateway.get(&id).await.expect(StatusCode::OK);
}

/// A caller that sends its body slowly keeps no other out.
#[tokio::test]
async fn a_slow_body_takes_no_place() {
    let gateway = Gateway::start_with("memory:", &["--max-calls", "1"]);
    let id = fresh_id();
    let head = format!(
        "PUT /v1/sessions/{id} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    );
    let mut slow = opened(&gateway.address, head.as_bytes()).await;
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    slow.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "it was let in, and its body is waited for");
    eventually("its place is free", async || gateway.put(&fresh_id(), "{}").await.status == 201).await;
    slow.write_all(b"{}").await.unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 201");
}

/// Passes on to a node what it is asked, one answer after the other with a pause, as a node does that has much to do.
async fn slow_node(node: String, pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&node).await.unwrap();
            tokio::spawn(async move {
                let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
                while let Ok(length @ 1..) = client.read(&mut request).await {
                    server.write_all(&request[..length]).await.unwrap();
                    let length = server.read(&mut reply).await.unwrap();
                    tokio::time::sleep(pause).await;
                    if client.write_all(&reply[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// With one connection, and more calls than it can take: some are refused, and no node is taken for down.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_too_much_to_do_has_not_failed() {
    const CALLS: usize = 40;
    let nodes = [Memcached::start(), Memcached::start()];
    let slow = |at: usize| slow_node(nodes[at].node(), Duration::from_millis(20));
    let (one, other) = (slow(0).await, slow(1).await);
    for (nodes, replicas) in [(one.clone(), 1), (format!("{one},{other}"), 2)] {
        let store = format!(
            "memcached://{nodes}?replicas={replicas}&max_connections=1&queue_timeout=100ms&exchange_timeout=30s&connect_timeout=30s"
        );
        let prefix = format!("copies-{replicas}:");
        let flags = ["--store-timeout", "30s", "--key-prefix", &prefix];
        let gateway = Arc::new(Gateway::start_with(&store, &flags));
        let id = fresh_id();
        gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
        let calls = (0..CALLS).map(|_| {
            let (gateway, id) = (Arc::clone(&gateway), id.clone());
            tokio::spawn(async move { gateway.get(&id).await })
        });
        let (mut served, mut refused) = (0, 0);
        for answer in join_all(calls).await {
            let answer = answer.unwrap();
            match answer.status {
                200 => served += 1,
                503 => {
                    assert_eq!(answer.json()["type"], "overloaded", "{answer:?}");
                    refused += 1;
                }
                _ => panic!("{answer:?}"),
            }
        }
        assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
        assert_eq!(gateway.metric(r#"session_gateway_calls_refused_total{reason="store"}"#).await, refused);
        assert!(
            !gateway.log().contains("the store is failing") && !gateway.log().contains("down"),
            "{}",
            gateway.log()
        );
        gateway.get(&id).await.expect(StatusCode::OK);
    }
}

/// memcached drops what it has under a key when a larger value than it keeps is set.
#[tokio::test]
async fn what_memcached_would_not_keep_is_refused_and_loses_nothing() {
    let small = || Memcached::start_with("-1", &["-I", "32k", "-o", "slab_chunk_max=16384"]);
    let (one, other) = (small(), small());
    let both = format!("memcached://{},{}?replicas=2", one.node(), other.node());
    for (store, prefix) in [(one.url(), "one-copy:"), (both, "two-copies:")] {
        let gateway = Gateway::start_with(&store, &["--key-prefix", prefix]);
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
        assert!(!gateway.log().contains("the store is failing"));
    }
}
