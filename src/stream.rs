//! One HTTP stream: callback → event, step → hostcalls.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, MapType};
use session_core::edit::LocalReply;
use session_core::exchange::{Answer, Callout, Exchange, LookUp, Request, Step};
use session_core::id::SessionId;

use crate::flights::Waiter;
use crate::host::{self, Caller, OwnedAnswer};
use crate::worker::Worker;

pub(crate) struct Stream {
    /// `None` only if the plugin was never configured, which Envoy does not let happen.
    inner: Option<Rc<RefCell<Inner>>>,
    context_id: u32,
}

/// What the root context needs of a stream when it resumes one.
pub(crate) struct Inner {
    worker: Rc<Worker>,
    exchange: Exchange,
    /// The callout of this stream whose answer is awaited.
    pending: Option<u32>,
    /// When it was sent, in milliseconds since the Unix epoch.
    sent_ms: u64,
    /// The same as `pending`, if the root context sent it.
    pending_at_root: Option<u32>,
    /// The lookup that this stream leads.
    leads: Option<SessionId>,
}

/// What became of a step.
pub(crate) enum Flow {
    /// The message in hand goes on: the request or the response.
    Released(MapType),
    /// It stays here, or was answered in place.
    Kept,
    /// It stays here until this session was looked up.
    LookUp { look_up: LookUp, is_shareable: bool },
}

impl Flow {
    pub(crate) const fn released(self) -> Option<MapType> {
        match self {
            Self::Released(message) => Some(message),
            Self::Kept | Self::LookUp { .. } => None,
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::Released(_) => Action::Continue,
            Self::Kept | Self::LookUp { .. } => Action::Pause,
        }
    }
}

const UNABLE: LocalReply =
    LocalReply { status: 500, headers: Vec::new(), body: "The session filter is not able to work.\n" };

