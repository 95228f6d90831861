//! A world to test exchanges in: a gateway on the real records, a clock that is set by hand, a browser.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::json;

use super::super::*;
use crate::binding::Binding;
use crate::cache;
use crate::counter::Counter;
use crate::edit::{Headers, LocalReply};
use session::gateway_api as api;
use session::id::SessionId;
use session::merge_patch::parse_object;
use session::record::{self, Change, ChangeError, NewSession, Rotation, Stored, Timeouts, Tombstone, Write, WriteId};
use session::time::Seconds;

type HeaderList = Vec<(String, Vec<u8>)>;

/// How the gateway behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gateway {
    Up,
    /// Envoy's own 503: no marker.
    Down,
    /// The callout can't even be sent.
    Unreachable,
    /// It answers, but only that it can't say.
    StoreDown,
}

pub(super) struct World {
    pub(super) config: Rc<Config>,
    pub(super) now: u64,
    pub(super) gateway: Gateway,
    /// What the clients' tokens are bound to.
    pub(super) binding: Binding,
    /// The calls the gateway has got: method and path.
    pub(super) calls: Vec<String>,
    store: HashMap<String, (Stored, u64)>,
    pub(super) slots: SlotMap,
    /// How many of the next answers of the gateway get lost.
    pub(super) lost_answers: usize,
    /// How often a lookup has extended a session's idle timeout.
    pub(super) extensions: usize,
    ids: u64,
}

#[derive(Default)]
pub(super) struct SlotMap(pub(super) HashMap<u32, Vec<u8>>);

impl Slots for SlotMap {
    fn read(&self, slot: u32) -> Option<Vec<u8>> {
        self.0.get(&slot).cloned()
    }
}

/// One exchange, as the upstream and the client saw it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    upstream: Option<HeaderList>,
    /// The request as an access log has it, if the filter has answered.
    pub(super) request: HeaderList,
    client: HeaderList,
    pub(super) reply: Option<LocalReply>,
    pub(super) counts: Vec<Counter>,
    pub(super) effects: Effects,
}

impl Seen {
    /// A request header, as the upstream saw it; empty if it wasn't there.
    pub(super) fn upstream(&self, name: &str) -> &str {
        first(self.upstream.as_ref().expect("forwarded"), name)
    }

    /// All request headers of this name, as the upstream saw them.
    pub(super) fn upstream_all(&self, name: &str) -> Vec<&str> {
        all(self.upstream.as_ref().expect("forwarded"), name)
    }

    pub(super) fn was_forwarded(&self) -> bool {
        self.upstream.is_some()
    }

    /// A response header, as the client saw it; empty if it wasn't there.
    pub(super) fn client(&self, name: &str) -> &str {
        first(&self.client, name)
    }

    pub(super) fn client_all(&self, name: &str) -> Vec<&str> {
        all(&self.client, name)
    }

    pub(super) fn status(&self) -> u16 {
        self.reply.as_ref().map_or(200, |reply| reply.status)
    }

    /// The session cookie that the client was given.
    pub(super) fn cookie(&self) -> Option<String> {
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

pub(super) fn headers(list: &[(&str, &str)]) -> HeaderList {
    list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn status_of(error: ChangeError) -> &'static str {
    match error {
        ChangeError::TokenEnded => "412",
        ChangeError::SubjectAmbiguous(_) => "400",
        _ => "413",
    }
}

fn apply(headers: &mut HeaderList, edits: Vec<Edit>) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.retain(|(other, _)| *other != name);
                headers.push((name.into_owned(), value));
            }
            Edit::Add(name, value) => headers.push((name.to_owned(), value)),
            Edit::Remove(name) => headers.retain(|(other, _)| *other != name),
        }
    }
}

impl ResponseHeaders for HeaderList {
    fn contains(&self, name: &str) -> bool {
        self.iter().any(|(other, _)| other == name)
    }

