//! The epoch of a subject: what ties a session to the record of its subject.

/// Names one period of a subject's record, from its creation or a revocation to the next revocation.
///
/// It consists of 64 random bits. A counter would start again after the store has lost the record. Only equality
/// matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// Makes an epoch of these random bytes.
    #[must_use]
    pub const fn from_random(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// The epoch as stored.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number to store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// A different epoch, in case this one is in use.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
