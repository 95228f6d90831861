//! The gateway from outside: the real program, real sockets, a real memcached.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for; clippy only sees that in functions marked #[test]"
)]

mod api;
mod concurrency;
mod documentation;
mod healthcheck;
mod hostile;
mod layouts;
mod lifecycle;
mod lost_answers;
mod outage;
mod panics;
mod pressure;
mod realms;
mod replicas;
mod session_limit;
mod store_contract;
mod subject_races;
mod subjects;
mod support;
