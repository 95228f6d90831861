//! What a request asks for: its method, path, query and headers, parsed once.

use hyper::Method;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use session::gateway_api as names;
use session::id::SessionId;
use session::limits::{DEFAULT_ABSOLUTE, DEFAULT_IDLE, DEFAULT_ROTATION_GRACE, DEFAULT_SUBJECT_KEY, MAX_SUBJECT_BYTES};
use session::merge_patch;
use session::principal::{Principal, Realm};
use session::record::{Change, NewSession, Rotation, Timeouts, WriteId};
use session::time::Seconds;

use super::fields::Fields;
use super::problem::ApiError;
use crate::sessions::{Precondition, Presented, Touch};

const SESSION_METHODS: &str = "GET, HEAD, PUT, PATCH, DELETE";
const LIST_METHODS: &str = "GET, HEAD";
const REVOKE_METHODS: &str = "POST";
/// The error for a `PATCH` whose content type is not that of a patch.
const NOT_A_PATCH: ApiError = ApiError::UnsupportedMediaType {
    supported: "application/merge-patch+json, application/vnd.session-mesh.merge-patches+json",
};

/// What a path stands for.
pub(super) enum Route {
    /// A session, if the id is valid.
    Session(Option<SessionId>),
    /// A subject's sessions, if the subject is valid.
    List(Option<String>),
    /// The end of a subject's sessions.
    Revoke(Option<String>),
    /// Nothing, in `/v1/`, where a token is needed.
    Unknown,
    /// Nothing, outside `/v1/`.
    Outside,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        let Some(path) = path.strip_prefix("/v1/") else {
            return Self::Outside;
        };
        let mut segments = path.split('/');
        match [segments.next(), segments.next(), segments.next(), segments.next()] {
            [Some("sessions"), Some(id), None, None] => Self::Session(id.parse().ok()),
            [Some("subjects"), Some(subject), Some("sessions"), None] => Self::List(read_subject(subject)),
            [Some("subjects"), Some(subject), Some("revoke"), None] => Self::Revoke(read_subject(subject)),
            _ => Self::Unknown,
        }
    }

    /// The route as a metric's label.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Session(_) => "/v1/sessions/{id}",
            Self::List(_) => "/v1/subjects/{subject}/sessions",
            Self::Revoke(_) => "/v1/subjects/{subject}/revoke",
            Self::Unknown | Self::Outside => "none",
        }
    }

    /// What a log line may contain of the path: not the subject.
    pub(super) const fn loggable<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Self::List(_) | Self::Revoke(_) => self.name(),
            Self::Session(_) | Self::Unknown | Self::Outside => path,
        }
    }

    /// The session that a path names.
    pub(super) const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(id) => *id,
            _ => None,
        }
    }

    pub(super) const fn is_guarded(&self) -> bool {
        !matches!(self, Self::Outside)
    }
}

/// A request, parsed.
pub(super) enum Call {
    /// A call on one session.
    Session(SessionId, SessionCall),
    /// A subject's sessions.
    List(Principal),
    /// The end of a subject's sessions, possibly except for one.
    Revoke(Principal, Option<SessionId>),
}

/// A call on one session.
pub(super) enum SessionCall {
    Read { touch: Option<Touch> },
    Create(Create),
    Change(Patch),
    Destroy { precondition: Precondition, presented: Option<Presented> },
}

/// A `PUT` before its body has been read.
pub(super) struct Create {
    pub(super) merge_within: Option<Seconds>,
    timeouts: Timeouts,
    subject_key: String,
    realm: Option<Realm>,
    upstream_cookie: Option<String>,
    rotation: Rotation,
}

