//! The limits for what the filter sends and the gateway accepts, and the defaults of both.
//!
//! The gateway refuses anything beyond a limit. The filter rejects a configuration that would exceed it, and drops what
//! an upstream sends beyond it.

use core::time::Duration;

use crate::time::Seconds;

/// The longest timeout: ten years. memcached's 32-bit times suffice for that.
pub const MAX_TIMEOUT: Seconds = Seconds::new(3650 * 24 * 60 * 60);
/// The longest data key that may hold the subject, in bytes.
pub const MAX_SUBJECT_KEY_BYTES: usize = 128;
/// The longest subject in bytes. It is stored twice and travels in a header, percent-encoded.
pub const MAX_SUBJECT_BYTES: usize = 512;
/// The longest realm in bytes.
pub const MAX_REALM_BYTES: usize = 64;
/// The longest id that upstreams may store in a session as their own, in bytes. Servers' ids have well under 200.
pub const MAX_UPSTREAM_COOKIE_BYTES: usize = 256;

/// How long the filter waits for an answer. All waiting in the gateway has to fit into it.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_millis(250);
/// Ends a session this long after its last use.
pub const DEFAULT_IDLE: Seconds = Seconds::new(30 * 60);
/// Ends a session this long after its creation, used or not.
pub const DEFAULT_ABSOLUTE: Seconds = Seconds::new(12 * 60 * 60);
/// How long older tokens stay valid after a rotation.
pub const DEFAULT_ROTATION_GRACE: Seconds = Seconds::new(10);
/// The data key that holds the subject.
pub const DEFAULT_SUBJECT_KEY: &str = "user";

/// Whether upstreams may keep their own state under this id: a cookie's value as RFC 6265 section 4.1.1 allows servers
/// to send it, neither empty nor longer than [`MAX_UPSTREAM_COOKIE_BYTES`].
#[must_use]
pub fn is_upstream_cookie(value: &[u8]) -> bool {
    let is_octet = |byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(byte);
    (1..=MAX_UPSTREAM_COOKIE_BYTES).contains(&value.len()) && value.iter().all(is_octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_upstream_cookie_is_cookie_octets(value in proptest::collection::vec(any::<u8>(), 0..4)) {
            // The grammar of RFC 6265 as it stands there.
            let octet = |byte: u8| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
            prop_assert_eq!(is_upstream_cookie(&value), !value.is_empty() && value.iter().copied().all(octet));
        }
    }

    #[test]
    fn an_upstream_cookie_has_an_end() {
        assert!(is_upstream_cookie(&[b'x'; MAX_UPSTREAM_COOKIE_BYTES]));
        assert!(!is_upstream_cookie(&[b'x'; MAX_UPSTREAM_COOKIE_BYTES + 1]));
    }
}
