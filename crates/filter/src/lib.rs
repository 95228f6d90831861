//! What the proxy decides, without I/O: whether a token opens a session, what an upstream sees of the session, and how
//! a response changes it.
//!
//! Everything here is a function of its arguments: the clock, random bytes and whatever came over the network are
//! passed in, and what should be done is returned as values. The wasm module is the edge that carries these out. What a
//! session is, and what the gateway does with a write, is in [`session`].
//!
//! In reading order:
//!
//! | module | answers |
//! |---|---|
//! | [`secret`], [`token`], [`binding`] | what opens a session from outside, and from where |
//! | [`cookie`], [`set_cookie`] | how the token travels |
//! | [`upstream_api`] | which headers the filter and upstreams exchange |
//! | [`config`] | what the operator wants |
//! | [`path`] | which rule applies to a request's path |
//! | [`found`], [`cache`] | what is known about a session, and for how long |
//! | [`exchange`] | what happens to one request and its response |
//! | [`edit`], [`counter`] | what the edge is asked to do and to count |
//!
//! [`exchange`] is the state machine that uses all the others: start there to see how they work together.
//!
//! The feature `testing` adds what tests, benches and fuzz targets share: a gateway, a cache, headers.

pub mod binding;
pub mod cache;
pub mod config;
pub mod cookie;
mod cookie_expiry;
pub mod counter;
pub mod edit;
pub mod exchange;
mod exposed;
pub mod found;
pub mod path;
mod renewals;
pub mod secret;
pub mod set_cookie;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token;
pub mod upstream_api;
