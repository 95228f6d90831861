//! A write is sent to memcached and the connection breaks before its answer: the gateway finds out whether it was made,
//! or says that it does not know.

use std::sync::{Arc, Mutex};

use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::support::fresh_id;
use super::support::gateway::{Gateway, JSON, PATCH};
use super::support::memcached::Memcached;

/// What happens to the next write that passes.
enum Fault {
    /// It gets there, its answer does not get back.
    AnswerLost,
    /// It does not even get there.
    RequestLost,
    /// As `AnswerLost`, with a pause: it says when the write is done, and waits to be told to go on.
    AnswerLostAfter(oneshot::Sender<()>, oneshot::Receiver<()>),
}

/// Stands between a gateway and memcached.
struct Proxy {
    address: String,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Proxy {
    async fn start(node: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fault = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&fault);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&node).await.unwrap();
                tokio::spawn(pass_on(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, fault }
    }

    fn next_write(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }
}

async fn pass_on(mut client: TcpStream, mut server: TcpStream, fault: Arc<Mutex<Option<Fault>>>) {
    let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                let next = if request.starts_with(b"ms ") { fault.lock().unwrap().take() } else { None };
                if matches!(next, Some(Fault::RequestLost)) {
                    return;
                }
                server.write_all(&request[..length]).await.unwrap();
                if let Some(next) = next {
                    assert_ne!(server.read(&mut reply).await.unwrap(), 0);
                    if let Fault::AnswerLostAfter(done, go_on) = next {
                        done.send(()).unwrap();
                        go_on.await.unwrap();
                    }
                    return;
                }
            }
            read = server.read(&mut reply) => {
                let Ok(length @ 1..) = read else { return };
                client.write_all(&reply[..length]).await.unwrap();
            }
        }
    }
}

/// A gateway behind the proxy, and one that sees memcached directly.
struct Setup {
    proxy: Proxy,
    gateway: Gateway,
    direct: Gateway,
    _memcached: Memcached,
}

async fn setup() -> Setup {
    let memcached = Memcached::start();
    let proxy = Proxy::start(memcached.node()).await;
    let start = async |node: &str| {
        let store = format!("memcached://{node}?exchange_timeout=20s&connect_timeout=20s&queue_timeout=20s");
        // In another thread, because the proxy is in this one.
        let start = move || Gateway::start_with(&store, &["--store-timeout", "40s"]);
        tokio::task::spawn_blocking(start).await.unwrap()
    };
    let gateway = start(&proxy.address).await;
    // To the other gateway, the same node has another name.
    assert_eq!(memcached.command("delete sm:l:nodes").trim(), "DELETED");
    let direct = start(&memcached.node()).await;
    Setup { proxy, gateway, direct, _memcached: memcached }
}

#[tokio::test]
async fn a_change_is_made_exactly_once() {
    let Setup { proxy, gateway, direct, _memcached } = setup().await;
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    for (fault, version) in [(Fault::AnswerLost, 2), (Fault::RequestLost, 3)] {
        proxy.next_write(fault);
        let patched = gateway.patch(&id, &json!({ "n": version }).to_string()).await.expect(StatusCode::OK);
        assert_eq!(patched.header("etag"), Some(format!("\"{version}\"").as_str()));
        let read = direct.get(&id).await.expect(StatusCode::OK);
        assert_eq!((read.header("etag"), read.json()), (patched.header("etag"), json!({ "n": version })));
    }
    assert_eq!(gateway.metric("session_gateway_store_lost_answers_total").await, 2);
}

