//! Two copies on real memcacheds: no overload and no node that comes and goes loses a change or brings something back.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

/// Two gateways on the same two memcacheds.
struct Copies {
    nodes: [Memcached; 2],
    gateways: [Gateway; 2],
}

impl Copies {
    fn start(options: &str) -> Self {
        let nodes = [Memcached::start(), Memcached::start()];
        let [one, two] = nodes.each_ref().map(|node| node.url().replace("memcached://", ""));
        let url = format!("memcached://{one},{two}?replicas=2{options}");
        let copies = Self { nodes, gateways: [Gateway::start(&url), Gateway::start(&url)] };
        copies.until_degraded(0);
        copies
    }

    /// An Envoy without copies of its own, which sends its calls to both gateways.
    fn mesh(&self) -> Mesh {
        let ports = self.gateways.each_ref().map(Gateway::port);
        Mesh::configured(|envoy| {
            envoy.plugin(json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}})).cluster("session_gateway", &ports)
        })
    }

    /// Waits until both gateways have said so.
    fn until_degraded(&self, pairs: u64) {
        for gateway in &self.gateways {
            wait::until("the nodes are as expected", || {
                (gateway.metric("session_gateway_store_pairs_degraded") == pairs).then_some(())
            });
        }
    }

    /// Ends a node and waits until the other one is used without it.
    fn lose(&mut self, node: usize) {
        self.nodes[node].stop();
        self.until_degraded(1);
    }

    /// Starts it again, empty, and waits until it has everything.
    fn regain(&mut self, node: usize) {
        self.nodes[node].start_again();
        self.until_degraded(0);
    }

    /// Stops a node for as long as it takes to be taken out of use, and waits until it is in use again.
    fn suspend(&self, node: usize) {
        self.nodes[node].process().pause();
        self.until_degraded(1);
        self.nodes[node].process().resume();
        self.until_degraded(0);
    }

    /// What both gateways have logged about nodes that were taken out of use.
    fn said_of_lone_nodes(&self) -> Vec<String> {
        let logs = self.gateways.each_ref().map(Gateway::log);
        let said = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("without its second"));
        said.map(str::to_owned).collect()
    }
}

fn path(session: u32) -> String {
    format!("/v1/sessions/{session:032x}")
}

fn put(session: u32, data: &Value) -> Request {
    Request::new("PUT", &path(session)).header("content-type", "application/json").body(data.to_string())
}

fn patch(session: u32, data: &Value) -> Request {
    let patch = Request::new("PATCH", &path(session)).header("content-type", "application/merge-patch+json");
    patch.body(data.to_string())
}

/// Sends a call until it is answered with something other than "not known". Those that do not wait in between are the
/// overload.
fn insist(gateway: &Gateway, request: impl Fn() -> Request) -> Response {
    wait::until("an answer", || {
        let answer = gateway.call(request());
        if answer.status != 503 {
            return Some(answer);
        }
        thread::sleep(Duration::from_millis(100));
        None
    })
}

/// The last of the values under `n` that a client knows to be saved, and the last that it tried to save.
#[derive(Clone, Copy, Default)]
struct Counter {
    saved: u32,
    tried: u32,
}

impl Counter {
    fn next(&mut self) -> Value {
        self.tried += 1;
        json!({ "n": self.tried })
    }

    fn wrote(&mut self, answer: &Response) {
        match answer.status {
            200 | 201 => self.saved = self.tried,
            503 => {}
            status => panic!("a write was answered with {status}: {}", answer.text()),
        }
    }

    fn read(&mut self, n: &Value) {
        let n = u32::try_from(n.as_u64().unwrap()).unwrap();
        assert!((self.saved..=self.tried).contains(&n), "{n} is none of {} to {}", self.saved, self.tried);
        // What was seen stays.
        self.saved = n;
    }
}

