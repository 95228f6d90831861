//! What a session is and how a write changes it, without I/O.
//!
//! Everything here is a function of its arguments: the clock and random bytes are passed in. The gateway reads a record
//! from its store, lets this crate compute the next one, and writes that. The filter takes from here what both have to
//! agree on: ids, versions, which tokens a rotation ends, and the headers of the gateway's API.
//!
//! | module | answers |
//! |---|---|
//! | [`id`], [`version`], [`time`] | what a session is called, how often it changed, what time it is |
//! | [`record`], [`merge_patch`] | what is stored of a session, and how a write changes it |
//! | [`rotation`] | which tokens of a session are still good |
//! | [`principal`] | who is logged in, where several sites share a gateway |
//! | [`subject`], [`epoch`] | which sessions of a subject are good, and how all of them end at once |
//! | [`gateway_api`], [`limits`] | which headers the filter and the gateway speak to each other, and their limits |

pub mod epoch;
pub mod gateway_api;
pub mod id;
pub mod limits;
pub mod merge_patch;
pub mod principal;
pub mod record;
pub mod rotation;
pub mod subject;
pub mod time;
pub mod version;