    fn read<T>(&self, reader: impl FnOnce(&Headers<'_>) -> T) -> T {
        reader(&borrowed(self))
    }
}

/// As an edge has them: where they lie.
pub(super) fn borrowed(headers: &[(String, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect()
}

/// The configuration of most tests, with changes to it.
pub(super) fn config(changes: serde_json::Value) -> Rc<Config> {
    let mut config = json!({
        "gateway": {"cluster": "session_gateway"},
        "secrets": ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="],
        "cookie": {"name": "sid"},
        // Most tests look at what the store says; the cache has tests of its own.
        "cache": {"ttl": "0s"},
    });
    let (serde_json::Value::Object(config), serde_json::Value::Object(changes)) = (&mut config, changes) else {
        panic!("objects");
    };
    config.extend(changes);
    let json = serde_json::to_vec(&config).unwrap();
    Rc::new(Config::parse(&json, |_| Some("a gateway token".replace(' ', "-"))).unwrap())
}

impl World {
    pub(super) fn new(changes: serde_json::Value) -> Self {
        Self {
            config: config(changes),
            now: 1_000_000,
            gateway: Gateway::Up,
            binding: Binding::NONE,
            calls: Vec::new(),
            store: HashMap::new(),
            slots: SlotMap::default(),
            lost_answers: 0,
            extensions: 0,
            ids: 0,
        }
    }

    pub(super) fn now(&self) -> UnixSeconds {
        UnixSeconds::new(self.now)
    }

    pub(super) fn fresh_id(&mut self) -> SessionId {
        self.ids += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.ids.to_be_bytes());
        SessionId::from_bytes(bytes)
    }

    /// One request with this `Cookie` line, answered by the upstream with these headers.
    pub(super) fn visit(&mut self, cookie: &str, response: &[(&str, &str)]) -> Seen {
        let mut request = headers(&[(":method", "GET"), (":path", "/")]);
        if !cookie.is_empty() {
            request.push(("cookie".into(), cookie.as_bytes().to_vec()));
        }
        self.visit_with(request, response)
    }

    pub(super) fn visit_with(&mut self, request: HeaderList, response: &[(&str, &str)]) -> Seen {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        self.run(&mut exchange, request, response)
    }

    /// Runs an exchange to its end.
    pub(super) fn run(&mut self, exchange: &mut Exchange, request: HeaderList, response: &[(&str, &str)]) -> Seen {
        self.run_bytes(exchange, request, headers(response))
    }

    /// A visit with a cookie, whose response has this patch, byte for byte.
    pub(super) fn visit_bytes(&mut self, cookie: &str, patch: &[u8]) -> Seen {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        let request = headers(&[(":method", "GET"), (":path", "/"), ("cookie", cookie)]);
        self.run_bytes(&mut exchange, request, vec![("x-session-patch".to_owned(), patch.to_vec())])
    }

    fn run_bytes(&mut self, exchange: &mut Exchange, mut request: HeaderList, mut response: HeaderList) -> Seen {
        let mut seen = Seen::default();
        let mut step = self.request(exchange, &request);
        loop {
            apply(&mut request, exchange.take_request_edits());
            self.take_effects(exchange, &mut seen);
            step = match step {
                Step::LookUp { look_up, .. } => {
                    let callout = look_up.callout(&self.config);
                    self.answer(exchange, &callout)
                }
                Step::Call(callout) => self.answer(exchange, &callout),
                Step::Forward { edits, callout } => {
                    apply(&mut request, edits);
                    seen.upstream = Some(request.clone());
                    let in_the_meantime = callout.map(|callout| self.answer(exchange, &callout));
                    assert!(matches!(in_the_meantime, None | Some(Step::Wait)));
                    exchange.response(&response, &self.slots, || self.now())
                }
                Step::Deliver(edits) => {
                    apply(&mut response, edits);
                    seen.client = response;
                    break;
                }
                Step::Reply(reply) => {
                    seen.request.clone_from(&request);
                    seen.client = reply.headers.iter().map(|(n, v)| (n.clone().into_owned(), v.clone())).collect();
                    seen.reply = Some(reply);
                    break;
                }
                Step::Wait => panic!("nothing is under way to wait for"),
            };
        }
        self.take_effects(exchange, &mut seen);
        seen
    }

    /// Hands over a request as the edge does.
    pub(super) fn request(&mut self, exchange: &mut Exchange, headers: &[(String, Vec<u8>)]) -> Step {
        let request =
            Request { headers: &borrowed(headers), binding: self.binding, now: self.now(), fresh_id: self.fresh_id() };
        exchange.request(&request, &self.slots)
    }

    /// Carries out the effects of an exchange, whatever they count.
    pub(super) fn carry_out(&mut self, exchange: &mut Exchange) {
        self.take_effects(exchange, &mut Seen::default());
    }

    fn take_effects(&mut self, exchange: &mut Exchange, seen: &mut Seen) {
        let effects = exchange.effects();
        seen.counts.extend(effects.counts.iter());
        for write in effects.cache.iter().chain(&effects.replaced) {
            let existing = self.slots.0.get(&write.slot);
            if existing.is_none_or(|existing| cache::replaces(existing, &write.value)) {
                self.slots.0.insert(write.slot, write.value.clone());
            }
        }
        seen.effects.refresh = effects.refresh.or(seen.effects.refresh);
        seen.effects.warning = effects.warning.or_else(|| seen.effects.warning.take());
        seen.effects.identity = effects.identity.or(seen.effects.identity);
    }

    pub(super) fn answer(&mut self, exchange: &mut Exchange, callout: &Callout) -> Step {
        let Some((headers, body)) = self.received(callout) else {
            return exchange.answer(Answer::NotSent, &self.slots, self.now());
        };
        exchange.answer(Answer::Received { headers: &borrowed(&headers), body: &body }, &self.slots, self.now())
    }

    /// Tells the store that a stream goes on.
    pub(super) fn touch(&mut self, exchange: &mut Exchange, look_up: &LookUp) {
        if let Some((headers, body)) = self.received(&look_up.touch(&Rc::clone(&self.config))) {
            let answer = Answer::Received { headers: &borrowed(&headers), body: &body };
            exchange.touched(answer, self.now(), self.now());
        }
    }

    /// What comes back for a callout; `None` if it can't be sent.
    fn received(&mut self, callout: &Callout) -> Option<(HeaderList, Vec<u8>)> {
        let (headers, body) = match self.gateway {
            Gateway::Unreachable => return None,
            Gateway::Down => (headers(&[(":status", "503")]), b"upstream connect error".to_vec()),
            Gateway::StoreDown => (headers(&[(":status", "503"), (api::MARKER, "1")]), Vec::new()),
            Gateway::Up => {
                let (mut headers, body) = self.serve(callout);
                headers.push((api::SESSION_ID.into(), asked_id(callout).into_bytes()));
                (headers, body)
            }
        };
        let is_lost = self.lost_answers > 0;
        self.lost_answers = self.lost_answers.saturating_sub(1);
        Some(if is_lost { (super::world::headers(&[(":status", "504")]), Vec::new()) } else { (headers, body) })
    }

    /// Ends a session as another client's logout would.
    pub(super) fn destroy(&mut self, id: &str) {
        self.store.insert(id.to_owned(), (Stored::Tombstone(Tombstone { ended: self.now() }), self.now + 60));
    }

    /// What the store has of a session.
    pub(super) fn stored(&self, id: &str) -> (Stored, u64) {
        self.store.get(id).cloned().expect("stored")
    }

    /// Puts back what the store had of a session before.
    pub(super) fn restore(&mut self, id: &str, stored: (Stored, u64)) {
        self.store.insert(id.to_owned(), stored);
    }

    /// Loses a session, as memcached does when it needs the room.
    pub(super) fn evict(&mut self, id: &str) {
        self.store.remove(id);
    }

    /// The gateway, as docs/gateway-api.md has it.
    fn serve(&mut self, callout: &Callout) -> (HeaderList, Vec<u8>) {
        let header = |name: &str| callout.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        let seconds = |name| header(name).map(|value| Seconds::new(value.parse().unwrap()));
        assert_eq!(header("authorization"), Some("Bearer a-gateway-token"));
        let (method, path) = (header(":method").unwrap(), header(":path").unwrap());
        self.calls.push(format!("{method} {path}"));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let id = path.strip_prefix("/v1/sessions/").unwrap().to_owned();
        let now = self.now();
        self.store.retain(|_, (_, expires)| *expires > now.get());

        let name = header(api::WRITE_ID).map_or(0, |name| u64::from_str_radix(name, 16).unwrap());
        let write = Write { now, id: WriteId::from_random(name.to_be_bytes()), max_data_bytes: 1000 };
        let subject_key = header(api::SUBJECT_KEY).unwrap_or("user").to_owned();
        let realm = header(api::REALM).map(|realm| realm.parse().unwrap());
        let upstream_cookie = header(api::UPSTREAM_COOKIE).map(str::to_owned);
        let grace = seconds(api::ROTATION_GRACE).unwrap_or(Seconds::new(10));
        let rotation = match query {
            "rotate" => Rotation::Asked,
            "authenticated" => Rotation::Authenticated,
            _ => Rotation::None,
        };
        let change = |patches, grace| Change {
            patches,
            rotation,
            joins: method == "PUT",
            grace,
            seen: header(api::SEEN_VERSION).map(|seen| seen.parse().unwrap()),
            subject_key: subject_key.clone(),
            realm: realm.clone(),
            upstream_cookie: upstream_cookie.clone(),
        };
        let existing = self.store.get(&id).map(|(stored, _)| stored.clone());
        let (status, result) = match (method, existing) {
            ("GET", Some(Stored::Session(session))) => ("200", Ok(session)),
            ("PUT", None) => {
                let new = NewSession {
                    data: parse_object(&callout.body).unwrap(),
                    timeouts: Timeouts { idle: seconds(api::IDLE).unwrap(), absolute: seconds(api::ABSOLUTE).unwrap() },
                    subject_key,
                    realm,
                    upstream_cookie,
                    rotation,
                };
                ("201", record::Session::create(new, write))
            }
            ("PUT", Some(Stored::Session(session))) => {
                let within = seconds(api::MERGE_WITHIN);
                if !within.is_some_and(|within| session.may_merge(within, now)) {
                    let created = session.created().to_string();
                    return (headers(&[(":status", "409"), (api::MARKER, "1"), (api::CREATED, &created)]), Vec::new());
                }
                ("200", session.change(change(vec![parse_object(&callout.body).unwrap()], within.unwrap()), write))
            }
            ("PUT", Some(Stored::Tombstone(_))) => {
                return (headers(&[(":status", "409"), (api::MARKER, "1")]), Vec::new());
            }
            ("PATCH", Some(Stored::Session(session))) if session.write() == write.id => ("200", Ok(session)),
            ("PATCH", Some(Stored::Session(session))) => {
                assert_eq!(header("content-type"), Some(api::MERGE_PATCHES_TYPE));
                ("200", session.change(change(serde_json::from_slice(&callout.body).unwrap(), grace), write))
            }
            ("DELETE", existing) => {
                let seen = header(api::SEEN_VERSION).map(|seen| Version::new(seen.parse().unwrap())).expect("sent");
                let status = match existing {
                    Some(Stored::Session(session)) if session.standing(seen, grace, now).is_open() => "204",
                    Some(Stored::Session(_)) => "412",
                    Some(Stored::Tombstone(_)) | None => "404",
                };
                if status != "204" {
                    return (headers(&[(":status", status), (api::MARKER, "1")]), Vec::new());
                }
                self.destroy(&id);
                return (headers(&[(":status", "204"), (api::MARKER, "1")]), Vec::new());
            }
            _ => return (headers(&[(":status", "404"), (api::MARKER, "1")]), Vec::new()),
        };
        let session = match result {
            Ok(session) => session,
            Err(error) => {
                return (headers(&[(":status", status_of(error)), (api::MARKER, "1")]), Vec::new());
            }
        };
        let Some(mut left) = session.lifetime_left(now) else {
            return (headers(&[(":status", "404"), (api::MARKER, "1")]), Vec::new());
        };
        if let ("GET", Some((_, expires))) = (method, self.store.get(&id)) {
            let remaining = Seconds::new(expires - now.get());
            let touch_after = seconds(api::TOUCH_AFTER).unwrap();
            let seen = header(api::SEEN_VERSION).map(|seen| Version::new(seen.parse().unwrap())).expect("sent");
            let extension = session.extension(remaining, touch_after, now);
            let extension = extension.filter(|_| session.standing(seen, grace, now).is_open());
            self.extensions += usize::from(extension.is_some());
            left = extension.unwrap_or(remaining);
        }
        self.store.insert(id, (Stored::Session(session.clone()), now.plus(left).get()));
        (described(status, &session, now.plus(left)), session.into_data().into_string().into_bytes())
    }
}

/// The headers of an answer with a session.
fn described(status: &str, session: &record::Session, expires: UnixSeconds) -> HeaderList {
    let mut answer = headers(&[
        (":status", status),
        (api::MARKER, "1"),
        ("etag", &format!("\"{}\"", session.version())),
        (api::MIN_VERSION, &session.min_version().to_string()),
        (api::CREATED, &session.created().to_string()),
        (api::EXPIRES, &expires.to_string()),
    ]);
    if let Some(grace) = session.grace() {
        answer.push((api::GRACE_UNTIL.into(), grace.until.to_string().into_bytes()));
        answer.push((api::GRACE_FROM.into(), grace.from.to_string().into_bytes()));
    }
    if let Some(subject) = session.subject() {
        answer.push((api::SUBJECT.into(), crate::exposed::percent_encode(subject).into_bytes()));
    }
    if let Some(auth_time) = session.auth_time() {
        answer.push((api::AUTH_TIME.into(), auth_time.to_string().into_bytes()));
    }
    if let Some(cookie) = session.upstream_cookie() {
        answer.push((api::UPSTREAM_COOKIE.into(), cookie.as_bytes().to_vec()));
    }
    answer
}

/// The id that a callout is about.
pub(super) fn asked_id(callout: &Callout) -> String {
    let path = callout.headers.iter().find_map(|(name, value)| (*name == ":path").then_some(&**value));
    path.and_then(|path| path.strip_prefix("/v1/sessions/")).map(|rest| rest[..32].to_owned()).unwrap()
}
