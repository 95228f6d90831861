//! A filter that does nothing: the floor that `bench.sh` compares the session filter with.
//!
//! Envoy enters the VM for every request and response header block, as it does for the session filter, and
//! gets `Continue` back without a single hostcall. What this costs over no filter is what any wasm filter costs.

#![expect(missing_docs, reason = "proxy_wasm::main! expands to a function without documentation")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(NoopRoot));
}}

struct NoopRoot;

impl Context for NoopRoot {}

impl RootContext for NoopRoot {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(NoopExchange))
    }
}

struct NoopExchange;

impl Context for NoopExchange {}

impl HttpContext for NoopExchange {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        Action::Continue
    }
}