#[tokio::test]
async fn a_precondition_is_not_blamed_on_the_writers_own_change() {
    let Setup { proxy, gateway, _memcached, .. } = setup().await;
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    proxy.next_write(Fault::AnswerLost);
    let only_if = [PATCH, ("if-match", "\"1\"")];
    gateway.session("PATCH", &id, &only_if, r#"{"n":1}"#).await.expect(StatusCode::OK);
    proxy.next_write(Fault::RequestLost);
    let only_if = [PATCH, ("if-match", "\"2\"")];
    gateway.session("PATCH", &id, &only_if, r#"{"n":2}"#).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_known_is_not_claimed() {
    let Setup { proxy, gateway, direct, _memcached } = setup().await;
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let (done, is_done) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    proxy.next_write(Fault::AnswerLostAfter(done, may_go_on));
    let other = async {
        is_done.await.unwrap();
        direct.patch(&id, r#"{"other":1}"#).await.expect(StatusCode::OK);
        go_on.send(()).unwrap();
    };
    let (patched, ()) = tokio::join!(gateway.patch(&id, r#"{"n":1}"#), other);
    let patched = patched.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(patched.header("retry-after"), Some("1"));
    // The acknowledged write is there, and the other was not made twice.
    let read = direct.get(&id).await.expect(StatusCode::OK);
    assert_eq!((read.json(), read.header("etag")), (json!({"n": 1, "other": 1}), Some("\"3\"")));
}

#[tokio::test]
async fn a_creation_recognises_itself() {
    let Setup { proxy, gateway, direct, _memcached } = setup().await;
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let id = fresh_id();
        proxy.next_write(fault);
        let created = gateway.put(&id, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
        assert_eq!(created.header("etag"), Some("\"1\""));
        assert_eq!(direct.get(&id).await.expect(StatusCode::OK).body, created.body);
    }
    // Another caller changed it before the creator could look: it may be the creator's session, or not.
    let id = fresh_id();
    let (done, is_done) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    proxy.next_write(Fault::AnswerLostAfter(done, may_go_on));
    let other = async {
        is_done.await.unwrap();
        direct.patch(&id, r#"{"other":1}"#).await.expect(StatusCode::OK);
        go_on.send(()).unwrap();
    };
    let (created, ()) = tokio::join!(gateway.put(&id, "{}"), other);
    created.expect(StatusCode::SERVICE_UNAVAILABLE);
    // With merging there is a right answer all the same.
    let merge = [JSON, ("session-merge-within", "60")];
    proxy.next_write(Fault::AnswerLost);
    let merged = gateway.session("PUT", &id, &merge, r#"{"n":1}"#).await;
    merged.expect(StatusCode::OK);
    assert_eq!(direct.get(&id).await.json(), json!({"n": 1, "other": 1}));
}

#[tokio::test]
async fn an_end_is_an_end() {
    let Setup { proxy, gateway, direct, _memcached } = setup().await;
    let token: &[_] = &[("session-seen-version", "1")];
    let faults = [Fault::AnswerLost, Fault::RequestLost, Fault::AnswerLost, Fault::RequestLost];
    for (fault, token) in faults.into_iter().zip([&[], &[], token, token]) {
        let id = fresh_id();
        gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
        proxy.next_write(fault);
        gateway.session("DELETE", &id, token, "").await.expect(StatusCode::NO_CONTENT);
        direct.get(&id).await.expect(StatusCode::NOT_FOUND);
        direct.put(&id, "{}").await.expect(StatusCode::CONFLICT);
    }
}

/// The first write of a login is the one to the subject's record.
#[tokio::test]
async fn a_login_is_entered_once_and_a_revocation_is_made() {
    let Setup { proxy, gateway, direct, _memcached } = setup().await;
    let id = gateway.logged_in("alice").await;
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let id = fresh_id();
        gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
        proxy.next_write(fault);
        let login = gateway.patch(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
        assert_eq!(login.header("etag"), Some("\"2\""));
        direct.get(&id).await.expect(StatusCode::OK);
    }
    assert_eq!(direct.listed("alice").await.len(), 3);
    proxy.next_write(Fault::RequestLost);
    gateway.revoke("alice", &format!("?except={id}")).await;
    assert_eq!(direct.listed("alice").await, [id.as_str()]);
    proxy.next_write(Fault::AnswerLost);
    gateway.revoke("alice", "").await;
    direct.get(&id).await.expect(StatusCode::NOT_FOUND);
}
