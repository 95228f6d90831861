//! What a token is bound to, besides its secret (`bind`).
//!
//! The values of some properties of the request are part of the token's MAC. A token that is presented with different
//! values (from another browser, with another client certificate) does not verify. It opens nothing, and nothing has to
//! be stored or looked up to find that out.

use sha2::{Digest as _, Sha256};

/// The values of the bound properties of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding(Option<[u8; 32]>);

impl Binding {
    /// Nothing is bound.
    pub const NONE: Self = Self(None);

    /// The binding of these values, in the order of the configuration. A missing property is `None`, which differs from
    /// an empty one.
    #[must_use]
    pub fn of(values: &[Option<Vec<u8>>]) -> Self {
        if values.is_empty() {
            return Self::NONE;
        }
        let mut digest = Sha256::new();
        for value in values {
            // With its length, so that different lists of values are never encoded alike.
            let length = value.as_ref().map_or(u64::MAX, |value| value.len() as u64);
            digest.update(length.to_be_bytes());
            digest.update(value.as_deref().unwrap_or_default());
        }
        Self(Some(digest.finalize().into()))
    }

    /// The bytes for the MAC.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |digest| digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_values_are_another_binding() {
        let of = |values: &[Option<&str>]| {
            Binding::of(&values.iter().map(|value| value.map(|text| text.as_bytes().to_vec())).collect::<Vec<_>>())
        };
        let all = [
            of(&[]),
            of(&[None]),
            of(&[Some("")]),
            of(&[Some("a"), Some("b")]),
            of(&[Some("ab"), Some("")]),
            of(&[Some("b"), Some("a")]),
            of(&[Some("a"), None]),
        ];
        for (index, binding) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != binding), "{index}");
        }
        assert_eq!(of(&[Some("a")]), of(&[Some("a")]));
        assert_eq!(Binding::NONE.as_bytes(), b"");
    }
}
