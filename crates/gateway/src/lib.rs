//! The session gateway: HTTP in front of a session store.
//!
//! `docs/gateway-api.md` describes its API, and `docs/gateway.md` how to run it. A request passes through these modules
//! from top to bottom:
//!
//! | module | does |
//! |---|---|
//! | [`server`] | listens, speaks HTTP, drains |
//! | [`api`] | turns requests into calls, outcomes into answers |
//! | [`sessions`] | reads, merges, and repeats compare-and-swap until it succeeds |
//! | [`store`] | keeps bytes under keys: in memory or in memcached |
//! | [`config`], [`admin`], [`healthcheck`](mod@healthcheck) | how operators configure it and check its health |
//! | [`logging`], [`metrics`] | what operators see of it |
//! | [`environment`] | the time and random numbers |
//!
//! What a session is and how a write changes it is decided in [`session::record`], without I/O.

pub mod admin;
pub mod api;
pub mod config;
pub mod environment;
pub mod healthcheck;
pub mod in_flight;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod sessions;
pub mod store;
