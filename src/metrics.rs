//! The metrics of `session_filter` as Envoy's.
//!
//! A request only adds to numbers in the VM's own memory. The worker hands them to Envoy about once a second:
//! one hostcall for each counter that has grown, however many requests there were.

use std::cell::Cell;

use session_abi::hostcalls::{self, Metric as Kind};

use crate::host;
use session_filter::counter::{CALLOUT_MS, Counter, Counts};

/// One metric of Envoy's, and by how much it is behind.
struct Metric {
    id: u32,
    behind: Cell<i64>,
}

/// The metrics of one worker.
pub(crate) struct Metrics {
    /// In the order of [`Counter::ALL`].
    counters: Vec<Option<Metric>>,
    callout_ms: Option<u32>,
}

impl Metrics {
    pub(crate) fn define() -> Self {
        let define = |counter: &Counter| {
            let id = hostcalls::define_metric(Kind::Counter, counter.name()).ok()?;
            Some(Metric { id, behind: Cell::new(0) })
        };
        Self {
            counters: Counter::ALL.iter().map(define).collect(),
            callout_ms: hostcalls::define_metric(Kind::Histogram, CALLOUT_MS).ok(),
        }
    }

    /// A callout took this long. There is one only where there is a round trip to the gateway, so this need not wait.
    pub(crate) fn callout_took(&self, millis: u64) {
        if let Some(id) = self.callout_ms
            && hostcalls::record_metric(id, millis).is_err()
        {
            host::error("a histogram could not be recorded");
        }
    }

    pub(crate) fn raise(&self, counts: Counts) {
        for counter in counts.iter() {
            if let Some(Some(metric)) = self.counters.get(counter as usize) {
                metric.behind.update(|behind| behind + 1);
            }
        }
    }

    /// Brings Envoy's metrics up to date.
    pub(crate) fn flush(&self) {
        for (metric, counter) in self.counters.iter().zip(Counter::ALL) {
            let Some(Metric { id, behind }) = metric else { continue };
            // Envoy calls an increment by nothing an error.
            let growth = behind.take();
            if growth > 0 && hostcalls::increment_metric(*id, growth).is_err() {
                host::error(&format!("{} could not be raised", counter.name()));
            }
        }
    }
}
