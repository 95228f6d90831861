//! What the client is told when its session can't be read or a write can't be saved.

use std::borrow::Cow;

use crate::edit::{GrpcStatus, LocalReply};
use crate::upstream_api::ERROR;

/// Why a write was not saved, or a request not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteFailure {
    /// The store does not answer.
    Unavailable,
    /// The upstream sent an invalid change.
    Invalid,
    /// The data would be too large.
    TooLarge,
    /// The session, or the client's token, has ended in the meantime.
    Ended,
    /// Another client has promoted the anonymous token.
    Refused,
    /// The subject already has as many sessions as allowed.
    TooMany,
}

impl WriteFailure {
    /// What `x-session-error` says.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "store-unavailable",
            Self::Invalid => "invalid-patch",
            Self::TooLarge => "data-too-large",
            Self::Ended => "session-ended",
            Self::Refused => "promotion-refused",
            Self::TooMany => "too-many-sessions",
        }
    }

    /// A gRPC client may see only those as worth a retry that a retry may help.
    const fn grpc_status(self) -> GrpcStatus {
        match self {
            Self::Unavailable | Self::Ended | Self::Refused => GrpcStatus::Unavailable,
            Self::Invalid | Self::TooLarge => GrpcStatus::Internal,
            Self::TooMany => GrpcStatus::PermissionDenied,
        }
    }

    /// The response that the client gets instead. The status says who is to blame: the upstream for what can't be saved
    /// (502); no party is to blame for the rest, and a retry may help (503).
    pub(super) fn reply(self, set_cookie: Option<String>) -> LocalReply {
        let (status, body) = match self {
            Self::Unavailable => (503, "The session store does not answer. Try again in a moment.\n"),
            Self::Invalid => (502, "The server sent a session change that can't be understood.\n"),
            Self::TooLarge => (502, "The server sent a session change that is too large.\n"),
            Self::Ended => (503, "The session has ended. Try again.\n"),
            Self::Refused => (503, "The session could not be stored. Try again.\n"),
            Self::TooMany => (403, "This user has too many sessions. Log out elsewhere first.\n"),
        };
        let header = |name: &'static str, value: &str| (Cow::Borrowed(name), value.as_bytes().to_vec());
        let mut headers = vec![
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
            header(ERROR, self.code()),
        ];
        if status == 503 {
            headers.push(header("retry-after", "1"));
        }
        headers.extend(set_cookie.map(|value| header("set-cookie", &value)));
        LocalReply { status, grpc_status: self.grpc_status(), headers, body }
    }
}
