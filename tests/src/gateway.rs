//! The session gateway, and its API as an application on the private network would use it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::built;
use crate::http::{Request, Response};
use crate::ports;
use crate::process::Process;

/// The bearer token that the tests' gateways and filters share.
pub const TOKEN: &str = "end-to-end-gateway-token";

/// A gateway; it may be stopped and started again on the same ports.
pub struct Gateway {
    port: u16,
    admin_port: u16,
    store: String,
    log_level: &'static str,
    socket: PathBuf,
    process: Option<Process>,
    _folder: TempDir,
}

impl Gateway {
    /// Starts a gateway on a store: `memory:` or `memcached://…`.
    pub fn start(store: &str) -> Self {
        Self::start_with_log(store, "info")
    }

    /// Starts a gateway that logs at this level.
    pub fn start_with_log(store: &str, log_level: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let socket = folder.path().join("gateway.sock");
        let (port, admin_port) = (ports::free(), ports::free());
        let mut gateway =
            Self { port, admin_port, store: store.to_owned(), log_level, socket, process: None, _folder: folder };
        gateway.start_again();
        gateway
    }

    /// Where the API is served over TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the API is served over a unix socket.
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// The process; there is none while it is stopped.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway runs")
    }

    /// Everything that it has logged since it was started.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Kills it, as a crash would.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate();
        }
    }

    /// Asks it to end and starts it again, as an upgrade would.
    pub fn restart(&mut self) {
        self.terminate();
        self.start_again();
    }

    /// Starts it after [`Self::stop`].
    pub fn start_again(&mut self) {
        let mut command = Command::new(built::gateway());
        command
            .arg(format!("--listen=127.0.0.1:{},unix:{}", self.port, self.socket.display()))
            .arg(format!("--admin-listen=127.0.0.1:{}", self.admin_port))
            .arg(format!("--store={}", self.store))
            .arg(format!("--log-level={}", self.log_level))
            .env("SESSION_GATEWAY_TOKEN", TOKEN);
        let mut process = Process::start("session-gateway", command, "It is part of this repository.");
        process.until(|| Request::get("/readyz").try_send(self.admin_port).filter(|answer| answer.status == 200));
        self.process = Some(process);
    }

    /// Sends a call of the API.
    pub fn call(&self, request: Request) -> Response {
        request.header("authorization", format!("Bearer {TOKEN}")).send(self.port)
    }

    /// The data of a session, if there is one.
    pub fn data(&self, id: &str) -> Option<Value> {
        let answer = self.call(Request::get(&format!("/v1/sessions/{id}")));
        match answer.status {
            200 => Some(answer.json()),
            404 => None,
            status => panic!("the gateway answered {status}: {}", answer.text()),
        }
    }

    /// How many calls of the API it has answered.
    pub fn calls(&self) -> u64 {
        self.metric("session_gateway_requests_total")
    }

    /// How many connections of callers are open.
    pub fn connections(&self) -> u64 {
        self.metric("session_gateway_connections")
    }

    /// A metric, summed over its labels.
    pub fn metric(&self, name: &str) -> u64 {
        let page = Request::get("/metrics").send(self.admin_port).text();
        let series = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        series
            .map(|line| {
                let value = line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
                value.unwrap_or_else(|| panic!("no number in {line:?}"))
            })
            .sum()
    }
}
