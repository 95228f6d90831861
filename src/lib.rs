//! The Envoy filter: callbacks in, hostcalls out.
//!
//! Every decision is [`session_filter`]'s. This crate hands it what Envoy says and carries out the steps it returns.
//! Nothing here may panic: a panic ends the VM of a whole worker thread.
//!
//! | module | is |
//! |---|---|
//! | `contexts` | Envoy's contexts, as the SDK has them: thin handles on what follows |
//! | `root_context` | one configuration in one VM, and its streams |
//! | `stream` | one HTTP stream, and which of its messages is in our hands |
//! | `executor` | carries out the steps that exchanges decide |
//! | `calls` | the callouts under way, and the streams that wait for them |
//! | `touches` | the sessions that streams in progress keep in use |
//! | `host` | what the filter asks of its host, and a host for tests |
//! | `envoy` | Envoy as that host: the hostcalls |
//! | `slots` | the cache's slots in the host's shared data |
//! | `callback` | whose callback it is, and when |
//! | `metrics`, `entropy`, `ids` | counters, random ids, maps by Envoy's ids |

#![expect(missing_docs, reason = "proxy_wasm::main! expands to a function without documentation")]

mod callback;
mod calls;
mod contexts;
mod entropy;
mod envoy;
mod executor;
mod host;
mod ids;
mod metrics;
mod root_context;
mod slots;
mod stream;
#[cfg(test)]
mod tests;
mod touches;

proxy_wasm::main! {{
    // Also has a panic say what it was about in Envoy's log.
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(contexts::Root::default()));
}}
