//! Session ids: 128 random bits, written as 32 lowercase hex digits.
//!
//! Upstreams, logs and the store know a session by its id. The id is not a credential: a client needs a token to open a
//! session.

use core::fmt;
use core::str::FromStr;

/// The id of one session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; SessionId::BYTES]);

impl SessionId {
    /// Length of the id in bytes: 128 bits, the least that OWASP ASVS 5.0 7.2.3 allows.
    pub const BYTES: usize = 16;
    /// Length of the written id in hex digits.
    pub const HEX_DIGITS: usize = Self::BYTES * 2;

    /// Makes an id of these bytes, which must come from a cryptographically secure source.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The second half of the id: random bytes for uses that do not also use the id itself.
    #[must_use]
    pub fn second_half(&self) -> [u8; 8] {
        self.0.last_chunk().copied().unwrap_or_default()
    }

    /// The written id, without an allocation.
    #[must_use]
    pub fn to_hex(self) -> HexId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        let mut hex = [0; Self::HEX_DIGITS];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            if let [high, low] = pair {
                *high = digit(byte >> 4);
                *low = digit(byte & 0x0f);
            }
        }
        HexId(hex)
    }
}

/// The 32 hex digits of a [`SessionId`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HexId([u8; SessionId::HEX_DIGITS]);

impl HexId {
    /// The digits as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII digits are ever written; the fallback is never seen.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_hex().as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The text is not 32 lowercase hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionIdError;

impl fmt::Display for SessionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id is 32 lowercase hex digits")
    }
}

impl core::error::Error for SessionIdError {}

impl FromStr for SessionId {
    type Err = SessionIdError;

    /// Reads exactly 32 lowercase hex digits, so that every id has one spelling.
    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(SessionIdError),
        };
        if text.len() != Self::HEX_DIGITS {
            return Err(SessionIdError);
        }
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else {
                return Err(SessionIdError);
            };
            *byte = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_and_read_back(bytes: [u8; 16]) {
            let id = SessionId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_string(), bytes.map(|byte| format!("{byte:02x}")).concat());
        }

        #[test]
        fn anything_else_is_refused(text in "\\PC{0,40}") {
            let is_id = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(text.parse::<SessionId>().is_ok(), is_id);
        }
    }
}
