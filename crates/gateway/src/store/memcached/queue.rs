//! The queue in which operations on a node wait for a connection: first come, first served, with limits for their
//! number and time.
//!
//! An overloaded node has not failed. It stays in use, and operations that it can't serve in time get
//! [`StoreError::Overloaded`](crate::store::StoreError::Overloaded). A node has failed only if it answers no operation
//! for as long as one waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// How many operations may wait for each connection. A healthy node completes these within milliseconds, and an
/// unhealthy one delays no more calls than that.
const WAITING_FOR_EACH: usize = 4;

pub(super) struct Queue {
    /// Fair: the operation that has waited longest is next.
    connections: Semaphore,
    places: Semaphore,
    longest_wait: Duration,
    /// Incremented with each answer of the node, whatever the answer.
    answers: AtomicU64,
}

/// The right to use one connection, until this is dropped.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held, not used")] SemaphorePermit<'a>);

/// Why an operation does not get its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    /// The node answers, but other operations were first.
    Overloaded,
    /// It has answered no operation during the whole wait.
    Silent,
}

impl Queue {
    pub(super) const fn new(connections: usize, longest_wait: Duration) -> Self {
        Self {
            connections: Semaphore::const_new(connections),
            places: Semaphore::const_new(connections.saturating_mul(WAITING_FOR_EACH)),
            longest_wait,
            answers: AtomicU64::new(0),
        }
    }

    /// For an operation without which others were made in vain: it needs no place among those that wait.
    pub(super) async fn turn_to_finish(&self, longest_wait: Duration) -> Result<Turn<'_>, QueueError> {
        match timeout(longest_wait, self.connections.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            _ => Err(QueueError::Overloaded),
        }
    }

    pub(super) async fn turn(&self) -> Result<Turn<'_>, QueueError> {
        if let Ok(free) = self.connections.try_acquire() {
            return Ok(Turn(free));
        }
        let place = self.places.try_acquire().map_err(|_| QueueError::Overloaded)?;
        let before = self.answers.load(Ordering::Relaxed);
        let turn = timeout(self.longest_wait, self.connections.acquire()).await;
        drop(place);
        // The semaphore is never closed.
        if let Ok(Ok(permit)) = turn {
            return Ok(Turn(permit));
        }
        let is_silent = self.answers.load(Ordering::Relaxed) == before;
        Err(if is_silent { QueueError::Silent } else { QueueError::Overloaded })
    }

    /// The node has answered an operation.
    pub(super) fn heard(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const FOREVER: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn what_has_to_be_finished_needs_no_place_and_waits_longer() {
        let queue = Queue::new(1, Duration::from_millis(1));
        let only = queue.turn().await.ok();
        assert!(only.is_some());
        let mut waiting: Vec<_> = (0..WAITING_FOR_EACH).map(|_| Box::pin(queue.turn())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert_eq!(queue.turn().await.err(), Some(QueueError::Overloaded));
        let mut finishing = Box::pin(queue.turn_to_finish(FOREVER));
        assert!(finishing.as_mut().now_or_never().is_none());
        drop((only, waiting));
        assert!(finishing.await.is_ok());
    }

    #[tokio::test]
    async fn the_longest_wait_is_next() {
        let queue = Queue::new(1, FOREVER);
        let first = queue.turn().await;
        let (mut second, mut third) = (Box::pin(queue.turn()), Box::pin(queue.turn()));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        assert!(queue.turn().now_or_never().is_none(), "no operation jumps the queue");
        let second = second.await;
        drop(second);
        assert!(third.await.is_ok());
    }

    #[tokio::test]
    async fn so_many_may_wait() {
        let queue = Queue::new(2, FOREVER);
        let held = (queue.turn().await, queue.turn().await);
        let mut waiting: Vec<_> = (0..2 * WAITING_FOR_EACH).map(|_| Box::pin(queue.turn())).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert_eq!(queue.turn().await.err(), Some(QueueError::Overloaded));
        // An operation that gives up leaves its place to another one.
        waiting.pop();
        assert!(queue.turn().now_or_never().is_none());
        drop(held);
    }

    #[tokio::test]
    async fn a_node_that_answers_others_has_not_failed() {
        let queue = Queue::new(1, Duration::from_millis(1));
        let held = queue.turn().await;
        let (turn, ()) = tokio::join!(queue.turn(), async { queue.heard() });
        assert_eq!(turn.err(), Some(QueueError::Overloaded));
        assert_eq!(queue.turn().await.err(), Some(QueueError::Silent));
        drop(held);
    }
}
