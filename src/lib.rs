//! The Envoy filter: callbacks in, hostcalls out.
//!
//! Every decision is [`session_filter`]'s. This crate hands it what Envoy says and carries out the
//! steps it returns. Nothing here may panic: a panic ends the VM of a whole worker.
//!
//! | module | is |
//! |---|---|
//! | `filter` | the VM: which callback concerns which configuration and stream |
//! | `worker` | one configuration: carries out what its streams' exchanges decide |
//! | `calls` | the callouts that are under way, and who waits for them |
//! | `touches` | the sessions that streams in progress keep in use |
//! | `host`, `metrics`, `entropy` | hostcalls, as this filter uses them |

mod calls;
mod context;
mod entropy;
mod filter;
mod host;
mod metrics;
mod touches;
mod worker;

session_abi::export!(filter::Filter);
