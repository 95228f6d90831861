//! What the proxy decides, without I/O: whether a token opens a session, what an upstream gets to see of it, what a
//! response does to it.
//!
//! Everything here is a function of its arguments: the clock, random bytes and whatever came over the network are
//! passed in, and what should be done comes back as values. The wasm module is the edge that carries those values out.
//! What a session is, and what the gateway makes of a write, is in [`session`].
//!
//! | module | answers |
//! |---|---|
//! | [`secret`], [`token`], [`binding`] | what opens a session from outside, and from where |
//! | [`cookie`], [`set_cookie`] | how the token travels |
//! | [`upstream_api`] | which headers the filter and upstreams speak to each other |
//! | [`config`] | what the operator wants |
//! | [`path`] | which rule a request's path falls under |
//! | [`found`], [`cache`] | what is known of a session, and for how long |
//! | [`exchange`] | what happens to one request and its response |
//! | [`edit`], [`counter`] | what the edge is asked to do, and to count |
//!
//! With the feature `testing` there is also what tests, benches and fuzz targets share: a gateway, a cache, headers.

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
