//! The headers between the filter and upstreams.
//!
//! Requests carry the session; responses may change it. Clients can set none of them: whatever a
//! client sends under these names is removed, also in the spelling with `_` that CGI-like
//! upstreams can't tell from `-`.

/// Request: the session's id.
pub const ID: &str = "x-session-id";
/// Request: [`State`].
pub const STATE: &str = "x-session-state";
/// Request: the session's version, decimal.
pub const VERSION: &str = "x-session-version";
/// Request: the session's data, an ASCII JSON object.
pub const DATA: &str = "x-session-data";
/// Request: the size of the data that was too large for [`DATA`].
pub const DATA_OMITTED: &str = "x-session-data-omitted";
/// Request: who is logged in, percent-encoded UTF-8.
pub const SUBJECT: &str = "x-session-subject";
/// Request: when they last proved who they are, Unix seconds (`auth_time` of OIDC Core section 2).
pub const AUTH_TIME: &str = "x-session-auth-time";

/// Response: one JSON merge patch on the data.
pub const PATCH: &str = "x-session-patch";
/// Response: `rotate`, `authenticated` or `destroy`.
pub const CONTROL: &str = "x-session-control";

/// Response, to the client: why a write was not saved or a request not served.
pub const ERROR: &str = "x-session-error";

const PREFIX: &str = "x-session-";

/// What a request's session is to the upstream, as `x-session-state` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client came without a token.
    New,
    /// The client came with a token, and the session is there (or has never been written).
    Active,
    /// The client's token was valid, but its session is gone. The id is a new one.
    Expired,
    /// The store did not answer; nothing is known but the id.
    Unavailable,
}

impl State {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Whether upstreams would take this header name, in lower case, for one of ours.
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    is_spelling_of(name.get(..PREFIX.len()).unwrap_or_default(), PREFIX)
}

/// Whether `name` is `header`, or becomes it where `_` and `-` are the same.
#[must_use]
pub fn is_spelling_of(name: &[u8], header: &str) -> bool {
    name.len() == header.len()
        && name.iter().zip(header.bytes()).all(|(symbol, expected)| match symbol {
            b'_' => expected == b'-' || expected == b'_',
            symbol => *symbol == expected,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_reserved() {
        for name in ["x-session-id", "x_session_id", "x-session_anything", "x_session-", "x-session-patch"] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["x-session", "x-sessions-id", "session-id", "x-user", "", "ü-session-id"] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }
}
