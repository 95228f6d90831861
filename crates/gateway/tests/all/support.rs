//! The processes that the tests start, and their clients.

pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod memcached;

use std::time::{Duration, Instant};

/// How long a condition may take to come true. Generous: it only matters when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A session id of its own for each call.
pub(crate) fn fresh_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    session::id::SessionId::from_bytes(bytes).to_string()
}

/// Who `alice` is without a realm.
pub(crate) fn alice() -> session::principal::Principal {
    session::principal::Principal { realm: None, subject: "alice".to_owned() }
}

/// The same tests over each store, with these flags.
macro_rules! over_both_stores {
    ($flags:tt, $($test:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                super::$test(&$crate::support::gateway::Gateway::start_patient("memory:", &$flags)).await;
            })+
        }
        mod memcached {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                let memcached = $crate::support::memcached::Memcached::start();
                let store = format!("{}?exchange_timeout=10s&connect_timeout=10s&queue_timeout=10s", memcached.url());
                super::$test(&$crate::support::gateway::Gateway::start_patient(&store, &$flags)).await;
            })+
        }
    };
}
pub(crate) use over_both_stores;
