//! The Envoy filter: callbacks in, hostcalls out.
//!
//! Every decision is [`session_core`]'s. This crate hands it what Envoy says and carries out the
//! steps it returns. Nothing here may panic: a panic ends the VM of a whole worker.

#![expect(missing_docs, reason = "`main!` writes the one public function")]

mod entropy;
mod flights;
mod host;
mod metrics;
mod root;
mod stream;
mod worker;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    // Envoy filters by its own level again; debug and below would cost a hostcall each to be dropped.
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context_id| -> Box<dyn RootContext> { Box::new(root::Root::new(context_id)) });
}}
