//! Limits the calls in flight, and makes connections wait when there are many.
//!
//! If a gateway gets more calls than it can serve, an answer arrives later than its caller waits for it. So there is a
//! limit, and a call beyond it is refused while that is still cheap: before its body is read, and before it waits for
//! anything. But reading and refusing a call costs as much as serving one from memory. So from a quarter of the limit
//! on, connections are read only in turn, as calls end. A call that is not read waits with its caller, which has a
//! limit of its own.

use std::sync::Arc;
use std::time::Duration;

use session::limits::DEFAULT_CALL_TIMEOUT;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::metrics::{CallGuard, Metrics};

/// How long a connection waits for its turn to be read. Together with what follows, it has to be shorter than the time
/// that callers wait.
const MAX_WAIT: Duration = Duration::from_millis(100);
const _: () = assert!(MAX_WAIT.as_millis() < DEFAULT_CALL_TIMEOUT.as_millis(), "callers give up first");

/// The calls in flight.
#[derive(Clone)]
pub struct InFlight(Arc<Calls>);

struct Calls {
    free: Arc<Semaphore>,
    /// With at least this many free places, connections are read without waiting. A read may bring as many calls as a
    /// connection has streams. There is then room for them, both here and in the queue of a memcached node.
    plenty: usize,
    /// Tells a connection that it is its turn.
    turn: Notify,
    metrics: Metrics,
}

/// A call's place among them, which it has until this is dropped.
pub struct CallPlace {
    permit: Option<OwnedSemaphorePermit>,
    calls: Arc<Calls>,
    _counted: CallGuard,
}

impl InFlight {
    /// Allows at most `limit` calls.
    #[must_use]
    pub fn new(limit: usize, metrics: Metrics) -> Self {
        let free = Arc::new(Semaphore::new(limit));
        Self(Arc::new(Calls { free, plenty: limit - limit / 4, turn: Notify::new(), metrics }))
    }

    /// A place, if there is one now.
    #[must_use]
    pub fn enter(&self) -> Option<CallPlace> {
        let calls = Arc::clone(&self.0);
        let permit = Arc::clone(&calls.free).try_acquire_owned().ok()?;
        let counted = calls.metrics.call();
        Some(CallPlace { permit: Some(permit), calls, _counted: counted })
    }

    /// Whether connections are read without waiting.
    pub(crate) fn is_roomy(&self) -> bool {
        self.0.free.available_permits() >= self.0.plenty
    }

    /// Waits until there is room and no other connection's turn is earlier, but never for long.
    pub(crate) async fn turn(self) {
        let turn = async {
            loop {
                self.0.turn.notified().await;
                if self.is_roomy() {
                    break;
                }
            }
        };
        let _ = timeout(MAX_WAIT, turn).await;
    }

    /// If nothing arrived on a connection, the next one takes its turn.
    pub(crate) fn pass(&self) {
        if self.is_roomy() {
            self.0.turn.notify_one();
        }
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        drop(self.permit.take());
        if self.calls.free.available_permits() >= self.calls.plenty {
            self.calls.turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn calls(limit: usize) -> InFlight {
        InFlight::new(limit, Metrics::default())
    }

    #[test]
    fn so_many_are_in_flight() {
        let calls = calls(2);
        let (first, _second) = (calls.enter().unwrap(), calls.enter().unwrap());
        assert!(calls.enter().is_none());
        drop(first);
        assert!(calls.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_take_turns_as_calls_end() {
        let calls = calls(4);
        let mut places: Vec<_> = (0..4).map(|_| calls.enter().unwrap()).collect();
        assert!(!calls.is_roomy());
        let mut turns: Vec<_> = (0..3).map(|_| Box::pin(calls.clone().turn())).collect();
        let mut ready = || turns.iter_mut().map(|turn| turn.as_mut().now_or_never().is_some()).collect::<Vec<_>>();
        assert_eq!(ready(), [false; 3]);
        for _ in 0..2 {
            places.pop();
            assert_eq!(ready(), [false; 3], "more than a quarter is in flight");
        }
        places.pop();
        assert!(calls.is_roomy());
        assert_eq!(ready(), [true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_passes_its_turn_on() {
        let calls = calls(1);
        let place = calls.enter();
        let (mut first, mut second) = (Box::pin(calls.clone().turn()), Box::pin(calls.clone().turn()));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(place);
        assert!(first.as_mut().now_or_never().is_some() && second.as_mut().now_or_never().is_none());
        calls.pass();
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_connection_waits_for_long() {
        let calls = calls(1);
        let _place = calls.enter();
        let started = tokio::time::Instant::now();
        calls.turn().await;
        assert_eq!(started.elapsed(), MAX_WAIT);
    }
}
