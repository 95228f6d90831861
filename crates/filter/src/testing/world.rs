//! A world for testing exchanges: a gateway with the real records, a clock that is set by hand, and a browser.

use std::rc::Rc;

use serde_json::Value;

use super::{FakeGateway, HeaderList, SlotMap, apply, borrowed, config, headers};
use crate::binding::Binding;
use crate::config::Config;
use crate::counter::Counter;
use crate::edit::LocalReply;
use crate::exchange::{Answer, Callout, Effects, Exchange, LookUp, Request, Step};
use session::id::SessionId;
use session::time::UnixSeconds;

/// A gateway, a cache, a clock, and visits of browsers.
pub struct World {
    /// The filter's configuration.
    pub config: Rc<Config>,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
    /// The gateway.
    pub gateway: FakeGateway,
    /// What the clients' tokens are bound to.
    pub binding: Binding,
    /// The cache.
    pub slots: SlotMap,
    ids: u64,
}

/// One exchange, as the upstream and the client saw it.
#[derive(Debug, Default)]
pub struct Visit {
    upstream: Option<HeaderList>,
    /// The request as an access log has it, if the filter has answered.
    pub request: HeaderList,
    client: HeaderList,
    /// The answer in place of the upstream's.
    pub reply: Option<LocalReply>,
    /// What was counted.
    pub counts: Vec<Counter>,
    /// Besides the counts: the refresh, the warning and the identity that the exchange has led to last.
    pub effects: Effects,
}

impl Visit {
    /// A request header, as the upstream saw it; empty if it wasn't there.
    pub fn upstream(&self, name: &str) -> &str {
        first(self.upstream.as_ref().expect("forwarded"), name)
    }

    /// All request headers of this name, as the upstream saw them.
    pub fn upstream_all(&self, name: &str) -> Vec<&str> {
        all(self.upstream.as_ref().expect("forwarded"), name)
    }

    /// Whether the upstream got the request.
    pub fn was_forwarded(&self) -> bool {
        self.upstream.is_some()
    }

    /// A response header, as the client saw it; empty if it wasn't there.
    pub fn client(&self, name: &str) -> &str {
        first(&self.client, name)
    }

    /// All response headers of this name, as the client saw them.
    pub fn client_all(&self, name: &str) -> Vec<&str> {
        all(&self.client, name)
    }

    /// The status that the client saw; the upstream answers 200.
    pub fn status(&self) -> u16 {
        self.reply.as_ref().map_or(200, |reply| reply.status)
    }

    /// The session cookie that the client was given.
    pub fn cookie(&self) -> Option<String> {
        let lines = all(&self.client, "set-cookie");
        let value = lines.iter().find_map(|line| line.strip_prefix("sid="))?;
        Some(format!("sid={}", value.split(';').next().unwrap()))
    }
}

fn first<'a>(headers: &'a HeaderList, name: &str) -> &'a str {
    all(headers, name).first().copied().unwrap_or_default()
}

fn all<'a>(headers: &'a HeaderList, name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(other, _)| other == name).map(|(_, value)| str::from_utf8(value).unwrap()).collect()
}

impl World {
    /// A world with the configuration of most tests, and these changes to it.
    pub fn new(changes: Value) -> Self {
        Self {
            config: config(changes),
            now: 1_000_000,
            gateway: FakeGateway::default(),
            binding: Binding::NONE,
            slots: SlotMap::default(),
            ids: 0,
        }
    }

