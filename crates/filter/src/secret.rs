//! Secrets and the keys derived from them.
//!
//! Operators configure secrets, but nothing is ever signed with a secret itself. Each use has its own key, which HKDF
//! (RFC 5869) derives from the secret and the cookie's name, so a token for one cookie is worthless in another.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use core::fmt;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::binding::Binding;
use session::id::SessionId;

/// The least number of bytes in a secret: the output length of SHA-256 (RFC 2104 section 3).
pub const MIN_SECRET_BYTES: usize = 32;

/// Standard and URL-safe base64 are both in use for secrets, with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Key material from the operator, at least [`MIN_SECRET_BYTES`] long.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a text is not a secret. Never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// Neither standard nor URL-safe base64.
    NotBase64,
    /// Fewer than [`MIN_SECRET_BYTES`] bytes.
    TooShort,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase64 => f.write_str("is not base64"),
            Self::TooShort => write!(f, "has fewer than {MIN_SECRET_BYTES} bytes"),
        }
    }
}

impl core::error::Error for SecretError {}

impl Secret {
    /// Reads a secret from standard or URL-safe base64.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| SecretError::NotBase64)?;
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretError::TooShort);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The keys derived from one secret for one cookie.
///
/// Each stores its HMAC with the key already absorbed, which saves two SHA-256 blocks per token.
#[derive(Clone)]
pub(crate) struct Keys {
    /// Which secret it is: a byte derived from the secret, so it does not depend on the position in the list.
    pub(crate) id: u8,
    mac: Hmac<Sha256>,
    promotion: Hmac<Sha256>,
}

impl Keys {
    pub(crate) fn derive(secret: &Secret, cookie_name: &str) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"session-mesh v1"), &secret.0);
        Self {
            id: derive::<1>(&hkdf, "key id", cookie_name)[0],
            mac: keyed(derive(&hkdf, "token", cookie_name)),
            promotion: keyed(derive(&hkdf, "promotion", cookie_name)),
        }
    }

    /// The truncated MAC of a token's fields, which have a fixed length, and its binding.
    pub(crate) fn mac(&self, fields: &[u8], binding: &Binding) -> [u8; 16] {
        first_half(self.mac.clone().chain_update(fields).chain_update(binding.as_bytes()))
    }

    /// Whether `mac` is the MAC of these fields and this binding, in constant time.
    pub(crate) fn verify(&self, fields: &[u8], binding: &Binding, mac: &[u8]) -> bool {
        let computed = self.mac.clone().chain_update(fields).chain_update(binding.as_bytes());
        mac.len() == 16 && computed.verify_truncated_left(mac).is_ok()
    }

    /// The id under which an anonymous session is stored when it is first written.
    pub(crate) fn promoted(&self, anonymous: SessionId) -> SessionId {
        SessionId::from_bytes(first_half(self.promotion.clone().chain_update(anonymous.as_bytes())))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(id {})", self.id)
    }
}

#[expect(clippy::expect_used, reason = "HKDF-SHA-256 refuses only more than 8160 bytes, and the lengths are constants")]
fn derive<const N: usize>(hkdf: &Hkdf<Sha256>, purpose: &str, cookie_name: &str) -> [u8; N] {
    let mut key = [0; N];
    hkdf.expand_multi_info(&[purpose.as_bytes(), b"\0", cookie_name.as_bytes()], &mut key).expect("at most 64 bytes");
    key
}

/// A key of a whole SHA-256 block, which HMAC takes as it is.
fn keyed(key: [u8; 64]) -> Hmac<Sha256> {
    Hmac::new(&key.into())
}

fn first_half(mac: Hmac<Sha256>) -> [u8; 16] {
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(digest) {
        *to = from;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        let bytes = [0xfb; 32];
        for text in [
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s=",
            " -_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s\n",
        ] {
            assert_eq!(Secret::from_base64(text), Ok(Secret(bytes.to_vec())), "{text}");
        }
    }

    #[test]
    fn short_or_garbled_secrets_are_refused() {
        assert_eq!(Secret::from_base64("c2hvcnQ="), Err(SecretError::TooShort));
        assert_eq!(Secret::from_base64(""), Err(SecretError::TooShort));
        assert_eq!(Secret::from_base64("not base64!"), Err(SecretError::NotBase64));
    }

    #[test]
    fn debug_output_shows_no_key() {
        let secret = Secret(vec![7; 32]);
        let keys = Keys::derive(&secret, "session");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{keys:?}"), format!("Keys(id {})", keys.id));
    }
}
