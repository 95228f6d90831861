//! A browser's request for a stored session whose copy is in the cache, and the upstream's plain response: the path
//! that nearly all requests take. For the benches and for the test that limits its allocations.

use std::rc::Rc;

use super::{HeaderList, SlotMap, borrowed, headers};
use crate::binding::Binding;
use crate::config::Config;
use crate::edit::Edit;
use crate::exchange::{Answer, Exchange, LookUp, Request, Step};
use crate::token::Token;
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;

const NOW: UnixSeconds = UnixSeconds::new(1_800_000_000);
const DATA: &[u8] = br#"{"user":"alice","cart":{"items":2,"total":"18.40"},"theme":"dark"}"#;

/// What is needed to make the same visit again and again.
pub struct CachedVisit {
    /// The configuration.
    pub config: Rc<Config>,
    /// The browser's token.
    pub token: Token,
    request: HeaderList,
    response: HeaderList,
    slots: SlotMap,
}

impl Default for CachedVisit {
    fn default() -> Self {
        Self::new()
    }
}

impl CachedVisit {
    /// The visit, with the copy in the cache.
    pub fn new() -> Self {
        let configuration = br#"{
            "gateway": {"cluster": "session_gateway"},
            "secrets": ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]
        }"#;
        let config = Config::parse(configuration, |_| Some("gateway-token".to_owned())).expect("a valid configuration");
        let token = Token { id: SessionId::from_bytes([7; 16]), version: Version::new(3), issued_at: NOW };
        let cookie = format!("theme=dark; __Host-session={}; lang=en", config.keyring.sign(&token, &Binding::NONE));
        let answer = headers(&[
            (":status", "200"),
            ("session-gateway", "1"),
            ("session-id", "07070707070707070707070707070707"),
            ("etag", "\"3\""),
            ("session-min-version", "1"),
            ("session-created", "1799999000"),
            ("session-expires", "1800001800"),
            ("session-subject", "alice"),
        ]);
        let look_up = LookUp { id: token.id, seen: token.version };
        let write = look_up
            .refresh(&config, Answer::Received { headers: &borrowed(&answer), body: DATA }, NOW)
            .expect("an answer");
        let mut slots = SlotMap::default();
        slots.keep(&write);
        Self {
            config: Rc::new(config),
            token,
            request: headers(&[
                (":method", "GET"),
                (":path", "/shop/cart?page=2"),
                (":scheme", "https"),
                (":authority", "shop.example"),
                ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
                ("accept", "text/html,application/xhtml+xml"),
                ("accept-language", "en"),
                ("cookie", &cookie),
                ("x-forwarded-proto", "https"),
                ("x-request-id", "5d3e1b0e-6a77-4f6b-9f0f-0d8f7d7f3b11"),
            ]),
            response: headers(&[(":status", "200"), ("content-type", "text/html"), ("server", "envoy")]),
            slots,
        }
    }

    /// The request and its response, without the effects of an edge. The edits are the request's.
    pub fn make(&self) -> (Vec<Edit>, Step) {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        let request = Request {
            headers: &borrowed(&self.request),
            binding: Binding::NONE,
            now: NOW,
            fresh_id: SessionId::from_bytes([9; 16]),
        };
        let Step::Forward { edits, callout: None } = exchange.request(&request, &self.slots) else {
            panic!("a cached session needs no callout");
        };
        exchange.take_effects();
        let step =
            exchange.response(&self.response, &self.slots, || panic!("the time does not matter to this response"));
        (edits, step)
    }
}
