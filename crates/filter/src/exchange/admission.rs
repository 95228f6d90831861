//! Whether a token opens the session that was found under its id.

use crate::found::FoundSession;
use crate::token::Token;
use session::rotation::Standing;
use session::time::{CLOCK_TOLERANCE, Seconds, UnixSeconds};

/// The verdict on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The token has this standing with the session.
    Own(Standing),
    /// The token was issued before this session existed: after the token's session had gone, another client that had
    /// its anonymous token used the id again.
    Foreign,
}

/// Decides about a token for the session found under its id. `longest` is the maximum length of a grace.
pub(super) fn admit(token: &Token, found: &FoundSession, longest: Seconds, now: UnixSeconds) -> Admission {
    if token.issued_at.plus(CLOCK_TOLERANCE) < found.created {
        return Admission::Foreign;
    }
    Admission::Own(Standing::of(token.version, found.min_version, found.grace, longest, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::found::VisibleData;
    use session::id::SessionId;
    use session::version::Version;

    #[test]
    fn a_token_from_before_the_session_is_foreign_whatever_its_version() {
        let found = FoundSession {
            version: Version::new(9),
            min_version: Version::new(7),
            grace: None,
            created: UnixSeconds::new(1000),
            expires: UnixSeconds::new(9000),
            subject: None,
            auth_time: None,
            upstream_cookie: None,
            data: VisibleData::Whole(b"{}".to_vec()),
            exposed: Vec::new(),
        };
        let admission = |issued_at| {
            let token = Token {
                id: SessionId::from_bytes([1; 16]),
                version: Version::new(9),
                issued_at: UnixSeconds::new(issued_at),
            };
            admit(&token, &found, Seconds::new(10), UnixSeconds::new(1999))
        };
        assert_eq!(admission(939), Admission::Foreign);
        assert_eq!(admission(940), Admission::Own(Standing::Good));
    }
}
