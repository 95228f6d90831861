//! Whether a token opens the session that was found under its id.

use crate::found::{Found, Grace};
use crate::time::{Seconds, UnixSeconds};
use crate::token::Token;

/// How far the clocks of Envoys and gateways may be apart.
const CLOCK_TOLERANCE: Seconds = Seconds::new(60);

/// The verdict on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It opens the session.
    Admitted,
    /// A rotation ended it.
    Rotated,
    /// A rotation ended it a moment ago: the client may have its new token already, so this
    /// exchange must not overwrite it.
    JustRotated,
    /// It was issued before this session existed: the id was used again after the token's session
    /// had gone, by somebody who held its anonymous token.
    Foreign,
}

/// Decides on a token for the session found under its id.
pub(super) fn admit(token: &Token, found: &Found, now: UnixSeconds) -> Admission {
    if token.issued_at.plus(CLOCK_TOLERANCE) < found.created {
        return Admission::Foreign;
    }
    if token.version >= found.min_version {
        return Admission::Admitted;
    }
    match found.grace {
        Some(Grace { until, from }) if now < until => {
            if token.version >= from {
                Admission::Admitted
            } else {
                Admission::JustRotated
            }
        }
        _ => Admission::Rotated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use crate::version::Version;

    fn admitted(version: u32, issued_at: u64, grace: Option<(u64, u32)>, now: u64) -> Admission {
        let token = Token {
            id: SessionId::from_bytes([1; 16]),
            version: Version::new(version),
            issued_at: UnixSeconds::new(issued_at),
        };
        let found = Found {
            version: Version::new(9),
            min_version: Version::new(7),
            expires: UnixSeconds::new(9000),
            grace: grace.map(|(until, from)| Grace { until: UnixSeconds::new(until), from: Version::new(from) }),
            created: UnixSeconds::new(1000),
            subject: None,
            upstream_cookie: None,
            data: crate::found::Data::Whole(b"{}".to_vec()),
            exposed: Vec::new(),
        };
        admit(&token, &found, UnixSeconds::new(now))
    }

    #[test]
    fn versions_and_the_grace() {
        let grace = Some((2000, 5));
        assert_eq!(admitted(7, 1500, None, 1999), Admission::Admitted);
        assert_eq!(admitted(8, 1500, None, 1999), Admission::Admitted);
        assert_eq!(admitted(6, 1500, None, 1999), Admission::Rotated);
        assert_eq!(admitted(6, 1500, grace, 1999), Admission::Admitted);
        assert_eq!(admitted(5, 1500, grace, 1999), Admission::Admitted);
        assert_eq!(admitted(4, 1500, grace, 1999), Admission::JustRotated);
        assert_eq!(admitted(6, 1500, grace, 2000), Admission::Rotated);
        assert_eq!(admitted(4, 1500, grace, 2000), Admission::Rotated);
    }

    #[test]
    fn a_token_of_before_the_session_is_foreign_whatever_its_version() {
        assert_eq!(admitted(9, 939, None, 1999), Admission::Foreign);
        assert_eq!(admitted(9, 940, None, 1999), Admission::Admitted);
    }
}
