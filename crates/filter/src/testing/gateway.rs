//! A gateway for tests: `docs/gateway-api.md` with the records of [`session`], in memory.

use std::collections::HashMap;

use super::{HeaderList, headers};
use crate::exchange::Callout;
use session::gateway_api as api;
use session::limits::DEFAULT_ROTATION_GRACE;
use session::merge_patch::parse_object;
use session::record::{
    Change, ChangeError, NewSession, Rotation, Session, Stored, Timeouts, Tombstone, Write, WriteId,
};
use session::time::{Seconds, UnixSeconds};
use session::version::Version;

/// How the gateway behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayState {
    /// It answers as documented.
    #[default]
    Up,
    /// Envoy's own 503: no marker.
    Down,
    /// The callout can't even be sent.
    Unreachable,
    /// It answers, but only that it can't say.
    StoreDown,
}

/// A gateway and its store.
#[derive(Default)]
pub struct FakeGateway {
    /// How it behaves.
    pub state: GatewayState,
    /// How many of the next answers get lost.
    pub lost_answers: usize,
    /// The calls it has got: method and path.
    pub calls: Vec<String>,
    /// How often a lookup has extended a session's idle timeout.
    pub extensions: usize,
    /// What is stored under each id, and when it ends.
    store: HashMap<String, (Stored, u64)>,
}

impl FakeGateway {
    /// What comes back for a callout; `None` if it can't be sent.
    pub fn call(&mut self, callout: &Callout, now: UnixSeconds) -> Option<(HeaderList, Vec<u8>)> {
        let (headers, body) = match self.state {
            GatewayState::Unreachable => return None,
            GatewayState::Down => (headers(&[(":status", "503")]), b"upstream connect error".to_vec()),
            GatewayState::StoreDown => (headers(&[(":status", "503"), (api::MARKER, "1")]), Vec::new()),
            GatewayState::Up => {
                let (mut headers, body) = self.serve(callout, now);
                headers.push((api::SESSION_ID.into(), asked_id(callout).into_bytes()));
                (headers, body)
            }
        };
        let is_lost = self.lost_answers > 0;
        self.lost_answers = self.lost_answers.saturating_sub(1);
        Some(if is_lost { (super::headers(&[(":status", "504")]), Vec::new()) } else { (headers, body) })
    }

    /// Ends a session as another client's logout would.
    pub fn destroy(&mut self, id: &str, now: UnixSeconds) {
        self.store.insert(id.to_owned(), (Stored::Tombstone(Tombstone { ended: now }), now.get() + 60));
    }

    /// What the store has of a session.
    pub fn stored(&self, id: &str) -> (Stored, u64) {
        self.store.get(id).cloned().expect("stored")
    }

    /// Puts back what the store had of a session before.
    pub fn restore(&mut self, id: &str, stored: (Stored, u64)) {
        self.store.insert(id.to_owned(), stored);
    }

    /// Loses a session, as memcached does when it needs the room.
    pub fn evict(&mut self, id: &str) {
        self.store.remove(id);
    }

    /// The gateway, as docs/gateway-api.md has it.
    fn serve(&mut self, callout: &Callout, now: UnixSeconds) -> (HeaderList, Vec<u8>) {
        let header = |name: &str| callout.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        let seconds = |name| header(name).map(|value| Seconds::new(value.parse().unwrap()));
        assert_eq!(header("authorization"), Some("Bearer a-gateway-token"));
        let (method, path) = (header(":method").unwrap(), header(":path").unwrap());
        self.calls.push(format!("{method} {path}"));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let id = path.strip_prefix("/v1/sessions/").unwrap().to_owned();
        self.store.retain(|_, (_, expires)| *expires > now.get());

        let name = header(api::WRITE_ID).map_or(0, |name| u64::from_str_radix(name, 16).unwrap());
        let write = Write { now, id: WriteId::from_random(name.to_be_bytes()), max_data_bytes: 1000 };
        let subject_key = header(api::SUBJECT_KEY).unwrap_or("user").to_owned();
        let realm = header(api::REALM).map(|realm| realm.parse().unwrap());
        let upstream_cookie = header(api::UPSTREAM_COOKIE).map(str::to_owned);
        let grace = seconds(api::ROTATION_GRACE).unwrap_or(DEFAULT_ROTATION_GRACE);
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
                ("201", Session::create(new, write))
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
                self.destroy(&id, now);
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

fn status_of(error: ChangeError) -> &'static str {
    match error {
        ChangeError::TokenEnded => "412",
        ChangeError::SubjectAmbiguous(_) => "400",
        _ => "413",
    }
}

/// The headers of an answer with a session.
fn described(status: &str, session: &Session, expires: UnixSeconds) -> HeaderList {
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
pub fn asked_id(callout: &Callout) -> String {
    let path = callout.headers.iter().find_map(|(name, value)| (*name == ":path").then_some(&**value));
    path.and_then(|path| path.strip_prefix("/v1/sessions/")).map(|rest| rest[..32].to_owned()).unwrap()
}
