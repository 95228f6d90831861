//! The metrics of `session_filter` as the host's.
//!
//! A request only adds to numbers in the VM's own memory. They are passed to the host about once a second, with one
//! hostcall for each counter that has changed, whatever the number of requests.

use session_filter::counter::{CALLOUT_MS, Counter, Counts};

use crate::host::Host;

/// A counter of the host, and how far it is behind.
struct Gathered {
    id: u32,
    behind: i64,
}

/// The metrics of one configuration.
pub(crate) struct Metrics {
    /// In the order of [`Counter::ALL`].
    counters: Vec<Option<Gathered>>,
    callout_ms: Option<u32>,
}

impl Metrics {
    pub(crate) fn define(host: &impl Host) -> Self {
        let define = |counter: &Counter| Some(Gathered { id: host.define_counter(counter.name())?, behind: 0 });
        Self { counters: Counter::ALL.iter().map(define).collect(), callout_ms: host.define_histogram(CALLOUT_MS) }
    }

    /// Records how long a callout took. This happens only once per round trip to the gateway, so it need not be
    /// batched.
    pub(crate) fn callout_took(&self, host: &impl Host, millis: u64) {
        if let Some(id) = self.callout_ms {
            host.record(id, millis);
        }
    }

    pub(crate) fn raise(&mut self, counts: Counts) {
        for counter in counts.iter() {
            if let Some(Some(gathered)) = self.counters.get_mut(counter as usize) {
                gathered.behind += 1;
            }
        }
    }

    /// Brings the host's counters up to date.
    pub(crate) fn flush(&mut self, host: &impl Host) {
        for Gathered { id, behind } in self.counters.iter_mut().flatten() {
            // Envoy treats an increment by zero as an error.
            if *behind > 0 {
                host.raise(*id, *behind);
                *behind = 0;
            }
        }
    }
}
