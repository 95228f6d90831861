//! Rotation: which tokens of a session are still good.
//!
//! A session has a `min_version`; a rotation raises it, and older tokens end. The tokens in use right before it get a
//! grace, so that requests in flight succeed. The filter checks when a request arrives, and the gateway checks again
//! when a write is committed: after a login in between, the write's client must not get in.

use crate::time::{CLOCK_TOLERANCE, Seconds, UnixSeconds};
use crate::version::Version;

/// Whether a change ends the older tokens of its session. If several are asked for, the greatest applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotation {
    /// No, unless it changes the subject.
    #[default]
    None,
    /// Yes, because the caller asks for it.
    Asked,
    /// Yes, because the user has just proved their identity again (OWASP ASVS 5.0 7.2.4, 7.5.1).
    Authenticated,
}

/// How long the tokens in use right before a rotation stay valid after it.
///
/// It covers only the tokens since the previous rotation. Otherwise the grace of a second rotation would reopen the
/// session for tokens that a login had ended for good. After a change of the subject it covers none, and only says that
/// an older token may be late rather than stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// The oldest version that the grace covers.
    pub from: Version,
    /// The end of the grace: from then on, only the session's `min_version` counts.
    pub until: UnixSeconds,
}

/// How a token of some version stands with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No rotation since it was issued.
    Good,
    /// Ended by a rotation, but covered by its grace.
    Spared,
    /// Ended by a rotation a moment ago: its client may have a newer one already.
    Late,
    /// Ended by a rotation.
    Ended,
}

impl Standing {
    /// The standing of a token of this version. No grace is longer than `longest`. If one ends later than that from
    /// now, by more than clocks may differ, it was set by a clock that has since been set back, and it is over.
    #[must_use]
    pub fn of(token: Version, min_version: Version, grace: Option<Grace>, longest: Seconds, now: UnixSeconds) -> Self {
        let latest = now.plus(longest).plus(CLOCK_TOLERANCE);
        match grace.filter(|grace| now < grace.until && grace.until <= latest) {
            _ if token >= min_version => Self::Good,
            Some(grace) if token >= grace.from => Self::Spared,
            Some(_) => Self::Late,
            None => Self::Ended,
        }
    }

    /// Whether the token opens the session.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Good | Self::Spared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_the_grace() {
        let standing = |token, grace: Option<(u32, u64)>, now| {
            let grace = grace.map(|(from, until)| Grace { from: Version::new(from), until: UnixSeconds::new(until) });
            Standing::of(Version::new(token), Version::new(7), grace, Seconds::new(10), UnixSeconds::new(now))
        };
        let grace = Some((5, 2000));
        assert_eq!(standing(7, None, 1999), Standing::Good);
        assert_eq!(standing(8, grace, 1999), Standing::Good);
        assert_eq!(standing(6, None, 1999), Standing::Ended);
        assert_eq!(standing(6, grace, 1999), Standing::Spared);
        assert_eq!(standing(5, grace, 1999), Standing::Spared);
        assert_eq!(standing(4, grace, 1999), Standing::Late);
        assert_eq!(standing(6, grace, 2000), Standing::Ended);
        assert_eq!(standing(4, grace, 2000), Standing::Ended);
        // The clock was set back: the grace is not longer for it than clocks may differ.
        assert_eq!(standing(6, grace, 2000 - 70), Standing::Spared);
        assert_eq!(standing(6, grace, 2000 - 71), Standing::Ended);
    }
}
