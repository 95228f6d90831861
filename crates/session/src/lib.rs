//! What a session is and how a write changes it, without I/O.
//!
//! A session is some data (a JSON object) under an id, with a version that counts its changes. The client has a *token*
//! for it: the id, a version and the time of issue, signed by the filter. The gateway stores the session as a *record*.
//!
//! Everything here is a function of its arguments: the clock and random bytes are passed in. The gateway reads a record
//! from its store, lets this crate compute the next one, and writes it. The filter uses the parts that both must agree
//! on: ids, versions, which tokens a rotation invalidates, and the headers of the gateway's API.
//!
//! In reading order:
//!
//! | module | answers |
//! |---|---|
//! | [`id`], [`version`], [`time`] | what a session is called, how often it has changed, what time it is |
//! | [`merge_patch`] | how a patch changes a session's data |
//! | [`rotation`] | which tokens of a session are still good |
//! | [`record`] | what is stored of a session, and how a write changes it |
//! | [`principal`] | who is logged in, and on which of the sites that share a gateway |
//! | [`subject`], [`epoch`] | which sessions of a subject are good, and how all of them end at once |
//! | [`gateway_api`], [`limits`] | the headers that the filter and the gateway exchange, and their limits |

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
