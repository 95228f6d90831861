//! The session filter's floor: for every request this filter makes the hostcalls that a request with a cached session
//! makes, with the same values, and decides nothing. What it costs is what the upstream contract costs in any wasm
//! filter; what the session filter costs beyond it is its own.

use session_abi::Verdict;
use session_abi::hostcalls::{self, Map, Result};

/// What the session filter would find in its cache.
const KEY: &[u8] = b"floor-filter.session";
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

#[derive(Default)]
struct Floor;

impl session_abi::Filter for Floor {
    fn create(&mut self, _context: u32, _root: u32) {}

    fn configure(&mut self, _root: u32) -> bool {
        hostcalls::set_shared_data(KEY, &COPY, 0).is_ok()
    }

    fn tick(&mut self, _root: u32) {}

    fn request_headers(&mut self, _stream: u32) -> Verdict {
        match request() {
            Ok(()) => Verdict::Continue,
            // The bench ends with the first request that is not answered.
            Err(_) => Verdict::Hold,
        }
    }

    fn response_headers(&mut self, _stream: u32) -> Verdict {
        let is_there = LOOKED_FOR.iter().any(|name| hostcalls::header(Map::Response, name).is_ok());
        if is_there { Verdict::Hold } else { Verdict::Continue }
    }

    fn http_call_response(&mut self, _root: u32, _token: u32, _headers: usize, _body_size: usize) {}

    fn delete(&mut self, _context: u32) {}
}

fn request() -> Result<()> {
    hostcalls::headers(Map::Request)?;
    hostcalls::now()?;
    hostcalls::shared_data(KEY)?;
    hostcalls::remove_header(Map::Request, "cookie")?;
    for (name, value) in HEADERS {
        hostcalls::set_header(Map::Request, name, value.as_bytes())?;
    }
    for (name, value) in STATES {
        hostcalls::set_property(name, value.as_bytes())?;
    }
    Ok(())
}

session_abi::export!(Floor);
