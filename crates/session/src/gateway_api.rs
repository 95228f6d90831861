//! The names of the gateway's HTTP API: what the filter sends, what the gateway answers.
//!
//! `docs/gateway-api.md` describes each for people; the filter and the gateway both take the
//! names from here.

/// On every answer of a gateway. An answer without it came from something else (Envoy's own
/// 503, another server on the port) and says nothing about the session.
pub const MARKER: &str = "session-gateway";
/// The value of [`MARKER`].
pub const MARKER_VALUE: &str = "1";
/// On every answer to a call on a session: the id that was asked for. An answer without it, or with another one, says
/// nothing about the session, even if it comes from a gateway: something on the way has changed the path, or mixes
/// answers.
pub const SESSION_ID: &str = "session-id";

/// Request: the version an answer should at least have, decimal.
pub const WANT_VERSION: &str = "session-want-version";
/// Request, with `?touch`: skip the extension when the last one is younger, seconds.
pub const TOUCH_AFTER: &str = "session-touch-after";
/// Request on `PATCH` and `DELETE`: the version of the token that the change is made with. Refused with 412 if that
/// token does not open the session any more, or if only a grace spares it and the change is a rotation. With it a
/// `DELETE` of what is not there is a 404. On `GET`, with `?touch`: a token that does not open the session any more
/// extends nothing.
pub const SEEN_VERSION: &str = "session-seen-version";
/// Request on `PATCH`: names this change, 16 lowercase hex digits drawn at random. A change that is asked for again
/// under the same name, because its answer was lost, is made once.
pub const WRITE_ID: &str = "session-write-id";
/// Request: how long the tokens from before a rotation stay good, seconds.
pub const ROTATION_GRACE: &str = "session-rotation-grace";
/// Request: the data key that holds the subject.
pub const SUBJECT_KEY: &str = "session-subject-key";
/// Request on `PUT`, `PATCH` and calls on subjects: the realm that the subject belongs to.
pub const REALM: &str = "session-realm";
/// Request on `PUT`: merge into a session of that id created at most this many seconds ago.
pub const MERGE_WITHIN: &str = "session-merge-within";

/// Request on `PUT` and answer: the idle timeout, seconds.
pub const IDLE: &str = "session-idle";
/// Request on `PUT` and answer: the absolute timeout, seconds after creation.
pub const ABSOLUTE: &str = "session-absolute";
/// Request and answer: the id that upstreams keep their own state under, if it isn't the session's.
pub const UPSTREAM_COOKIE: &str = "session-upstream-cookie";

/// Answer: tokens of an older version are refused, unless the grace still runs.
pub const MIN_VERSION: &str = "session-min-version";
/// Answer: until when the tokens from before the last rotation are good, Unix seconds.
pub const GRACE_UNTIL: &str = "session-grace-until";
/// Answer, with [`GRACE_UNTIL`]: the oldest version that has the grace.
pub const GRACE_FROM: &str = "session-grace-from";
/// Answer: when the session was first stored, Unix seconds.
pub const CREATED: &str = "session-created";
/// Answer: when the session ends unless it is used, Unix seconds.
pub const EXPIRES: &str = "session-expires";
/// Answer: who is logged in, percent-encoded UTF-8.
pub const SUBJECT: &str = "session-subject";
/// Answer, with [`SUBJECT`]: when they last proved who they are, Unix seconds.
pub const AUTH_TIME: &str = "session-auth-time";

/// The `type` of the problem (RFC 9457) that answers a login with `403`: the subject has as many sessions as it may
/// have.
pub const TOO_MANY_SESSIONS: &str = "too-many-sessions";
/// The `type` of the problem that answers a call with `503` and `retry-after` because the gateway or its store has more
/// to do than it can do in time. Nothing has failed, and trying again a little later helps.
pub const OVERLOADED: &str = "overloaded";

/// Media type of one RFC 7396 merge patch.
pub const MERGE_PATCH_TYPE: &str = "application/merge-patch+json";
/// Media type of a JSON array of RFC 7396 merge patches, applied in order as one change.
///
/// Two merge patches do not always compose into one (`{"a":1}` then `{"a":{"b":2}}` on
/// `{"a":{"c":3}}`), so a response with several needs a form of its own.
pub const MERGE_PATCHES_TYPE: &str = "application/vnd.session-mesh.merge-patches+json";
