//! The session gateway: HTTP in front of a session store.
//!
//! `docs/gateway-api.md` is its API, `docs/gateway.md` how to run it. A request goes down this table:
//!
//! | module | does |
//! |---|---|
//! | [`server`] | listens, speaks HTTP, drains |
//! | [`api`] | turns requests into calls, outcomes into answers |
//! | [`sessions`] | reads, merges, compares-and-swaps until it wins |
//! | [`store`] | keeps bytes under keys: in memory or in memcached |
//! | [`config`], [`admin`], [`healthcheck`](mod@healthcheck) | how operators steer it and ask for its health |
//! | [`logging`], [`metrics`] | what operators see of it |
//!
//! What a session is and how a write changes it is decided in [`session::record`], without I/O.

pub mod admin;
pub mod api;
pub mod config;
pub mod healthcheck;
pub mod in_flight;
pub mod logging;
pub mod metrics;
pub mod server;
pub mod sessions;
pub mod store;
