//! Answers that carry a session, or several.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use session::gateway_api as names;
use session::id::SessionId;

use super::Answer;
use crate::sessions::{ListedSession, LiveSession};

const GRACE_FROM: HeaderName = HeaderName::from_static(names::GRACE_FROM);
const MIN_VERSION: HeaderName = HeaderName::from_static(names::MIN_VERSION);
const GRACE_UNTIL: HeaderName = HeaderName::from_static(names::GRACE_UNTIL);
const CREATED: HeaderName = HeaderName::from_static(names::CREATED);
const EXPIRES: HeaderName = HeaderName::from_static(names::EXPIRES);
const IDLE: HeaderName = HeaderName::from_static(names::IDLE);
const ABSOLUTE: HeaderName = HeaderName::from_static(names::ABSOLUTE);
const SUBJECT: HeaderName = HeaderName::from_static(names::SUBJECT);
const AUTH_TIME: HeaderName = HeaderName::from_static(names::AUTH_TIME);
const UPSTREAM_COOKIE: HeaderName = HeaderName::from_static(names::UPSTREAM_COOKIE);
const SESSION_ID: HeaderName = HeaderName::from_static(names::SESSION_ID);
const MARKER: HeaderName = HeaderName::from_static(names::MARKER);
const MARKER_VALUE: HeaderValue = HeaderValue::from_static(names::MARKER_VALUE);

/// RFC 3986 section 2.3: the unreserved characters stay.
const SUBJECT_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One of a subject's sessions.
#[derive(Serialize)]
struct ListItem {
    id: String,
    created: u64,
    expires: u64,
    version: u32,
}

/// `200` with the session.
pub(super) fn session(live: LiveSession) -> Answer {
    with_session(StatusCode::OK, live)
}

/// `201` with the session.
pub(super) fn created(live: LiveSession) -> Answer {
    with_session(StatusCode::CREATED, live)
}

/// `200` with the list of a subject's sessions.
pub(super) fn list(sessions: &[ListedSession]) -> Answer {
    let listed = sessions.iter().map(|ListedSession { id, live }| ListItem {
        id: id.to_string(),
        created: live.session.created().get(),
        expires: live.expires.get(),
        version: live.session.version().get(),
    });
    // Writing strings and numbers into a Vec can't fail.
    let body = serde_json::to_vec(&listed.collect::<Vec<_>>()).unwrap_or_default();
    let mut answer = bare(StatusCode::OK, Bytes::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// `204`.
pub(super) fn no_content() -> Answer {
    bare(StatusCode::NO_CONTENT, Bytes::new())
}

/// Adds the id of the session that the answer is about.
pub(super) fn about(answer: &mut Answer, id: SessionId) {
    // Hex digits are always a valid header value.
    if let Ok(id) = HeaderValue::from_str(id.to_hex().as_str()) {
        answer.headers_mut().insert(SESSION_ID, id);
    }
}

/// An answer with nothing but the marker and a body.
pub(super) fn bare(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(MARKER, MARKER_VALUE);
    answer
}

/// The header that says when a session was created.
pub(super) fn created_header(created: u64) -> (HeaderName, HeaderValue) {
    (CREATED, HeaderValue::from(created))
}

/// The answer to a `HEAD`: the headers of the answer to a `GET`.
pub(super) fn without_body(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Answer::from_parts(head, Full::new(Bytes::new()))
}

fn with_session(status: StatusCode, live: LiveSession) -> Answer {
    let LiveSession { session, expires } = live;
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(MARKER, MARKER_VALUE);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    put(&mut headers, ETAG, format!("\"{}\"", session.version()));
    headers.insert(MIN_VERSION, HeaderValue::from(session.min_version().get()));
    if let Some(grace) = session.grace() {
        headers.insert(GRACE_UNTIL, HeaderValue::from(grace.until.get()));
        headers.insert(GRACE_FROM, HeaderValue::from(grace.from.get()));
    }
    headers.insert(CREATED, HeaderValue::from(session.created().get()));
    headers.insert(EXPIRES, HeaderValue::from(expires.get()));
    headers.insert(IDLE, HeaderValue::from(session.timeouts().idle.get()));
    headers.insert(ABSOLUTE, HeaderValue::from(session.timeouts().absolute.get()));
    if let Some(subject) = session.subject() {
        put(&mut headers, SUBJECT, utf8_percent_encode(subject, SUBJECT_ESCAPES).to_string());
    }
    if let Some(auth_time) = session.auth_time() {
        headers.insert(AUTH_TIME, HeaderValue::from(auth_time.get()));
    }
    if let Some(cookie) = session.upstream_cookie() {
        put(&mut headers, UPSTREAM_COOKIE, cookie.to_owned());
    }
    let mut answer = Answer::new(Full::new(Bytes::from(session.into_data().into_string())));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// Adds a header. An invalid value can only come from a store that other programs write to, and is omitted.
fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
