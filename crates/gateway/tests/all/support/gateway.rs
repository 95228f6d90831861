//! The real program.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use session::id::SessionId;

use super::http::{Connection, Reply};
use super::{PATIENCE, eventually, fresh_id};

pub(crate) const TOKEN: &str = "test-token-0123456789";
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const PATCH: (&str, &str) = ("content-type", "application/merge-patch+json");
pub(crate) const PATCHES: (&str, &str) = ("content-type", "application/vnd.session-mesh.merge-patches+json");

/// A running gateway; killed when dropped.
pub(crate) struct Gateway {
    process: Child,
    /// `host:port` of the API.
    pub(crate) address: String,
    pub(crate) admin: String,
    log: Arc<Mutex<String>>,
}

/// The program with nothing of the tests' environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-gateway"));
    command.env_clear().stdin(Stdio::null());
    command
}

impl Gateway {
    /// On free ports, over the store of that URL.
    pub(crate) fn start(store: &str) -> Self {
        Self::start_with(store, &[])
    }

    pub(crate) fn start_with(store: &str, flags: &[&str]) -> Self {
        let mut process = command()
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--log-level", "debug", "--store", store])
            .args(flags)
            .env("SESSION_GATEWAY_TOKEN", format!("another-token-98765,{TOKEN}"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (send, receive) = channel();
        let (lines, kept) = (BufReader::new(process.stderr.take().unwrap()).lines(), Arc::clone(&log));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str::<Value>(&line)
                    && let Some(address) = line["address"].as_str()
                {
                    let _ = send.send(address.to_owned());
                }
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut gateway = Self { process, address: String::new(), admin: String::new(), log };
        for address in [&mut gateway.address, &mut gateway.admin] {
            // On failure the drop says what the log has.
            *address = receive.recv_timeout(PATIENCE).expect("the gateway did not start");
        }
        gateway
    }

    /// For tests in which nothing is meant to be slow, on machines that are.
    pub(crate) fn start_patient(store: &str, flags: &[&str]) -> Self {
        Self::start_with(store, &[&["--store-timeout", "20s"], flags].concat())
    }

    /// One request with a good token, on a connection of its own.
    pub(crate) async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut connection = Connection::open(&self.address).await.unwrap();
        connection.send(request(method, target, headers, body)).await.unwrap()
    }

    /// A call on one session; `what` is its id and perhaps a query.
    pub(crate) async fn session(&self, method: &str, what: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let reply = self.call(method, &format!("/v1/sessions/{what}"), headers, body).await;
        let id = what.split('?').next().unwrap();
        let named = reply.header("session-id");
        assert_eq!(named, id.parse::<SessionId>().is_ok().then_some(id), "{reply:?}");
        reply
    }

    pub(crate) async fn get(&self, id: &str) -> Reply {
        self.session("GET", id, &[], "").await
    }

    pub(crate) async fn put(&self, id: &str, body: &str) -> Reply {
        self.session("PUT", id, &[JSON], body).await
    }

    pub(crate) async fn patch(&self, id: &str, body: &str) -> Reply {
        self.session("PATCH", id, &[PATCH], body).await
    }

    /// A new session of that subject.
    pub(crate) async fn logged_in(&self, subject: &str) -> String {
        let id = fresh_id();
        self.put(&id, &json!({ "user": subject }).to_string()).await.expect(StatusCode::CREATED);
        id
    }

    /// Ends the subject's sessions; `which` is a query or nothing.
    pub(crate) async fn revoke(&self, subject: &str, which: &str) {
        let target = format!("/v1/subjects/{subject}/revoke{which}");
        self.call("POST", &target, &[], "").await.expect(StatusCode::NO_CONTENT);
    }

    /// The ids of the subject's sessions.
    pub(crate) async fn listed(&self, subject: &str) -> Vec<String> {
        let target = format!("/v1/subjects/{subject}/sessions");
        let list = self.call("GET", &target, &[], "").await.expect(StatusCode::OK).json();
        list.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn admin(&self, path: &str) -> Reply {
        let mut connection = Connection::open(&self.admin).await.unwrap();
        connection.send(request("GET", path, &[], "")).await.unwrap()
    }

    pub(crate) async fn ready_turns(&self, status: u16) {
        eventually("readyz", async || self.admin("/readyz").await.status == status).await;
    }

    /// The value of a metric without labels, or of one line with them.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.admin("/metrics").await.body;
        let text = str::from_utf8(&text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("exit", async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}

pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(target).header("host", "gateway");
    request = request.header("authorization", format!("Bearer {TOKEN}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}
