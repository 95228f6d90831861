//! The Envoy filter: callbacks in, hostcalls out.
//!
//! [`session_filter`] makes every decision. This crate passes it Envoy's events and carries out the steps that it
//! returns. Nothing here may panic, because a panic destroys the VM of a whole worker thread.
//!
//! | module | is |
//! |---|---|
//! | `contexts` | Envoy's contexts, in the SDK's form: thin handles to the rest |
//! | `root_context` | one configuration in one VM, and its streams |
//! | `stream` | one HTTP stream, and which of its messages the filter has |
//! | `executor` | carries out the steps that exchanges decide |
//! | `calls` | the callouts under way, and the streams that wait for them |
//! | `touches` | the sessions that open streams keep in use |
//! | `host` | what the filter needs from its host, and a host for tests |
//! | `envoy` | Envoy as that host: the hostcalls |
//! | `slots` | the cache's slots in the host's shared data |
//! | `callback` | which stream a callback belongs to, and its time |
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
    // This also makes a panic log its reason in Envoy's log.
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Warn);
    proxy_wasm::set_root_context(|_| Box::new(contexts::Root::default()));
}}
