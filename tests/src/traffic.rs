//! Clients that keep sending requests while something is changed, and detect every failed request and every lost write.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use serde_json::json;

use crate::browser::Browser;
use crate::http::{Request, Response};
use crate::wait;

/// Enough to have several requests in Envoy and several calls to the gateway under way at any time.
const CLIENTS: usize = 6;

/// How many more rounds each client has to come through before [`Traffic::goes_on`] is content.
const ROUNDS: usize = 2;

/// Clients that are at work until they are told to stop. Each is logged in, and in each round changes its session and
/// reads it again.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Where requests are sent to in turn, as a load balancer does. Held while a request is under way.
    ports: RwLock<Vec<u16>>,
    requests: AtomicUsize,
    is_over: AtomicBool,
    rounds: Vec<AtomicUsize>,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    /// Logs the clients in and lets them begin.
    pub fn start(port: u16) -> Self {
        let shared = Arc::new(Shared {
            ports: RwLock::new(vec![port]),
            requests: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            rounds: (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
            failures: Mutex::default(),
        });
        let clients = (0..CLIENTS).map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work(number))
        });
        let traffic = Self { clients: clients.collect(), shared };
        traffic.goes_on();
        traffic
    }

    /// Sends the requests to these ports from now on; none is under way to another when this returns.
    pub fn send_to(&self, ports: &[u16]) {
        let mut current = self.shared.ports.write().unwrap_or_else(PoisonError::into_inner);
        ports.clone_into(&mut current);
    }

    /// Waits until every client has come through some more rounds, and fails if any request has failed by then.
    pub fn goes_on(&self) {
        let before: Vec<usize> = self.shared.rounds();
        wait::until("all clients come through", || {
            self.assert_no_failure();
            let now = self.shared.rounds();
            // The round that was under way counts for nothing: it may have begun before the change.
            before.iter().zip(now).all(|(before, now)| now > before + ROUNDS).then_some(())
        });
    }

    /// Ends it. No request may have failed, and no session may have been lost.
    pub fn end(mut self) {
        self.stop();
        self.assert_no_failure();
    }

    fn assert_no_failure(&self) {
        let failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = self.shared.requests.load(Ordering::SeqCst);
        assert!(failures.is_empty(), "of {requests} requests: {failures:#?}");
    }

    fn stop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            if client.join().is_err() {
                self.shared.failed("a client panicked".to_owned());
            }
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn rounds(&self) -> Vec<usize> {
        self.rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst)).collect()
    }

    fn failed(&self, failure: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    /// What a client does until it is over or something has gone wrong.
    fn work(&self, number: usize) {
        let user = format!("user-{number}");
        let mut browser = Browser::new(0);
        let login = Request::get("/").respond("x-session-patch", json!({"user": user}).to_string());
        if self.send(&mut browser, login).is_none() {
            return;
        }
        let (mut round, mut id) = (0, None);
        while !self.is_over.load(Ordering::SeqCst) {
            round += 1;
            let write = Request::get("/").respond("x-session-patch", json!({"n": round}).to_string());
            if self.send(&mut browser, write).is_none() {
                return;
            }
            let Some(answer) = self.send(&mut browser, Request::get("/")) else { return };
            let seen = answer.seen();
            let found = (seen.state(), seen.data());
            if found != ("active".to_owned(), json!({"user": user, "n": round})) {
                return self.failed(format!("{user} after round {round}: {found:?}"));
            }
            if seen.id() != *id.get_or_insert_with(|| seen.id()) {
                return self.failed(format!("{user} after round {round}: another session, {}", seen.id()));
            }
            if let Some(rounds) = self.rounds.get(number) {
                rounds.store(round, Ordering::SeqCst);
            }
        }
    }

    fn send(&self, browser: &mut Browser, request: Request) -> Option<Response> {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        let turn = self.requests.fetch_add(1, Ordering::SeqCst);
        let port = *ports.get(turn % ports.len())?;
        browser.go_to(port);
        let answer = browser.try_send(request);
        match answer {
            Some(answer) if answer.status == 200 => Some(answer),
            Some(answer) => {
                self.failed(format!("port {port}: {} {}", answer.status, answer.text()));
                None
            }
            None => {
                self.failed(format!("port {port}: no answer"));
                None
            }
        }
    }
}
