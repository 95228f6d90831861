//! Who is logged in: a subject, in its realm.
//!
//! Two sites that share a gateway may both have an `alice`. A realm tells them apart: it is part of the principal
//! wherever all sessions of a subject are meant. Sites without a realm share their subjects.

use core::fmt;
use core::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::limits::MAX_REALM_BYTES;

/// The name of a realm: 1 to 64 letters, digits, `-`, `.` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Realm(String);

/// The text is not the name of a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealmError;

/// A subject in its realm.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `None` for subjects without a realm.
    pub realm: Option<Realm>,
    /// The subject, as an application knows it.
    pub subject: String,
}

impl Realm {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Realm {
    type Err = RealmError;

    fn from_str(text: &str) -> Result<Self, RealmError> {
        let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let is_good = is_name && (1..=MAX_REALM_BYTES).contains(&text.len());
        is_good.then(|| Self(text.to_owned())).ok_or(RealmError)
    }
}

impl fmt::Display for RealmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be 1 to {MAX_REALM_BYTES} letters, digits, -, . and _")
    }
}

impl core::error::Error for RealmError {}

impl Principal {
    /// A digest that differs from that of every other principal of the same kind, with a realm or without one. The two
    /// kinds are stored under different keys. The realm's length comes first, so that realm and subject can't be
    /// confused.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let Some(realm) = &self.realm else {
            return Sha256::digest(&self.subject).into();
        };
        let mut digest = Sha256::new();
        digest.update((realm.0.len() as u64).to_be_bytes());
        digest.update(&realm.0);
        digest.update(&self.subject);
        digest.finalize().into()
    }
}

/// Omits the subject, which does not belong in a log.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("realm", &self.realm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_realm_is_a_short_plain_name() {
        let longest = "r".repeat(64);
        for good in ["a", "shop.example", "A-b_c.9", "-", &longest] {
            assert_eq!(good.parse::<Realm>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a/b", "a:b", "é", "a\0", "a\n", &"r".repeat(65)] {
            assert_eq!(bad.parse::<Realm>(), Err(RealmError), "{bad:?}");
        }
    }

    fn principal() -> impl Strategy<Value = Principal> {
        // Few characters, so that one may run on into the other.
        let realm = proptest::option::of("[a8.]{1,3}".prop_map(|name| name.parse().unwrap()));
        (realm, "[\0\u{8}a8.]{1,12}").prop_map(|(realm, subject)| Principal { realm, subject })
    }

    proptest! {
        #[test]
        fn no_two_principals_share_a_digest(one in principal(), other in principal()) {
            let key = |it: &Principal| (it.realm.is_some(), it.digest());
            prop_assert_eq!(key(&one) == key(&other), one == other);
            // What one hashes is never what a subject without a realm is called, either.
            let realm = one.realm.as_ref().map_or("", Realm::as_str);
            let joined = Principal { realm: None, subject: format!("{realm}{}", one.subject) };
            prop_assert!(one.realm.is_none() || one.digest() != joined.digest());
        }
    }

    #[test]
    fn no_log_line_names_a_subject() {
        let alice = Principal { realm: Some("shop".parse().unwrap()), subject: "alice".to_owned() };
        let line = format!("{alice:?}");
        assert!(line.contains("shop") && !line.contains("alice"), "{line}");
    }
}
