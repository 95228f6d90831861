//! The decisions of session-mesh, without I/O.
//!
//! Everything here is a function of its arguments: the clock, random bytes and
//! whatever came over the network are passed in, and what should be done comes back as values.
//! The Envoy filter and the gateway are the two edges that carry those values out.
//!
//! | module | answers |
//! |---|---|
//! | [`id`], [`version`], [`time`] | what a session is called, how often it changed, what time it is |
//! | [`secret`], [`token`], [`binding`] | what opens a session from outside, and from where |
//! | [`cookie`], [`set_cookie`] | how the token travels |
//! | [`merge_patch`], [`record`], [`rotation`] | what a stored session is, and how a write changes it |
//! | [`principal`] | who is logged in, where several sites share a gateway |
//! | [`subject`], [`epoch`] | which sessions of somebody are good, and how all of them end at once |
//! | [`gateway_api`], [`upstream_api`] | which headers the parts speak to each other |
//! | [`config`] | what the operator wants |
//! | [`path`] | which rule a request's path falls under |
//! | [`found`], [`cache`] | what is known of a session, and for how long |
//! | [`exchange`] | what happens to one request and its response |
//! | [`edit`], [`counter`] | what the edge is asked to do, and to count |

pub mod binding;
pub mod cache;
pub mod config;
pub mod cookie;
mod cookie_expiry;
pub mod counter;
pub mod edit;
pub mod epoch;
pub mod exchange;
mod exposed;
pub mod found;
pub mod gateway_api;
pub mod id;
pub mod merge_patch;
pub mod path;
pub mod principal;
pub mod record;
mod renewals;
pub mod rotation;
pub mod secret;
pub mod set_cookie;
pub mod subject;
pub mod time;
pub mod token;
pub mod upstream_api;
pub mod version;
