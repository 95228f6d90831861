//! What the streams of one worker and configuration share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use session_core::config::Config;
use session_core::counter::Counts;

use crate::entropy::Entropy;
use crate::flights::{Flights, Left};
use crate::host;
use crate::metrics::Metrics;

/// How soon the root context takes up what streams wait for: the shortest that Envoy's timers know.
const SOON: Duration = Duration::from_millis(1);
/// How long counts may be gathered before Envoy sees them.
const LATER: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    pub(crate) config: Rc<Config>,
    pub(crate) entropy: RefCell<Entropy>,
    metrics: Metrics,
    flights: RefCell<Flights>,
    pub(crate) root_id: u32,
    /// What the root context's timer is set to; `None` while it is off.
    alarm: Cell<Option<Duration>>,
}

impl Worker {
    pub(crate) fn new(config: Config, root_id: u32) -> Self {
        Self {
            config: Rc::new(config),
            entropy: RefCell::default(),
            metrics: Metrics::define(),
            flights: RefCell::default(),
            root_id,
            alarm: Cell::new(None),
        }
    }

    /// Counts for Envoy to see within a second.
    pub(crate) fn count(&self, counts: Counts) {
        if counts != Counts::default() {
            self.metrics.raise(counts);
            self.wake_within(LATER);
        }
    }

    /// A callout was answered, which had been sent at this time.
    pub(crate) fn callout_answered(&self, sent_ms: u64) {
        self.metrics.callout_took(host::now_ms().saturating_sub(sent_ms));
    }

    /// Brings Envoy's metrics up to date.
    pub(crate) fn flush_counts(&self) {
        self.metrics.flush();
    }

    /// Changes what the root context has to do, and wakes it if the change says so.
    ///
    /// Callbacks never nest, so the borrow never fails; should it ever, the waiters wait for the stream's
    /// idle timeout, which is better than a panic.
    pub(crate) fn leave<T>(&self, change: impl FnOnce(&mut Flights) -> (T, bool)) -> Option<T> {
        let (result, is_left) = change(&mut *self.flights.try_borrow_mut().ok()?);
        if is_left {
            self.wake_within(SOON);
        }
        Some(result)
    }

    /// Sets the root context's timer, unless it fires soon enough: setting it again would put it off.
    fn wake_within(&self, delay: Duration) {
        if self.alarm.get().is_none_or(|alarm| delay < alarm) {
            self.alarm.set(Some(delay));
            host::tick(delay);
        }
    }

    /// Turns the timer off, which has fired, and takes what there is to do.
    pub(crate) fn wake(&self) -> Left {
        self.alarm.set(None);
        host::tick(Duration::ZERO);
        self.metrics.flush();
        self.flights.try_borrow_mut().map(|mut flights| std::mem::take(&mut flights.left)).unwrap_or_default()
    }
}
