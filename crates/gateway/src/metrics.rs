//! What the gateway counts, in the Prometheus text format.
//!
//! Every name here is in `docs/gateway.md`; a test compares the two.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: from a read on the same machine to the filter's default timeout and beyond.
const LATENCY_BUCKETS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// The process's metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    store: Family<StoreLabels, Counter>,
    cas_retries: Counter,
    lost_answers: Counter,
    nodes_down: Gauge,
    pairs_degraded: Gauge,
    keys_to_move: Gauge,
    repairs: Counter,
    panics: Counter,
    connections: Gauge,
    calls: Gauge,
    calls_refused: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabels {
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// What is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// Calls in flight in this gateway.
    Calls,
    /// Operations that wait for the store.
    Store,
}

impl TooMuch {
    const fn word(self) -> &'static str {
        match self {
            Self::Calls => "max_calls",
            Self::Store => "store",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("session_gateway");
        let requests = Family::default();
        registry.register("requests", "API requests", requests.clone());
        let latency = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        registry.register("request_duration_seconds", "Time from a request's headers to its answer", latency.clone());
        let store = Family::default();
        registry.register("store_operations", "Operations on the store", store.clone());
        let cas_retries = Counter::default();
        registry.register(
            "cas_retries",
            "Writes retried because another write came first or an answer was lost",
            cas_retries.clone(),
        );
        let lost_answers = Counter::default();
        registry.register(
            "store_lost_answers",
            "Writes sent to the store whose answer never came",
            lost_answers.clone(),
        );
        let nodes_down = Gauge::default();
        registry.register(
            "store_nodes_down",
            "Nodes that do not answer, with replicas of 2 or more",
            nodes_down.clone(),
        );
        let pairs_degraded = Gauge::default();
        registry.register(
            "store_pairs_degraded",
            "Pairs of nodes of which only one has everything, with replicas=2",
            pairs_degraded.clone(),
        );
        let keys_to_move = Gauge::default();
        registry.register(
            "store_keys_to_move",
            "1 while sessions are being moved from the previous store, 0 when none is left there",
            keys_to_move.clone(),
        );
        let repairs = Counter::default();
        registry.register("store_repairs", "Copies that were missing or old, brought up to date", repairs.clone());
        let panics = Counter::default();
        registry.register("panics", "Requests that ended in a panic: report these", panics.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open API connections", connections.clone());
        let calls = Gauge::default();
        registry.register("calls_in_flight", "API calls with a valid token that are being processed", calls.clone());
        let calls_refused = Family::default();
        registry.register("calls_refused", "API calls refused because of overload", calls_refused.clone());
        for reason in [TooMuch::Calls, TooMuch::Store] {
            // It exists from the start, so that an alert on its rate sees the first event.
            drop(calls_refused.get_or_create(&RefusalLabels { reason: reason.word() }));
        }
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running build", build);
        Self(Arc::new(Inner {
            registry,
            requests,
            latency,
            store,
            cas_retries,
            lost_answers,
            nodes_down,
            pairs_degraded,
            keys_to_move,
            repairs,
            panics,
            connections,
            calls,
            calls_refused,
        }))
    }

    /// Counts an answered request.
    pub fn request(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let labels = RequestLabels { method, route, status };
        self.0.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { method, route };
        self.0.latency.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a store operation by its result, in one word.
    pub fn store(&self, operation: &'static str, result: &'static str) {
        self.0.store.get_or_create(&StoreLabels { operation, result }).inc();
    }

    /// Counts another round of a write.
    pub fn cas_retry(&self) {
        self.0.cas_retries.inc();
    }

    /// Counts a write whose outcome is unknown.
    pub fn lost_answer(&self) {
        self.0.lost_answers.inc();
    }

    /// A node of the store no longer answers.
    pub fn node_down(&self) {
        self.0.nodes_down.inc();
    }

    /// It answers again.
    pub fn node_up(&self) {
        self.0.nodes_down.dec();
    }

    /// Only one node of a pair has everything, or both have again.
    pub fn pair_degraded(&self, is_degraded: bool) {
        if is_degraded {
            self.0.pairs_degraded.inc();
        } else {
            self.0.pairs_degraded.dec();
        }
    }

    /// Whether there may be keys to move from the previous store.
    pub fn keys_to_move(&self, are_there: bool) {
        self.0.keys_to_move.set(i64::from(are_there));
    }

    /// Counts copies that were brought up to date.
    pub fn repaired(&self, copies: usize) {
        self.0.repairs.inc_by(copies as u64);
    }

    /// Counts a panic.
    pub fn panic(&self) {
        self.0.panics.inc();
    }

    /// Counts a connection for as long as the guard lives.
    #[must_use]
    pub fn connection(&self) -> ConnectionGuard {
        self.0.connections.inc();
        ConnectionGuard(self.clone())
    }

    /// Counts a call in flight for as long as the guard lives.
    #[must_use]
    pub fn call(&self) -> CallGuard {
        self.0.calls.inc();
        CallGuard(self.clone())
    }

    /// Counts a call that was refused because of overload.
    pub fn call_refused(&self, of: TooMuch) {
        self.0.calls_refused.get_or_create(&RefusalLabels { reason: of.word() }).inc();
    }

    /// All metrics, in the format of a scrape.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(4096);
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// An open connection, in the gauge.
pub struct ConnectionGuard(Metrics);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.0.connections.dec();
    }
}

/// A call in flight, in the gauge.
pub struct CallGuard(Metrics);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.0.calls.dec();
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_BUCKETS)
}
