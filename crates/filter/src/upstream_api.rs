//! The headers between the filter and upstreams.
//!
//! Requests carry the session; responses may change it. Clients can set none of them: everything that a client sends
//! under these names is removed, including the spellings that CGI-like upstreams can't tell apart from them.

/// Request: the session's id.
pub const ID: &str = "x-session-id";
/// Request: [`SessionState`].
pub const STATE: &str = "x-session-state";
/// Request: the session's version, decimal.
pub const VERSION: &str = "x-session-version";
/// Request: the session's data, an ASCII JSON object.
pub const DATA: &str = "x-session-data";
/// Request: the size of the data that was too large for [`DATA`].
pub const DATA_OMITTED: &str = "x-session-data-omitted";
/// Request: who is logged in, percent-encoded UTF-8.
pub const SUBJECT: &str = "x-session-subject";
/// Request: when the user last proved their identity, Unix seconds (`auth_time` of OIDC Core section 2).
pub const AUTH_TIME: &str = "x-session-auth-time";

/// Response: one JSON merge patch on the data.
pub const PATCH: &str = "x-session-patch";
/// Response: `rotate`, `authenticated` or `destroy`.
pub const CONTROL: &str = "x-session-control";

/// Response, to the client: why a write was not saved or a request not served.
pub const ERROR: &str = "x-session-error";

const PREFIX: &str = "x-session-";

/// What the upstream learns about a request's session, in `x-session-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The client sent no token.
    New,
    /// The client sent a token, and its session exists (or has never been written).
    Active,
    /// The client's token was valid, but its session is gone. The id is a new one.
    Expired,
    /// The store did not answer; only the id is known.
    Unavailable,
}

impl SessionState {
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

/// Whether upstreams could read this header name, in lower case, as one of ours.
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    is_spelling_below(name, PREFIX)
}

/// Whether upstreams could read `name` as one that begins with `prefix`.
#[must_use]
pub fn is_spelling_below(name: &[u8], prefix: &str) -> bool {
    is_spelling_of(name.get(..prefix.len()).unwrap_or_default(), prefix)
}

/// Whether upstreams could read `name` as `header`: CGI and PHP turn every character that is not a letter or digit into
/// `_`, so that `X.User`, `x~user` and `x_user` are all `HTTP_X_USER` to them. Letters count in any case.
#[must_use]
pub fn is_spelling_of(name: &[u8], header: &str) -> bool {
    name.len() == header.len()
        && name.iter().zip(header.bytes()).all(|(symbol, expected)| folded(*symbol) == folded(expected))
}

/// How upstreams could read a byte of a header's name.
const fn folded(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The variable that lighttpd's CGI, and PHP for a part of these, make of a header's name.
    fn variable(name: &[u8]) -> String {
        let symbol = |byte: &u8| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_uppercase()) } else { '_' };
        name.iter().map(symbol).collect()
    }

    proptest! {
        #[test]
        fn what_is_one_variable_is_one_name(
            name in proptest::collection::vec(prop_oneof![b'a'..=b'c', b'A'..=b'C', Just(b'-'), Just(b'_'), Just(b'.'), Just(b'~')], 0..5),
            header in "[a-c_-]{0,5}",
        ) {
            prop_assert_eq!(is_spelling_of(&name, &header), variable(&name) == variable(header.as_bytes()));
        }

        #[test]
        fn no_spelling_of_ours_passes(odd in proptest::collection::vec("[!#$%&'*+.^_`|~-]", 2), rest in "[a-z-]{1,10}") {
            let name = format!("x{}session{}{rest}", odd[0], odd[1]);
            prop_assert!(is_reserved(name.as_bytes()), "{}", name);
        }
    }

    #[test]
    fn every_spelling_is_reserved() {
        for name in [
            "x-session-id",
            "x_session_id",
            "x-session_anything",
            "x_session-",
            "x-session-patch",
            "x.session.subject",
            "x~session!id",
            "X-Session-Id",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["x-session", "x-sessions-id", "session-id", "x-user", "", "ü-session-id"] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }
}
