//! What the streams of one worker and configuration share.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use session_core::config::Config;

use crate::entropy::Entropy;
use crate::flights::Flights;
use crate::host;
use crate::metrics::Metrics;

/// How soon the root context takes up what was left to it: the shortest that Envoy's timers know.
const SOON: Duration = Duration::from_millis(1);

pub(crate) struct Worker {
    pub(crate) config: Rc<Config>,
    pub(crate) metrics: Metrics,
    pub(crate) entropy: RefCell<Entropy>,
    pub(crate) flights: RefCell<Flights>,
    pub(crate) root_id: u32,
}

impl Worker {
    pub(crate) fn new(config: Config, root_id: u32) -> Self {
        Self {
            config: Rc::new(config),
            metrics: Metrics::define(),
            entropy: RefCell::default(),
            flights: RefCell::default(),
            root_id,
        }
    }

    /// Changes what the root context has to do, and wakes it if the change says so.
    ///
    /// Callbacks never nest, so the borrow never fails; should it ever, the waiters wait for the stream's
    /// idle timeout, which is better than a panic.
    pub(crate) fn leave<T>(&self, change: impl FnOnce(&mut Flights) -> (T, bool)) -> Option<T> {
        let (result, is_left) = change(&mut *self.flights.try_borrow_mut().ok()?);
        if is_left {
            host::tick(SOON);
        }
        Some(result)
    }
}