impl Inner {
    /// Hands one event to the exchange and carries out what comes back.
    pub(crate) fn handle(&mut self, caller: Caller, event: impl FnOnce(&mut Exchange, &Worker) -> Step) -> Flow {
        let mut step = event(&mut self.exchange, &self.worker);
        let flow = loop {
            match step {
                Step::Wait => break Flow::Kept,
                Step::LookUp { look_up, is_shareable } => break Flow::LookUp { look_up, is_shareable },
                Step::Call(callout) => {
                    if self.call(caller, &callout) {
                        break Flow::Kept;
                    }
                    step = self.exchange.answer(Answer::NotSent, host::now());
                }
                Step::Forward { edits, callout } => {
                    host::apply(MapType::HttpRequestHeaders, &edits);
                    if callout.is_some_and(|callout| !self.call(caller, &callout)) {
                        // The request goes on all the same; the response will meet the consequence.
                        self.exchange.answer(Answer::NotSent, host::now());
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
        self.take_effects();
        flow
    }

    /// Holds the request until its session was looked up: with others, or by a lookup of its own.
    fn look_up(&mut self, look_up: LookUp, is_shareable: bool, waiter: Waiter) -> Flow {
        let worker = Rc::clone(&self.worker);
        if is_shareable {
            let joined = worker.leave(|flights| (flights.join(&look_up, waiter).is_ok(), false));
            if joined == Some(true) {
                return Flow::Kept;
            }
        }
        if self.call(Caller::Stream, &look_up.callout(&worker.config)) {
            let leads = worker.leave(|flights| (is_shareable && flights.lead(&look_up), false));
            self.leads = (leads == Some(true)).then_some(look_up.id);
            return Flow::Kept;
        }
        self.handle(Caller::Stream, |exchange, _| exchange.answer(Answer::NotSent, host::now()))
    }

    /// Sends a callout; `false` if Envoy can't, which it says at once (unknown cluster, no endpoint, circuit breaker).
    fn call(&mut self, caller: Caller, callout: &Callout) -> bool {
        let gateway = &self.worker.config.gateway;
        let token = host::dispatch_as(caller, &gateway.cluster, callout, gateway.timeout)
            .inspect_err(|status| log::warn!("gateway.cluster {}: no callout possible ({status:?})", gateway.cluster))
            .ok();
        match caller {
            Caller::Stream => {
                self.pending = token;
                self.sent_ms = host::now_ms();
            }
            Caller::Root { .. } => self.pending_at_root = token,
        }
        token.is_some()
    }

    /// The callout that the last event had the root context send.
    pub(crate) fn take_root_callout(&mut self) -> Option<u32> {
        self.pending_at_root.take()
    }

    fn take_effects(&mut self) {
        let effects = self.exchange.effects();
        self.worker.count(effects.counts);
        if let Some(write) = effects.cache {
            host::write_slot(&write);
        }
        if let Some(identity) = effects.identity {
            host::publish(&identity);
        }
        if let Some(look_up) = effects.refresh {
            self.worker.leave(|flights| ((), flights.refresh(look_up, host::now())));
        }
    }
}

impl Stream {
    pub(crate) fn new(worker: Option<&Rc<Worker>>, context_id: u32) -> Self {
        let inner = worker.map(|worker| {
            Rc::new(RefCell::new(Inner {
                worker: Rc::clone(worker),
                exchange: Exchange::new(Rc::clone(&worker.config)),
                pending: None,
                sent_ms: 0,
                pending_at_root: None,
                leads: None,
            }))
        });
        Self { inner, context_id }
    }

    fn handle(&self, event: impl FnOnce(&mut Exchange, &Worker) -> Step) -> Flow {
        let Some(shared) = &self.inner else {
            host::reply(&UNABLE);
            return Flow::Kept;
        };
        // Callbacks never nest.
        let Ok(mut inner) = shared.try_borrow_mut() else { return Flow::Kept };
        match inner.handle(Caller::Stream, event) {
            Flow::LookUp { look_up, is_shareable } => {
                let waiter = Waiter { context_id: self.context_id, stream: Rc::downgrade(shared) };
                inner.look_up(look_up, is_shareable, waiter)
            }
            flow => flow,
        }
    }

    fn holds(&self, is_held: impl Fn(&Exchange) -> bool) -> Action {
        match self.inner.as_ref().map(|inner| inner.try_borrow()) {
            Some(Ok(inner)) if is_held(&inner.exchange) => Action::Pause,
            _ => Action::Continue,
        }
    }

    /// Takes the lookup that this stream leads, if the callout that was answered is it.
    fn is_pending(&self, token: u32) -> Option<(Rc<Worker>, Option<SessionId>)> {
        let mut inner = self.inner.as_ref()?.try_borrow_mut().ok()?;
        inner.pending.take_if(|pending| *pending == token)?;
        let leads = inner.leads.take();
        inner.worker.callout_answered(inner.sent_ms);
        Some((Rc::clone(&inner.worker), leads))
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        let Some((worker, leads)) = self.is_pending(token) else { return };
        let OwnedAnswer { headers, body } = host::answer(headers, body_size);
        let flow = self
            .handle(|exchange, _| exchange.answer(Answer::Received { headers: &headers, body: &body }, host::now()));
        if let Some(message) = flow.released() {
            host::resume(message);
        }
        if let Some(id) = leads {
            worker.leave(|flights| ((), flights.land(id, || OwnedAnswer { headers, body })));
        }
    }

    /// The stream is over. If others wait for its lookup, Envoy has dropped that with it.
    fn on_done(&mut self) -> bool {
        if let Some(Ok(mut inner)) = self.inner.as_ref().map(|inner| inner.try_borrow_mut())
            && let Some(id) = inner.leads.take()
        {
            inner.worker.leave(|flights| ((), flights.abandon(id)));
        }
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let event = |exchange: &mut Exchange, worker: &Worker| {
            let fresh_id = worker.entropy.try_borrow_mut().ok().and_then(|mut entropy| entropy.session_id());
            let Some(fresh_id) = fresh_id else { return Step::Reply(UNABLE) };
            let headers = host::headers(MapType::HttpRequestHeaders);
            let binding = host::binding(&worker.config.bind);
            exchange.request(&Request { headers: &headers, binding, now: host::now(), fresh_id }, &host::SharedSlots)
        };
        self.handle(event).action()
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
        self.handle(|exchange, _| exchange.response(&host::PassingResponse, host::now)).action()
    }

    fn on_http_response_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        self.holds(Exchange::holds_response)
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.holds(Exchange::holds_response)
    }
}