#[test]
fn an_overload_is_no_failure() {
    const CLIENTS: u32 = 150;
    const ROUNDS: usize = 5;
    // So few connections that many calls find none.
    let copies = Copies::start("&max_connections=8&queue_timeout=50ms");
    let refused = AtomicU32::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (copies, refused) = (&copies, &refused);
            scope.spawn(move || {
                let gateway = |round: usize| &copies.gateways[(client as usize + round) % 2];
                let created = insist(gateway(0), || put(client, &json!({"n": 0}))).status;
                // An attempt whose answer was not known may have succeeded.
                assert!(created == 201 || created == 409, "{created}");
                let mut counter = Counter::default();
                for round in 0..ROUNDS {
                    let change = counter.next();
                    let answer = gateway(round).call(patch(client, &change));
                    refused.fetch_add(u32::from(answer.status == 503), Ordering::Relaxed);
                    counter.wrote(&answer);
                    let answer = gateway(round + 1).call(Request::get(&path(client)));
                    match answer.status {
                        200 => counter.read(&answer.json()["n"]),
                        status => assert_eq!(status, 503, "{}", answer.text()),
                    }
                }
                if client % 3 == 0 {
                    let ended = gateway(0).call(Request::new("DELETE", &path(client)));
                    if ended.status == 204 {
                        let after = insist(gateway(1), || Request::get(&path(client)));
                        assert_eq!(after.status, 404, "{}", after.text());
                    }
                } else {
                    let after = insist(gateway(1), || Request::get(&path(client)));
                    assert_eq!(after.status, 200, "{}", after.text());
                    counter.read(&after.json()["n"]);
                }
            });
        }
    });
    assert_ne!(refused.load(Ordering::Relaxed), 0, "there was no overload");
    assert_eq!(copies.said_of_lone_nodes(), [""; 0]);
    for gateway in &copies.gateways {
        assert_eq!(gateway.metric("session_gateway_store_nodes_down"), 0);
    }
}

#[test]
fn nodes_come_and_go_and_nothing_is_lost_or_comes_back() {
    /// Sessions that nobody uses while nodes come and go.
    const QUIET: u32 = 60;
    const BUSY: u32 = 4;
    let mut copies = Copies::start("");
    for session in 0..QUIET {
        assert_eq!(copies.gateways[0].call(put(session, &json!({"n": session}))).status, 201);
    }
    let is_over = AtomicBool::new(false);
    let rounds: Vec<AtomicU32> = (0..BUSY).map(|_| AtomicU32::new(0)).collect();
    let ports = copies.gateways.each_ref().map(Gateway::port);
    let mesh = copies.mesh();
    thread::scope(|scope| {
        for (client, rounds) in rounds.iter().enumerate() {
            let (is_over, mesh) = (&is_over, &mesh);
            scope.spawn(move || {
                let mut browser = mesh.browser();
                let mut counter = Counter::default();
                let mut login = counter.next();
                login["user"] = json!(format!("user-{client}"));
                let answer = browser.send(Request::get("/").respond("x-session-patch", login.to_string()));
                counter.wrote(&answer);
                while !is_over.load(Ordering::SeqCst) {
                    let change = counter.next().to_string();
                    counter.wrote(&browser.send(Request::get("/").respond("x-session-patch", change)));
                    let answer = browser.get("/");
                    if answer.status == 200 {
                        let seen = answer.seen();
                        assert_eq!(seen.state(), "active", "user-{client} is logged out");
                        counter.read(&seen.data()["n"]);
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        // Sessions are logged out all the time, and what has ended is asked for again and again.
        let is_over = &is_over;
        let ended = scope.spawn(move || {
            let call = |number: usize, request: Request| {
                let token = format!("Bearer {}", session_mesh_e2e::gateway::TOKEN);
                request.header("authorization", token).send(ports[number % 2])
            };
            let (mut ended, mut next) = (Vec::new(), 1_000);
            while !is_over.load(Ordering::SeqCst) {
                next += 1;
                if call(0, put(next, &json!({"user": "mallory"}))).status == 201
                    && call(1, Request::new("DELETE", &path(next))).status == 204
                {
                    ended.push(next);
                }
                for (number, session) in ended.iter().rev().step_by(7).take(5).enumerate() {
                    let status = call(number, Request::get(&path(*session))).status;
                    assert!(status == 404 || status == 503, "session {session} has ended, but: {status}");
                }
            }
            ended
        });
        let goes_on = || {
            let before: Vec<_> = rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst)).collect();
            wait::until("all clients come through", || {
                let now = rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst));
                now.zip(&before).all(|(now, before)| now > before + 3).then_some(())
            });
        };
        goes_on();
        copies.suspend(0);
        copies.lose(1);
        // Without it, everything goes on.
        goes_on();
        copies.regain(1);
        copies.suspend(1);
        copies.lose(0);
        copies.regain(0);
        goes_on();
        is_over.store(true, Ordering::SeqCst);
        let ended = ended.join().expect("nothing that ended came back");
        assert!(ended.len() > 10, "{}", ended.len());
        // Both nodes have lost everything in turn. What nobody asked for is there all the same, on either.
        copies.lose(1);
        for session in 0..QUIET {
            let answer = insist(&copies.gateways[1], || Request::get(&path(session)));
            assert_eq!((answer.status, answer.json()), (200, json!({"n": session})));
        }
        for session in ended {
            assert_eq!(insist(&copies.gateways[0], || Request::get(&path(session))).status, 404);
        }
    });
}
