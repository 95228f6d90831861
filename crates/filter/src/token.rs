//! Tokens: the value of the session cookie, the only thing that opens a session from outside.
//!
//! ```text
//! format(1) | key id(1) | session id(16) | version(4) | issued at(5) | MAC(16)     base64url, 58 characters
//! ```
//!
//! Integers are big-endian. The MAC is HMAC-SHA-256, truncated to 128 bits (RFC 2104 section 5), over everything before
//! it and the values that the token is bound to. Base64url has no padding and only its canonical spelling is read, so a
//! token has exactly one form and no bit of it can be changed.

mod recent;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::cell::RefCell;
use core::fmt;

use crate::binding::Binding;
use crate::secret::{Keys, Secret};
use recent::Recent;
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;

const FORMAT: u8 = 1;
const FIELDS: usize = 1 + 1 + SessionId::BYTES + 4 + 5;
const MAC: usize = 16;
const BYTES: usize = FIELDS + MAC;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The session it opens.
    pub id: SessionId,
    /// The newest version of it that this client has seen.
    pub version: Version,
    /// When it was signed.
    pub issued_at: UnixSeconds,
}

/// A token whose MAC is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub token: Token,
    key_index: usize,
}

impl Verified {
    /// Whether the first secret signed it. If not, the client should get a new one before the operator removes the old
    /// secret.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.key_index == 0
    }
}

/// Why a cookie's value is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not the length, alphabet or format of a token: truncated, or something else of that name.
    Malformed,
    /// Signed with none of the configured secrets: forged, or older than a replacement of the secrets.
    UnknownKey,
    /// The MAC does not match: forged, damaged, made for another cookie, or bound to something else.
    BadMac,
}

/// The keys that sign and verify tokens of one cookie: the first signs, all verify.
#[derive(Clone, Debug)]
pub struct Keyring {
    signing: Keys,
    older: Vec<Keys>,
    recent: RefCell<Recent>,
}

impl Keyring {
    /// The keys of these secrets for the cookie of this name.
    #[must_use]
    pub fn new(signing: &Secret, older: &[Secret], cookie_name: &str) -> Self {
        Self {
            signing: Keys::derive(signing, cookie_name),
            older: older.iter().map(|secret| Keys::derive(secret, cookie_name)).collect(),
            recent: RefCell::default(),
        }
    }

    /// The cookie value that says `token`.
    #[must_use]
    pub fn sign(&self, token: &Token, binding: &Binding) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend([FORMAT, self.signing.id]);
        bytes.extend(token.id.as_bytes());
        bytes.extend(token.version.get().to_be_bytes());
        bytes.extend(token.issued_at.get().to_be_bytes().iter().skip(3));
        bytes.extend(self.signing.mac(&bytes, binding));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cookie value. This costs at most one MAC, unless two secrets share a key id, and none if this token was
    /// verified recently.
    pub fn verify(&self, value: &[u8], binding: &Binding) -> Result<Verified, TokenError> {
        let mut bytes = [0; BYTES];
        match URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) {
            Ok(BYTES) => {}
            _ => return Err(TokenError::Malformed),
        }
        let (fields, mac) = bytes.split_at(FIELDS);
        let mut reader = FieldReader(fields);
        let [format, key_id] = reader.take();
        if format != FORMAT {
            return Err(TokenError::Malformed);
        }
        let token = Token {
            id: SessionId::from_bytes(reader.take()),
            version: Version::new(u32::from_be_bytes(reader.take())),
            issued_at: UnixSeconds::new(
                reader.take::<5>().iter().fold(0, |seconds, byte| seconds << 8 | u64::from(*byte)),
            ),
        };
        // Each borrow ends with its line, so none ever fails.
        if let Some(key_index) = self.recent.try_borrow().ok().and_then(|recent| recent.key_index(&bytes, binding)) {
            return Ok(Verified { token, key_index });
        }
        let mut rejected = TokenError::UnknownKey;
        for (key_index, keys) in self.all().enumerate().filter(|(_, keys)| keys.id == key_id) {
            if keys.verify(fields, binding, mac) {
                if let Ok(mut recent) = self.recent.try_borrow_mut() {
                    recent.keep(bytes, *binding, key_index);
                }
                return Ok(Verified { token, key_index });
            }
            rejected = TokenError::BadMac;
        }
        Err(rejected)
    }

    /// The id under which the session of this token is stored when it is first written: a keyed
    /// hash, so a token planted before a login does not open the session that follows.
    #[must_use]
    pub fn promoted_id(&self, verified: &Verified) -> SessionId {
        let keys = self.all().nth(verified.key_index).unwrap_or(&self.signing);
        keys.promoted(verified.token.id)
    }

    fn all(&self) -> impl Iterator<Item = &Keys> {
        core::iter::once(&self.signing).chain(&self.older)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::BadMac => "bad_mac",
        })
    }
}

impl core::error::Error for TokenError {}

/// Takes fixed-size fields off the front; zeros once there is nothing left.
struct FieldReader<'a>(&'a [u8]);

impl FieldReader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(byte: u8) -> Secret {
        Secret::from_base64(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
    }

    fn keyring() -> Keyring {
        Keyring::new(&secret(1), &[], "session")
    }

    prop_compose! {
        fn token()(id: [u8; 16], version: u32, issued_at in 0..1_u64 << 40) -> Token {
            Token {
                id: SessionId::from_bytes(id),
                version: Version::new(version),
                issued_at: UnixSeconds::new(issued_at),
            }
        }
    }