    /// The time.
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds::new(self.now)
    }

    /// An id that has never been used.
    pub fn fresh_id(&mut self) -> SessionId {
        self.ids += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.ids.to_be_bytes());
        SessionId::from_bytes(bytes)
    }

    /// One request with this `Cookie` line, answered by the upstream with these headers.
    pub fn visit(&mut self, cookie: &str, response: &[(&str, &str)]) -> Visit {
        let mut request = headers(&[(":method", "GET"), (":path", "/")]);
        if !cookie.is_empty() {
            request.push(("cookie".into(), cookie.as_bytes().to_vec()));
        }
        self.visit_with(request, response)
    }

    /// One request with these headers, answered by the upstream with those.
    pub fn visit_with(&mut self, request: HeaderList, response: &[(&str, &str)]) -> Visit {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        self.run(&mut exchange, request, response)
    }

    /// Runs an exchange to its end.
    pub fn run(&mut self, exchange: &mut Exchange, request: HeaderList, response: &[(&str, &str)]) -> Visit {
        self.run_bytes(exchange, request, headers(response))
    }

    /// A visit with a cookie, whose response has this patch, byte for byte.
    pub fn visit_bytes(&mut self, cookie: &str, patch: &[u8]) -> Visit {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        let request = headers(&[(":method", "GET"), (":path", "/"), ("cookie", cookie)]);
        self.run_bytes(&mut exchange, request, vec![("x-session-patch".to_owned(), patch.to_vec())])
    }

    fn run_bytes(&mut self, exchange: &mut Exchange, mut request: HeaderList, mut response: HeaderList) -> Visit {
        let mut visit = Visit::default();
        let mut step = self.request(exchange, &request);
        loop {
            apply(&mut request, exchange.take_request_edits());
            self.take_effects(exchange, &mut visit);
            step = match step {
                Step::LookUp { look_up, .. } => {
                    let callout = look_up.callout(&self.config);
                    self.answer(exchange, &callout)
                }
                Step::Call(callout) => self.answer(exchange, &callout),
                Step::Forward { edits, callout } => {
                    apply(&mut request, edits);
                    visit.upstream = Some(request.clone());
                    let in_the_meantime = callout.map(|callout| self.answer(exchange, &callout));
                    assert!(matches!(in_the_meantime, None | Some(Step::Hold)));
                    exchange.response(&response, &self.slots, || self.now())
                }
                Step::Deliver(edits) => {
                    apply(&mut response, edits);
                    visit.client = response;
                    break;
                }
                Step::Reply(reply) => {
                    visit.request.clone_from(&request);
                    visit.client = reply.headers.iter().map(|(n, v)| (n.clone().into_owned(), v.clone())).collect();
                    visit.reply = Some(reply);
                    break;
                }
                Step::Hold => panic!("nothing is under way to wait for"),
            };
        }
        self.take_effects(exchange, &mut visit);
        visit
    }

    /// Hands over a request as the edge does.
    pub fn request(&mut self, exchange: &mut Exchange, headers: &[(String, Vec<u8>)]) -> Step {
        let request =
            Request { headers: &borrowed(headers), binding: self.binding, now: self.now(), fresh_id: self.fresh_id() };
        exchange.request(&request, &self.slots)
    }

    /// Carries out the effects of an exchange, whatever they count.
    pub fn carry_out(&mut self, exchange: &mut Exchange) {
        self.take_effects(exchange, &mut Visit::default());
    }

    fn take_effects(&mut self, exchange: &mut Exchange, visit: &mut Visit) {
        let effects = exchange.take_effects();
        visit.counts.extend(effects.counts.iter());
        for write in effects.cache.iter().chain(&effects.replaced) {
            self.slots.keep(write);
        }
        visit.effects.refresh = effects.refresh.or(visit.effects.refresh);
        visit.effects.warning = effects.warning.or_else(|| visit.effects.warning.take());
        visit.effects.identity = effects.identity.or(visit.effects.identity);
    }

    /// Makes a callout, and hands its answer over as the edge does.
    pub fn answer(&mut self, exchange: &mut Exchange, callout: &Callout) -> Step {
        let Some((headers, body)) = self.gateway.call(callout, self.now()) else {
            return exchange.answer(Answer::NotSent, &self.slots, self.now());
        };
        exchange.answer(Answer::Received { headers: &borrowed(&headers), body: &body }, &self.slots, self.now())
    }

    /// Tells the store that a stream goes on.
    pub fn touch(&mut self, exchange: &mut Exchange, look_up: &LookUp) {
        if let Some((headers, body)) = self.gateway.call(&look_up.touch(&self.config), self.now()) {
            let answer = Answer::Received { headers: &borrowed(&headers), body: &body };
            exchange.touched(answer, self.now(), self.now());
        }
    }

    /// Ends a session as another client's logout would.
    pub fn destroy(&mut self, id: &str) {
        self.gateway.destroy(id, self.now());
    }
}
