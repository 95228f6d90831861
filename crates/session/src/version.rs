//! Versions: how many committed changes a session has had.

use core::fmt;
use core::str::FromStr;

/// The number of committed changes of a session.
///
/// A token carries the version that its client has seen, which is how any Envoy tells a copy that
/// misses the client's own write, and how rotation ends old tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u32);

impl Version {
    /// Never stored: no lookup is needed to know that there is nothing to find.
    pub const UNSTORED: Self = Self(0);
    /// What a session has when it is first stored.
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

    /// The version after one more change. It stays at the maximum once there: at a write a
    /// second that is 136 years away, and a wrap to 0 would make a stored session an unstored one.
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