    proptest! {
        #[test]
        fn says_what_was_signed(token in token()) {
            let value = keyring().sign(&token, &Binding::NONE);
            prop_assert_eq!(value.len(), 58);
            let verified = keyring().verify(value.as_bytes(), &Binding::NONE).unwrap();
            prop_assert_eq!(verified.token, token);
            prop_assert!(verified.is_current());
        }

        #[test]
        fn no_bit_can_be_changed(token in token()) {
            let value = keyring().sign(&token, &Binding::NONE).into_bytes();
            for index in 0..value.len() {
                for bit in 0..8 {
                    let mut tampered = value.clone();
                    tampered[index] ^= 1 << bit;
                    prop_assert!(keyring().verify(&tampered, &Binding::NONE).is_err(), "byte {index}, bit {bit}");
                }
            }
        }

        #[test]
        fn what_was_verified_is_verified_again_and_nothing_like_it(token in token(), bit in 0..40_usize * 8) {
            let rotated = Keyring::new(&secret(2), &[secret(1)], "session");
            let elsewhere = Binding::of(&[None]);
            for signer in [&keyring(), &rotated] {
                let value = signer.sign(&token, &Binding::NONE).into_bytes();
                let verified = rotated.verify(&value, &Binding::NONE);
                prop_assert!(verified.is_ok());
                prop_assert_eq!(rotated.verify(&value, &Binding::NONE), verified);
                prop_assert_eq!(rotated.verify(&value, &elsewhere), Err(TokenError::BadMac));
                let mut tampered = value.clone();
                tampered[value.len() - 1 - bit / 8] ^= 1 << (bit % 8);
                prop_assert!(rotated.verify(&tampered, &Binding::NONE).is_err());
                prop_assert_eq!(rotated.verify(&value, &Binding::NONE), verified);
            }
        }

        #[test]
        fn no_byte_can_be_cut_or_added(token in token(), extra: u8) {
            let value = keyring().sign(&token, &Binding::NONE).into_bytes();
            for length in 0..value.len() {
                prop_assert_eq!(keyring().verify(&value[..length], &Binding::NONE), Err(TokenError::Malformed));
            }
            let longer = [value.as_slice(), &[extra]].concat();
            prop_assert_eq!(keyring().verify(&longer, &Binding::NONE), Err(TokenError::Malformed));
        }

        #[test]
        fn arbitrary_bytes_are_no_token(value: Vec<u8>) {
            prop_assert!(keyring().verify(&value, &Binding::NONE).is_err());
        }

        #[test]
        fn a_token_of_another_cookie_or_secret_is_foreign(token in token()) {
            let value = keyring().sign(&token, &Binding::NONE);
            let other_cookie = Keyring::new(&secret(1), &[], "other");
            prop_assert!(other_cookie.verify(value.as_bytes(), &Binding::NONE).is_err());
            let other_secret = Keyring::new(&secret(2), &[], "session");
            prop_assert!(other_secret.verify(value.as_bytes(), &Binding::NONE).is_err());
        }

        #[test]
        fn secrets_rotate_without_ending_tokens(token in token()) {
            let old = keyring().sign(&token, &Binding::NONE);
            let rotated = Keyring::new(&secret(2), &[secret(1)], "session");
            let verified = rotated.verify(old.as_bytes(), &Binding::NONE).unwrap();
            prop_assert_eq!(verified.token, token);
            prop_assert!(!verified.is_current());
            prop_assert!(rotated.verify(rotated.sign(&token, &Binding::NONE).as_bytes(), &Binding::NONE).unwrap().is_current());

            let promoted = keyring().promoted_id(&keyring().verify(old.as_bytes(), &Binding::NONE).unwrap());
            prop_assert_eq!(rotated.promoted_id(&verified), promoted);
        }

        #[test]
        fn a_token_is_good_only_where_it_is_bound_to(token in token(), value: Vec<u8>, other: Vec<u8>) {
            let binding = Binding::of(&[Some(value.clone())]);
            let signed = keyring().sign(&token, &binding);
            prop_assert!(keyring().verify(signed.as_bytes(), &binding).is_ok());
            prop_assert_eq!(keyring().verify(signed.as_bytes(), &Binding::NONE), Err(TokenError::BadMac));
            let elsewhere = keyring().verify(signed.as_bytes(), &Binding::of(&[Some(other.clone())]));
            prop_assert_eq!(elsewhere.is_ok(), value == other);
        }

        #[test]
        fn a_promoted_id_needs_the_secret(token in token()) {
            let value = keyring().sign(&token, &Binding::NONE);
            let promoted = keyring().promoted_id(&keyring().verify(value.as_bytes(), &Binding::NONE).unwrap());
            prop_assert_ne!(promoted, token.id);

            let others = Keyring::new(&secret(2), &[], "session");
            let elsewhere = others.promoted_id(&others.verify(others.sign(&token, &Binding::NONE).as_bytes(), &Binding::NONE).unwrap());
            prop_assert_ne!(promoted, elsewhere);
        }
    }

    /// The format is public: another implementation, or this one in two years, has to read it.
    #[test]
    fn the_format_stays() {
        let token = Token {
            id: SessionId::from_bytes([0xab; 16]),
            version: Version::new(7),
            issued_at: UnixSeconds::new(1_700_000_000),
        };
        // Computed with another implementation of HKDF and HMAC (Python's hmac module).
        assert_eq!(
            keyring().sign(&token, &Binding::NONE),
            "Ad-rq6urq6urq6urq6urq6urAAAABwBlU_EAh4fiutD_q5fS_No9teaBaQ"
        );
    }
}