/// A `PATCH` before its body has been read.
pub(super) struct Patch {
    form: PatchForm,
    change: Change,
    precondition: Precondition,
    name: Option<WriteId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PatchForm {
    One,
    Many,
    /// No content type, which is valid if there is no content.
    None,
}

impl Call {
    pub(super) fn read(route: Route, head: &Parts) -> Result<Self, ApiError> {
        const NO_SUBJECT: ApiError = ApiError::Malformed("a subject is 1 to 512 bytes of UTF-8, percent-encoded");
        let query = head.uri.query();
        let principal = |subject: Option<String>| {
            let realm = Fields::new(&head.headers).realm(names::REALM)?;
            Ok::<_, ApiError>(Principal { realm, subject: subject.ok_or(NO_SUBJECT)? })
        };
        match route {
            Route::Session(id) => {
                let call = SessionCall::read(head)?;
                let id = id.ok_or(ApiError::Malformed("a session id is 32 lowercase hex digits"))?;
                Ok(Self::Session(id, call))
            }
            Route::List(subject) => {
                if !matches!(head.method, Method::GET | Method::HEAD) {
                    return Err(ApiError::MethodNotAllowed { allow: LIST_METHODS });
                }
                no_flag(query)?;
                Ok(Self::List(principal(subject)?))
            }
            Route::Revoke(subject) => {
                if head.method != Method::POST {
                    return Err(ApiError::MethodNotAllowed { allow: REVOKE_METHODS });
                }
                Ok(Self::Revoke(principal(subject)?, read_except(query)?))
            }
            Route::Unknown | Route::Outside => Err(ApiError::NoSuchPath),
        }
    }

    pub(super) const fn has_body(&self) -> bool {
        matches!(self, Self::Session(_, SessionCall::Create(_) | SessionCall::Change(_)))
    }
}

impl SessionCall {
    fn read(head: &Parts) -> Result<Self, ApiError> {
        let fields = Fields::new(&head.headers);
        let query = head.uri.query();
        match head.method {
            Method::GET | Method::HEAD => Self::read_read(&fields, query),
            Method::PUT => Self::read_create(&fields, query),
            Method::PATCH => Self::read_change(&fields, query),
            Method::DELETE => {
                no_flag(query)?;
                Ok(Self::Destroy { precondition: fields.precondition()?, presented: read_presented(&fields)? })
            }
            _ => Err(ApiError::MethodNotAllowed { allow: SESSION_METHODS }),
        }
    }

