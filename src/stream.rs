//! One HTTP stream: callback → event, step → hostcalls.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};
use session_core::edit::LocalReply;
use session_core::exchange::{Answer, Callout, Exchange, Step};

use crate::host;
use crate::root::Shared;

pub(crate) struct Stream {
    /// `None` only if the plugin was never configured, which Envoy does not let happen.
    exchange: Option<(Rc<Shared>, Exchange)>,
    /// The callout whose answer is awaited.
    pending: Option<u32>,
}

/// What became of a step.
enum Flow {
    /// The message in hand goes on: the request or the response.
    Released(MapType),
    /// It stays here, or was answered in place.
    Kept,
}

impl Stream {
    pub(crate) fn new(shared: Option<Rc<Shared>>) -> Self {
        let exchange = shared.map(|shared| {
            let exchange = Exchange::new(Rc::clone(&shared.config));
            (shared, exchange)
        });
        Self { exchange, pending: None }
    }

    /// Hands one event to the exchange and carries out what comes back.
    fn handle(&mut self, event: impl FnOnce(&Shared, &mut Exchange) -> Step) -> Flow {
        let Some((shared, exchange)) = &mut self.exchange else {
            host::reply(&UNABLE);
            return Flow::Kept;
        };
        let mut step = event(shared, exchange);
        let flow = loop {
            match step {
                Step::Wait => break Flow::Kept,
                Step::Call(callout) => match dispatch(shared, &callout) {
                    Some(token) => {
                        self.pending = Some(token);
                        break Flow::Kept;
                    }
                    None => step = exchange.answer(Answer::NotSent, host::now()),
                },
                Step::Forward { edits, callout } => {
                    host::apply(MapType::HttpRequestHeaders, &edits);
                    if let Some(callout) = callout {
                        self.pending = dispatch(shared, &callout);
                        if self.pending.is_none() {
                            // The request goes on all the same; the response will meet the consequence.
                            exchange.answer(Answer::NotSent, host::now());
                        }
                    }
                    break Flow::Released(MapType::HttpRequestHeaders);
                }
                Step::Deliver(edits) => {
                    host::apply(MapType::HttpResponseHeaders, &edits);
                    break Flow::Released(MapType::HttpResponseHeaders);
                }
                Step::Reply(reply) => {
                    host::reply(&reply);
                    break Flow::Kept;
                }
            }
        };
        shared.metrics.raise(exchange.counts());
        flow
    }

    fn holds(&self, is_held: impl Fn(&Exchange) -> bool) -> Action {
        match &self.exchange {
            Some((_, exchange)) if is_held(exchange) => Action::Pause,
            _ => Action::Continue,
        }
    }
}

/// Sends a callout; `None` if Envoy can't, which it says at once (unknown cluster, no endpoint, circuit breaker).
fn dispatch(shared: &Shared, callout: &Callout) -> Option<u32> {
    let gateway = &shared.config.gateway;
    host::dispatch(&gateway.cluster, callout, gateway.timeout)
        .inspect_err(|status| log::warn!("gateway.cluster {}: no callout possible ({status:?})", gateway.cluster))
        .ok()
}

const UNABLE: LocalReply =
    LocalReply { status: 500, headers: Vec::new(), body: "The session filter is not able to work.\n" };

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        if self.pending != Some(token) {
            return;
        }
        self.pending = None;
        let headers = if headers == 0 { Vec::new() } else { host::headers(MapType::HttpCallResponseHeaders) };
        let body = host::callout_body(body_size);
        let flow = self
            .handle(|_, exchange| exchange.answer(Answer::Received { headers: &headers, body: &body }, host::now()));
        if let Flow::Released(message) = flow {
            host::resume(message);
        }
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let flow = self.handle(|shared, exchange| {
            match shared.entropy.try_borrow_mut().ok().and_then(|mut entropy| entropy.session_id()) {
                Some(fresh_id) => exchange.request(&host::headers(MapType::HttpRequestHeaders), host::now(), fresh_id),
                None => Step::Reply(UNABLE),
            }
        });
        flow.action()
    }

    // The default of Envoy's Wasm filter holds the body with the headers; with
    // `allow_on_headers_stop_iteration` it has to be held here.
    fn on_http_request_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        self.holds(Exchange::holds_request)
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.holds(Exchange::holds_request)
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.handle(|_, exchange| exchange.response(&host::PassingResponse, host::now())).action()
    }

    fn on_http_response_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        self.holds(Exchange::holds_response)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.holds(Exchange::holds_response)
    }
}

impl Flow {
    const fn action(&self) -> Action {
        match self {
            Self::Released(_) => Action::Continue,
            Self::Kept => Action::Pause,
        }
    }
}
