//! The session filter's floor: for every request this filter makes the hostcalls that a request with a cached session
//! makes, with the same values, and decides nothing. What it costs is what the upstream contract costs in any wasm
//! filter; what the session filter costs beyond it is its own.

#![expect(missing_docs, reason = "proxy_wasm::main! expands to a function without documentation")]

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MapType, Status};

/// What the session filter would find in its cache.
const KEY: &str = "floor-filter.session";
const COPY: [u8; 200] = [b'x'; 200];

const ID: &str = "00112233445566778899aabbccddeeff";
const HEADERS: [(&str, &str); 5] = [
    ("x-session-id", ID),
    ("x-session-state", "active"),
    ("x-session-version", "1"),
    ("x-session-data", r#"{"user": "alice", "cart": {"items": 2, "total": "18.40"}, "theme": "dark"}"#),
    ("x-session-subject", "alice"),
];
const STATES: [(&str, &str); 2] = [("session_id", ID), ("session_state", "active")];
const LOOKED_FOR: [&str; 4] = ["x-session-patch", "x-session-control", "x-session-error", "set-cookie"];

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        hostcalls::set_shared_data(KEY, Some(&COPY), None).is_ok()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        match request() {
            Ok(()) => Action::Continue,
            // The bench ends with the first request that is not answered.
            Err(_) => Action::Pause,
        }
    }

    fn on_http_response_headers(&mut self, _headers: usize, _end_of_stream: bool) -> Action {
        let is_there = |name: &&str| hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name) != Ok(None);
        if LOOKED_FOR.iter().any(is_there) { Action::Pause } else { Action::Continue }
    }
}

fn request() -> Result<(), Status> {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders)?;
    hostcalls::get_current_time()?;
    hostcalls::get_shared_data(KEY)?;
    hostcalls::remove_map_value(MapType::HttpRequestHeaders, "cookie")?;
    for (name, value) in HEADERS {
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()))?;
    }
    for (name, value) in STATES {
        hostcalls::set_property(vec![name], Some(value.as_bytes()))?;
    }
    Ok(())
}