    fn read_read(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, ApiError> {
        let touch = flag(query, "touch")?;
        let after = fields.seconds(names::TOUCH_AFTER)?.unwrap_or(Seconds::ZERO);
        let presented = read_presented(fields)?;
        Ok(Self::Read { touch: touch.then_some(Touch { after, presented }) })
    }

    fn read_create(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, ApiError> {
        let rotation = read_rotation(query)?;
        if fields.media_type()? != Some("application/json") {
            return Err(ApiError::UnsupportedMediaType { supported: "application/json" });
        }
        Ok(Self::Create(Create {
            merge_within: fields.seconds(names::MERGE_WITHIN)?,
            timeouts: Timeouts {
                idle: fields.timeout(names::IDLE)?.unwrap_or(DEFAULT_IDLE),
                absolute: fields.timeout(names::ABSOLUTE)?.unwrap_or(DEFAULT_ABSOLUTE),
            },
            subject_key: subject_key(fields)?,
            realm: fields.realm(names::REALM)?,
            upstream_cookie: fields.upstream_cookie(names::UPSTREAM_COOKIE)?,
            rotation,
        }))
    }

    fn read_change(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, ApiError> {
        let rotation = read_rotation(query)?;
        let grace = fields.seconds(names::ROTATION_GRACE)?;
        let form = match fields.media_type()? {
            Some(names::MERGE_PATCH_TYPE) => PatchForm::One,
            Some(names::MERGE_PATCHES_TYPE) => PatchForm::Many,
            None if rotation > Rotation::None => PatchForm::None,
            _ => return Err(NOT_A_PATCH),
        };
        Ok(Self::Change(Patch {
            form,
            change: Change {
                patches: Vec::new(),
                rotation,
                grace: grace.unwrap_or(DEFAULT_ROTATION_GRACE),
                seen: fields.version(names::SEEN_VERSION)?,
                joins: false,
                subject_key: subject_key(fields)?,
                realm: fields.realm(names::REALM)?,
                upstream_cookie: fields.upstream_cookie(names::UPSTREAM_COOKIE)?,
            },
            precondition: fields.precondition()?,
            name: fields.write_id(names::WRITE_ID)?,
        }))
    }
}

impl Create {
    pub(super) fn with_body(self, body: &[u8]) -> Result<NewSession, ApiError> {
        let data = merge_patch::parse_object(body).ok_or(ApiError::Malformed("the body is not a JSON object"))?;
        Ok(NewSession {
            data,
            timeouts: self.timeouts,
            subject_key: self.subject_key,
            realm: self.realm,
            upstream_cookie: self.upstream_cookie,
            rotation: self.rotation,
        })
    }
}

impl Patch {
    pub(super) fn with_body(mut self, body: &[u8]) -> Result<(Change, Precondition, Option<WriteId>), ApiError> {
        let empty_is_fine = self.change.rotation > Rotation::None;
        self.change.patches = match self.form {
            _ if body.is_empty() && empty_is_fine => Vec::new(),
            PatchForm::One => {
                let patch = merge_patch::parse_object(body);
                vec![patch.ok_or(ApiError::Malformed("the body is not a JSON object"))?]
            }
            PatchForm::Many => {
                let patches = merge_patch::parse_objects(body);
                patches.ok_or(ApiError::Malformed("the body is not a JSON array of objects"))?
            }
            PatchForm::None => return Err(NOT_A_PATCH),
        };
        Ok((self.change, self.precondition, self.name))
    }
}

/// The token that the call is made with, if it is made with one.
fn read_presented(fields: &Fields<'_>) -> Result<Option<Presented>, ApiError> {
    let version = fields.version(names::SEEN_VERSION)?;
    let grace = fields.seconds(names::ROTATION_GRACE)?.unwrap_or(DEFAULT_ROTATION_GRACE);
    Ok(version.map(|version| Presented { version, grace }))
}

/// `?rotate` or `?authenticated`.
fn read_rotation(query: Option<&str>) -> Result<Rotation, ApiError> {
    match query.map(|query| query.strip_suffix('=').unwrap_or(query)) {
        Some("authenticated") => Ok(Rotation::Authenticated),
        _ => Ok(if flag(query, "rotate")? { Rotation::Asked } else { Rotation::None }),
    }
}

/// The subject that a segment of a path stands for (RFC 3986 section 2.1). A `%` that starts no escape is the caller's
/// mistake, and a guess at its meaning could end the wrong sessions.
fn read_subject(segment: &str) -> Option<String> {
    let is_whole = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    let subject = percent_decode_str(segment).decode_utf8().ok()?;
    let good = (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && segment.split('%').skip(1).all(is_whole);
    good.then(|| subject.into_owned())
}

/// The session that `?except={id}` names.
fn read_except(query: Option<&str>) -> Result<Option<SessionId>, ApiError> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    let id = query.strip_prefix("except=").and_then(|id| id.parse().ok());
    id.map(Some).ok_or(ApiError::Malformed("the query must be except= and a session id"))
}

fn subject_key(fields: &Fields<'_>) -> Result<String, ApiError> {
    let key = fields.data_key(names::SUBJECT_KEY)?;
    Ok(key.unwrap_or(DEFAULT_SUBJECT_KEY).to_owned())
}

/// Whether the query is this flag. Anything except the flag or nothing is a mistake, which is better reported than
/// ignored.
fn flag(query: Option<&str>, name: &str) -> Result<bool, ApiError> {
    match query {
        None | Some("") => Ok(false),
        Some(query) if query.strip_suffix('=').unwrap_or(query) == name => Ok(true),
        Some(_) => Err(ApiError::Malformed("the query has a parameter that this method does not support")),
    }
}

fn no_flag(query: Option<&str>) -> Result<(), ApiError> {
    flag(query, "").map(|_| ())
}
