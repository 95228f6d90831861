//! The part of Envoy's Wasm ABI (proxy-wasm 0.2.1) that the session filter uses, and the only `unsafe` of this
//! workspace.
//!
//! The ABI's SDK exports every callback there is, and Envoy calls each of them for each request; it copies every
//! header into strings of its own; and it panics where a host says no, which ends the VM of a whole worker. Here a module
//! exports only the callbacks of [`Filter`], bytes stay in the one buffer that the host filled, and whatever the host
//! says is a value.
//!
//! | module | is |
//! |---|---|
//! | [`callbacks`](Filter) | what the host calls, and [`export!`], which makes a [`Filter`] a module |
//! | [`hostcalls`] | what the host can be asked |
//! | [`pairs`] | lists of headers, as both sides write them |
//! | `memory`, `imports` | how bytes come out of the host, and its functions by name |
//!
//! Without a host (natively, where the lints and unit tests run) every hostcall is refused.

mod callbacks;
pub mod hostcalls;
mod imports;
mod memory;
pub mod pairs;

pub use callbacks::{Filter, Verdict, initialize};
