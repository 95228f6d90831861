//! What a request asks for: its method, path, query and headers, parsed once.

use hyper::Method;
use hyper::http::request::Parts;
use session_core::gateway_api as names;
use session_core::id::SessionId;
use session_core::merge_patch::{self, Object};
use session_core::record::{Change, NewSession, Timeouts};
use session_core::time::Seconds;

use super::fields::Fields;
use super::problem::Refusal;
use crate::sessions::{DEFAULT_ROTATION_GRACE, Precondition};

const DEFAULT_IDLE: Seconds = Seconds::new(1800);
const DEFAULT_ABSOLUTE: Seconds = Seconds::new(43_200);
const DEFAULT_SUBJECT_KEY: &str = "user";
const SESSION_METHODS: &str = "GET, HEAD, PUT, PATCH, DELETE";

/// What a path leads to.
#[derive(Clone, Copy)]
pub(super) enum Route {
    /// A session, if what stands for its id is one.
    Session(Option<SessionId>),
    /// Nothing, behind the token.
    Unknown,
    /// Nothing, outside of `/v1/`.
    Outside,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        let Some(path) = path.strip_prefix("/v1/") else {
            return Self::Outside;
        };
        match path.strip_prefix("sessions/") {
            Some(id) if !id.contains('/') => Self::Session(id.parse().ok()),
            _ => Self::Unknown,
        }
    }

    /// The route as a metric's label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Session(_) => "/v1/sessions/{id}",
            Self::Unknown | Self::Outside => "none",
        }
    }

    pub(super) const fn is_guarded(self) -> bool {
        !matches!(self, Self::Outside)
    }
}

/// A call on one session.
pub(super) enum Call {
    Read { touch: Option<Seconds> },
    Create(Create),
    Change(Patch),
    Destroy { precondition: Precondition },
}

/// A `PUT` before its body is there.
pub(super) struct Create {
    pub(super) merge_within: Option<Seconds>,
    timeouts: Timeouts,
    subject_key: String,
    upstream_cookie: Option<String>,
}

/// A `PATCH` before its body is there.
pub(super) struct Patch {
    form: PatchForm,
    change: Change,
    precondition: Precondition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PatchForm {
    One,
    Many,
    /// No content type: fine if there is no content.
    None,
}

impl Call {
    pub(super) fn read(route: Route, head: &Parts) -> Result<(SessionId, Self), Refusal> {
        let Route::Session(id) = route else {
            return Err(Refusal::NoSuchPath);
        };
        let fields = Fields::new(&head.headers);
        let query = head.uri.query();
        let call = match head.method {
            Method::GET | Method::HEAD => Self::read_read(&fields, query)?,
            Method::PUT => Self::read_create(&fields, query)?,
            Method::PATCH => Self::read_change(&fields, query)?,
            Method::DELETE => {
                no_flag(query)?;
                Self::Destroy { precondition: fields.precondition()? }
            }
            _ => return Err(Refusal::MethodNotAllowed { allow: SESSION_METHODS }),
        };
        let id = id.ok_or(Refusal::Malformed("a session id is 32 lowercase hex digits"))?;
        Ok((id, call))
    }

    pub(super) const fn has_body(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Change(_))
    }

    fn read_read(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, Refusal> {
        let touch = flag(query, "touch")?;
        // With one copy of each session there is nowhere else to look for a newer version.
        fields.version(names::WANT_VERSION)?;
        let after = fields.seconds(names::TOUCH_AFTER)?;
        Ok(Self::Read { touch: touch.then(|| after.unwrap_or(Seconds::ZERO)) })
    }

    fn read_create(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, Refusal> {
        no_flag(query)?;
        if fields.media_type()? != Some("application/json") {
            return Err(Refusal::UnsupportedMediaType { supported: "application/json" });
        }
        Ok(Self::Create(Create {
            merge_within: fields.seconds(names::MERGE_WITHIN)?,
            timeouts: Timeouts {
                idle: fields.timeout(names::IDLE)?.unwrap_or(DEFAULT_IDLE),
                absolute: fields.timeout(names::ABSOLUTE)?.unwrap_or(DEFAULT_ABSOLUTE),
            },
            subject_key: subject_key(fields)?,
            upstream_cookie: fields.cookie_value(names::UPSTREAM_COOKIE)?,
        }))
    }

    fn read_change(fields: &Fields<'_>, query: Option<&str>) -> Result<Self, Refusal> {
        let rotate = flag(query, "rotate")?;
        let grace = fields.seconds(names::ROTATION_GRACE)?;
        let form = match fields.media_type()? {
            Some(names::MERGE_PATCH_TYPE) => PatchForm::One,
            Some(names::MERGE_PATCHES_TYPE) => PatchForm::Many,
            None if rotate => PatchForm::None,
            _ => {
                return Err(Refusal::UnsupportedMediaType {
                    supported: "application/merge-patch+json, application/vnd.session-mesh.merge-patches+json",
                });
            }
        };
        Ok(Self::Change(Patch {
            form,
            change: Change {
                patches: Vec::new(),
                rotate,
                grace: grace.unwrap_or(DEFAULT_ROTATION_GRACE),
                subject_key: subject_key(fields)?,
                upstream_cookie: fields.cookie_value(names::UPSTREAM_COOKIE)?,
            },
            precondition: fields.precondition()?,
        }))
    }
}

impl Create {
    pub(super) fn with_body(self, body: &[u8]) -> Result<NewSession, Refusal> {
        let data = merge_patch::parse_object(body).ok_or(Refusal::Malformed("the body is not a JSON object"))?;
        Ok(NewSession {
            data,
            timeouts: self.timeouts,
            subject_key: self.subject_key,
            upstream_cookie: self.upstream_cookie,
        })
    }
}

impl Patch {
    pub(super) fn with_body(mut self, body: &[u8]) -> Result<(Change, Precondition), Refusal> {
        let empty_is_fine = self.change.rotate;
        self.change.patches = match self.form {
            _ if body.is_empty() && empty_is_fine => Vec::new(),
            PatchForm::One => {
                let patch = merge_patch::parse_object(body);
                vec![patch.ok_or(Refusal::Malformed("the body is not a JSON object"))?]
            }
            PatchForm::Many => {
                let patches = serde_json::from_slice::<Vec<Object>>(body).ok();
                patches.ok_or(Refusal::Malformed("the body is not a JSON array of objects"))?
            }
            PatchForm::None => {
                return Err(Refusal::UnsupportedMediaType {
                    supported: "application/merge-patch+json, application/vnd.session-mesh.merge-patches+json",
                });
            }
        };
        Ok((self.change, self.precondition))
    }
}

fn subject_key(fields: &Fields<'_>) -> Result<String, Refusal> {
    let key = fields.data_key(names::SUBJECT_KEY)?;
    Ok(key.unwrap_or(DEFAULT_SUBJECT_KEY).to_owned())
}

/// Whether the query is this flag. Anything but the flag or nothing is a mistake better told than ignored.
fn flag(query: Option<&str>, name: &str) -> Result<bool, Refusal> {
    match query {
        None | Some("") => Ok(false),
        Some(query) if query.strip_suffix('=').unwrap_or(query) == name => Ok(true),
        Some(_) => Err(Refusal::Malformed("the query has a parameter that this method does not know")),
    }
}

fn no_flag(query: Option<&str>) -> Result<(), Refusal> {
    flag(query, "").map(|_| ())
}
