//! Everything that is not a success, sorted by who is to blame, and the only place where it becomes HTTP (RFC 9457).

use std::borrow::Cow;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use session::gateway_api as names;
use session::record::ChangeError;

use super::{Answer, answer};
use crate::metrics::TooMuch;
use crate::sessions::SessionError;
use crate::store::StoreError;

/// Why a request fails.
#[derive(Debug)]
pub(super) enum ApiError {
    Unauthorized,
    NoSuchPath,
    MethodNotAllowed {
        allow: &'static str,
    },
    UnsupportedMediaType {
        supported: &'static str,
    },
    Header {
        name: &'static str,
        reason: Cow<'static, str>,
    },
    Malformed(&'static str),
    BodyTooLarge {
        limit: usize,
    },
    BodyTooSlow,
    /// The maximum number of calls is in flight.
    Overloaded,
    Session(SessionError),
    Panicked,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl ApiError {
    /// The error, if it is the store that failed.
    pub(super) fn store_failure(&self) -> Option<&SessionError> {
        match self {
            Self::Session(SessionError::Store(StoreError::TooLarge { .. } | StoreError::Overloaded)) => None,
            Self::Session(error @ (SessionError::Store(_) | SessionError::TimedOut | SessionError::Stored(_))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// What is overloaded, if that is the reason.
    pub(super) const fn too_much(&self) -> Option<TooMuch> {
        match self {
            Self::Overloaded => Some(TooMuch::Calls),
            Self::Session(SessionError::Store(StoreError::Overloaded)) => Some(TooMuch::Store),
            _ => None,
        }
    }

    pub(super) fn answer(self) -> Answer {
        let (status, header) = self.status();
        let detail = self.detail();
        let (r#type, title) = match &self {
            Self::Session(SessionError::TooManySessions(_)) => (names::TOO_MANY_SESSIONS, "Too many sessions"),
            _ if self.too_much().is_some() => (names::OVERLOADED, "Overloaded"),
            // No type beyond the status: RFC 9457 section 4.2.1.
            _ => ("about:blank", status.canonical_reason().unwrap_or_default()),
        };
        let problem = Problem { r#type, title, status: status.as_u16(), detail: &detail };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut answer = answer::bare(status, Bytes::from(body));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = header {
            headers.insert(name, value);
        }
        answer
    }

    fn status(&self) -> (StatusCode, Option<(HeaderName, HeaderValue)>) {
        let unavailable = || (StatusCode::SERVICE_UNAVAILABLE, Some((RETRY_AFTER, HeaderValue::from_static("1"))));
        match self {
            Self::Unauthorized => {
                let scheme = HeaderValue::from_static("Bearer");
                (StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, scheme)))
            }
            Self::NoSuchPath => (StatusCode::NOT_FOUND, None),
            Self::MethodNotAllowed { allow } => {
                let allow = HeaderValue::from_static(allow);
                (StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, allow)))
            }
            Self::UnsupportedMediaType { supported } => {
                let supported = HeaderValue::from_static(supported);
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some((ACCEPT, supported)))
            }
            Self::Header { .. } | Self::Malformed(_) => (StatusCode::BAD_REQUEST, None),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, None),
            Self::Overloaded => unavailable(),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, None),
            Self::Session(error) => match error {
                SessionError::NotFound => (StatusCode::NOT_FOUND, None),
                SessionError::Exists { created } => {
                    let created = created.map(|created| answer::created_header(created.get()));
                    (StatusCode::CONFLICT, created)
                }
                SessionError::TooManySessions(_) => (StatusCode::FORBIDDEN, None),
                SessionError::PreconditionFailed { .. } | SessionError::Change(ChangeError::TokenEnded) => {
                    (StatusCode::PRECONDITION_FAILED, None)
                }
                SessionError::Change(ChangeError::DataTooLarge { .. } | ChangeError::SubjectTooLong)
                | SessionError::Store(StoreError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, None),
                SessionError::Change(ChangeError::SubjectAmbiguous(_)) => (StatusCode::BAD_REQUEST, None),
                // Retrying does not repair a damaged record; ending the session does.
                SessionError::Change(ChangeError::Stored(_)) | SessionError::Stored(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, None)
                }
                SessionError::Store(_) | SessionError::TimedOut | SessionError::Random(_) => unavailable(),
            },
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Unauthorized => "a valid bearer token is required".to_owned(),
            Self::NoSuchPath => "there is no such path".to_owned(),
            Self::MethodNotAllowed { allow } => format!("this path supports {allow}"),
            Self::UnsupportedMediaType { supported } => format!("the content type must be {}", or(supported)),
            Self::Header { name, reason } => format!("{name} {reason}"),
            Self::Malformed(reason) => (*reason).to_owned(),
            Self::BodyTooLarge { limit } => format!("the body is larger than {limit} bytes"),
            Self::BodyTooSlow => "the body took too long to arrive".to_owned(),
            Self::Overloaded => "the gateway has reached its limit of calls in flight".to_owned(),
            // Callers don't need the store's addresses. They are in the log.
            Self::Session(SessionError::Store(error @ (StoreError::TooLarge { .. } | StoreError::Overloaded))) => {
                error.to_string()
            }
            Self::Session(SessionError::Store(_)) => "the store failed".to_owned(),
            Self::Session(error) => error.to_string(),
            Self::Panicked => "an error in the gateway".to_owned(),
        }
    }
}

fn or(list: &str) -> String {
    list.replace(", ", " or ")
}
