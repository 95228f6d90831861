//! The names of the gateway's HTTP API: what the filter sends, what the gateway answers.
//!
//! `docs/gateway-api.md` describes them. The filter and the gateway both use the names defined here.

/// On every answer of a gateway. An answer without it came from something else (Envoy's own
/// 503, another server on the port) and says nothing about the session.
pub const MARKER: &str = "session-gateway";
/// The value of [`MARKER`].
pub const MARKER_VALUE: &str = "1";
/// On every answer to a call on a session: the requested id. An answer without it, or with a different id, says nothing
/// about the session, even if it comes from a gateway: something in between has changed the path or mixed up answers.
pub const SESSION_ID: &str = "session-id";

/// Request, with `?touch`: do not extend the timeout if the last extension is less than this many seconds old.
pub const TOUCH_AFTER: &str = "session-touch-after";
/// Request on `PATCH` and `DELETE`: the version of the token that the change is made with. Refused with 412 if that
/// token no longer opens the session, or if it is valid only by a grace and the change is a rotation. With this header,
/// a `DELETE` of a session that does not exist returns 404. On `GET`, with `?touch`: a token that no longer opens the
/// session extends nothing.
pub const SEEN_VERSION: &str = "session-seen-version";
/// Request on `PATCH`: names this change, 16 lowercase hex digits drawn at random. If the change is sent again under
/// the same name because its answer was lost, it is made only once.
pub const WRITE_ID: &str = "session-write-id";
/// Request: how long the tokens from before a rotation stay valid, seconds.
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

/// Answer: tokens of an older version are refused, unless the grace still covers them.
pub const MIN_VERSION: &str = "session-min-version";
/// Answer: until when the tokens from before the last rotation are valid, Unix seconds.
pub const GRACE_UNTIL: &str = "session-grace-until";
/// Answer, with [`GRACE_UNTIL`]: the oldest version that the grace covers.
pub const GRACE_FROM: &str = "session-grace-from";
/// Answer: when the session was first stored, Unix seconds.
pub const CREATED: &str = "session-created";
/// Answer: when the session ends unless it is used, Unix seconds.
pub const EXPIRES: &str = "session-expires";
/// Answer: who is logged in, percent-encoded UTF-8.
pub const SUBJECT: &str = "session-subject";
/// Answer, with [`SUBJECT`]: when the user last proved their identity, Unix seconds.
pub const AUTH_TIME: &str = "session-auth-time";

/// The `type` of the problem (RFC 9457) that refuses a login with `403`: the subject already has as many sessions as
/// allowed.
pub const TOO_MANY_SESSIONS: &str = "too-many-sessions";
/// The `type` of the problem that refuses a call with `503` and `retry-after` because the gateway or its store is
/// overloaded. Nothing has failed, and a retry a little later helps.
pub const OVERLOADED: &str = "overloaded";

/// Media type of one RFC 7396 merge patch.
pub const MERGE_PATCH_TYPE: &str = "application/merge-patch+json";
/// Media type of a JSON array of RFC 7396 merge patches, applied in order as one change.
///
/// Two merge patches do not always compose into one (`{"a":1}` then `{"a":{"b":2}}` on `{"a":{"c":3}}`), so a response
/// with several needs its own media type.
pub const MERGE_PATCHES_TYPE: &str = "application/vnd.session-mesh.merge-patches+json";
