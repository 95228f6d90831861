//! Work that no caller waits for: extending sessions that were read, removing sessions that have ended.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The maximum number of concurrent tasks. Beyond that, a caller does the work itself, which slows it down.
const MAX_TASKS: u32 = 256;

/// Tasks under way.
pub(super) struct BackgroundTasks(Arc<Semaphore>);

impl BackgroundTasks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_TASKS as usize)))
    }

    /// Starts `task`, or runs it now if there are many already.
    pub(super) async fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        match Arc::clone(&self.0).try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(async move {
                    task.await;
                    drop(place);
                });
            }
            Err(_) => task.await,
        }
    }

    /// Waits until the tasks that were started are done.
    pub(super) async fn finish(&self) {
        // All permits are free when all tasks are done; the semaphore is never closed.
        let _ = self.0.acquire_many(MAX_TASKS).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn beyond_the_bound_callers_do_the_work_themselves() {
        let background = BackgroundTasks::new();
        let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
        let task = || {
            let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
            async move {
                let _ = gate.acquire().await;
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        for _ in 0..MAX_TASKS {
            background.run(task()).await;
        }
        let mut one_more = Box::pin(background.run(task()));
        assert!((&mut one_more).now_or_never().is_none());
        gate.add_permits(1);
        one_more.await;
        background.finish().await;
        assert_eq!(done.load(Ordering::SeqCst), MAX_TASKS + 1);
        background.run(async {}).await;
    }
}
