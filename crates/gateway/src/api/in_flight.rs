//! How many calls may be in flight at a time.
//!
//! Beyond what a gateway can serve, whoever waits longer than its caller does is served for nobody. So there is a bound, and
//! a call beyond it is refused while that is still cheap: before its body is read, and before it waits for anything.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Refusal;
use crate::metrics::{CallGuard, Metrics};

/// The calls in flight.
pub(super) struct InFlight {
    free: Arc<Semaphore>,
    metrics: Metrics,
}

/// A call's place among them, until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: CallGuard,
}

impl InFlight {
    pub(super) fn new(most: usize, metrics: Metrics) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), metrics }
    }

    /// A place, if there is one right now.
    pub(super) fn enter(&self) -> Result<Place, Refusal> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
        Ok(Place { _permit: permit, _counted: self.metrics.call() })
    }
}
