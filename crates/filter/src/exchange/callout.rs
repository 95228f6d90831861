//! Calls to the gateway, and what its answers mean.

use std::borrow::Cow;

use crate::config::Config;
use crate::edit::{Headers, number, text, values};
use crate::found::FoundSession;
use session::gateway_api as api;
use session::id::SessionId;
use session::merge_patch::Object;
use session::rotation::Rotation;
use session::time::{Seconds, UnixSeconds};
use session::version::Version;

/// A request to the gateway's cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Callout {
    /// The session that it is about.
    pub session: SessionId,
    /// Pseudo-headers and headers. One of them is a credential.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body, empty for most calls.
    pub body: Vec<u8>,
}

impl core::fmt::Debug for Callout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.headers.iter().filter(|(name, _)| *name != "authorization")).finish()
    }
}

/// For calls that take effect only once however often they are made: Envoy may retry them whatever went wrong, such as
/// a keep-alive connection that the gateway had just closed.
const RETRY_IDEMPOTENT: &str = "connect-failure,refused-stream,reset";
/// All other calls may be retried only if they were certainly not received.
const RETRY_UNSENT: &str = "connect-failure,refused-stream,reset-before-request";

impl Callout {
    fn new(config: &Config, method: &'static str, session: SessionId, query: &str, retry_on: &'static str) -> Self {
        let path = format!("/v1/sessions/{session}{query}");
        Self {
            session,
            headers: vec![
                (":method", method.into()),
                (":path", path.into()),
                (":authority", "session-gateway".into()),
                ("authorization", config.gateway.authorization.clone().into()),
                ("x-envoy-retry-on", retry_on.into()),
                ("x-envoy-max-retries", "1".into()),
            ],
            body: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn with_upstream_cookie(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(api::UPSTREAM_COOKIE, value.to_owned()),
            None => self,
        }
    }

    fn with_realm(self, config: &Config) -> Self {
        match &config.realm {
            Some(realm) => self.with(api::REALM, realm.as_str().to_owned()),
            None => self,
        }
    }

    /// Requests a session, and extends its idle timeout if the last extension is at least `touch_after` old and a token
    /// of version `seen` still opens the session.
    pub(super) fn look_up(config: &Config, id: SessionId, seen: Version, touch_after: Seconds) -> Self {
        Self::new(config, "GET", id, "?touch", RETRY_IDEMPOTENT)
            .with(api::TOUCH_AFTER, touch_after.to_string())
            .with(api::SEEN_VERSION, seen.to_string())
            .with(api::ROTATION_GRACE, config.timeouts.rotation_grace.to_string())
    }

    /// Stores a new session. With `merge_within`, it joins one that another request has just created.
    pub(super) fn create(
        config: &Config,
        id: SessionId,
        data: &Object,
        rotation: Rotation,
        merge_within: bool,
        upstream_cookie: Option<&str>,
    ) -> Self {
        let mut call = Self::new(config, "PUT", id, query(rotation), RETRY_UNSENT)
            .with("content-type", "application/json")
            .with(api::IDLE, config.timeouts.idle.to_string())
            .with(api::ABSOLUTE, config.timeouts.absolute.to_string())
            .with(api::SUBJECT_KEY, config.subject_key.clone())
            .with_realm(config)
            .with_upstream_cookie(upstream_cookie);
        if merge_within {
            call = call.with(api::MERGE_WITHIN, config.timeouts.rotation_grace.to_string());
        }
        call.body = serde_json::to_vec(data).unwrap_or_default();
        call
    }

    /// Changes a session, with a token of version `seen`: `patches` is the JSON array of its merge patches, possibly
    /// none. The change is made once under the same `write_id`, however often it is sent.
    pub(super) fn change(
        config: &Config,
        id: SessionId,
        seen: Version,
        patches: Vec<u8>,
        rotation: Rotation,
        upstream_cookie: Option<&str>,
        write_id: [u8; 8],
    ) -> Self {
        let mut call = Self::new(config, "PATCH", id, query(rotation), RETRY_IDEMPOTENT)
            .with("content-type", api::MERGE_PATCHES_TYPE)
            .with(api::SEEN_VERSION, seen.to_string())
            .with(api::WRITE_ID, format!("{:016x}", u64::from_be_bytes(write_id)))
            .with(api::ROTATION_GRACE, config.timeouts.rotation_grace.to_string())
            .with(api::SUBJECT_KEY, config.subject_key.clone())
            .with_realm(config)
            .with_upstream_cookie(upstream_cookie);
        call.body = patches;
        call
    }

    /// Ends a session, if a token of version `seen` still opens it. Ending it twice does no harm, so this call may be
    /// retried like a lookup.
    pub(super) fn destroy(config: &Config, id: SessionId, seen: Version) -> Self {
        Self::new(config, "DELETE", id, "", RETRY_IDEMPOTENT)
            .with(api::SEEN_VERSION, seen.to_string())
            .with(api::ROTATION_GRACE, config.timeouts.rotation_grace.to_string())
    }
}

/// Asks for a rotation.
const fn query(rotation: Rotation) -> &'static str {
    match rotation {
        Rotation::None => "",
        Rotation::Asked => "?rotate",
        Rotation::Authenticated => "?authenticated",
    }
}

/// What came back for a callout.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// An HTTP response, from the gateway or from something else in its place.
    Received {
        /// Its headers; none at all when the connection broke in the body.
        headers: &'a Headers<'a>,
        /// Its body.
        body: &'a [u8],
    },
    /// The call could not even be sent.
    NotSent,
}

/// What an answer means. Only an answer with the gateway's marker and the requested id says anything about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// The session, as it is now.
    Found(FoundSession),
    /// The session has ended, as requested.
    Destroyed,
    /// There is no such session.
    Missing,
    /// The id is taken. If a live session has it, this is when that session was created.
    Taken(Option<UnixSeconds>),
    /// The token of this call no longer opens the session.
    Rotated,
    /// The subject has too many sessions.
    TooMany,
    /// The gateway refuses the content.
    Invalid,
    /// The data would be too large.
    TooLarge,
    /// No answer, no gateway, or a gateway that can't answer.
    Unavailable,
}

impl CallOutcome {
    pub(super) fn of(config: &Config, asked: SessionId, answer: Answer<'_>) -> Self {
        let Answer::Received { headers, body } = answer else {
            return Self::Unavailable;
        };
        if text(headers, api::MARKER) != Some(api::MARKER_VALUE) || !is_about(headers, asked) {
            return Self::Unavailable;
        }
        match text(headers, ":status") {
            Some("200" | "201") => FoundSession::read(config, headers, body).map_or(Self::Unavailable, Self::Found),
            Some("204") => Self::Destroyed,
            Some("404") => Self::Missing,
            Some("409") => Self::Taken(number(headers, api::CREATED)),
            Some("412") => Self::Rotated,
            Some("403") => Self::TooMany,
            Some("400") => Self::Invalid,
            Some("413") => Self::TooLarge,
            _ => Self::Unavailable,
        }
    }
}

/// Whether the answer names this session and no other.
fn is_about(headers: &Headers<'_>, id: SessionId) -> bool {
    let mut named = values(headers, api::SESSION_ID);
    named.next() == Some(id.to_hex().as_str().as_bytes()) && named.next().is_none()
}
