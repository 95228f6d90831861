//! Versions: how many committed changes a session has had.

use core::fmt;
use core::str::FromStr;

/// The number of committed changes of a session.
///
/// A token carries the version that its client has seen. By it, any Envoy recognizes a copy that lacks the client's own
/// write, and a rotation ends old tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// Never stored: there is nothing to find, so no lookup is needed.
    pub const UNSTORED: Self = Self(0);
    /// The version of a session when it is first stored.
    pub const FIRST: Self = Self(1);

    /// The version of this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The version after one more change. It stays at the maximum once it is reached. At one write per second that
    /// takes 136 years, and a wrap to 0 would turn a stored session into one that is not.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = core::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
