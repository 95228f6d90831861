//! The counters of `session_core` as Envoy metrics.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;
use session_core::counter::{Counter, Counts};

/// The metrics' ids, in the order of [`Counter::ALL`].
#[derive(Default)]
pub(crate) struct Metrics {
    ids: Vec<Option<u32>>,
}

impl Metrics {
    pub(crate) fn define() -> Self {
        let define = |counter: &Counter| hostcalls::define_metric(MetricType::Counter, counter.name()).ok();
        Self { ids: Counter::ALL.iter().map(define).collect() }
    }

    pub(crate) fn raise(&self, counts: Counts) {
        for counter in counts.iter() {
            if let Some(Some(id)) = self.ids.get(counter as usize)
                && hostcalls::increment_metric(*id, 1).is_err()
            {
                log::error!("{} could not be raised", counter.name());
            }
        }
    }
}
