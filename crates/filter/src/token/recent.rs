//! The most recently verified tokens. A browser sends the same token with every request of a page, and the MAC is the
//! most expensive computation for a request whose session is in the cache.
//!
//! Only tokens whose MAC was right are kept, so forged ones neither fill the slots nor push others out. Tokens are
//! compared in constant time, like MACs: the time says nothing about how much of a guess was right.

use core::fmt;

use ctutils::CtEq as _;

use super::BYTES;
use crate::binding::Binding;

/// Enough for the pages that thousands of clients load at the same moment. Together they take about 400 KiB.
const SLOTS: usize = 4096;

/// The tokens that were verified last, one in each slot.
#[derive(Clone, Default)]
pub(super) struct Recent {
    slots: Vec<Option<Verification>>,
}

/// A verified token, its binding, and the key that verified it.
#[derive(Clone)]
struct Verification {
    token: [u8; BYTES],
    binding: Binding,
    key_index: usize,
}

impl Recent {
    /// The key by which this very token, bound to this, was verified.
    pub(super) fn key_index(&self, token: &[u8; BYTES], binding: &Binding) -> Option<usize> {
        let known = self.slots.get(slot(token))?.as_ref()?;
        let is_same = known.token.ct_eq(token).to_bool() && known.binding == *binding;
        is_same.then_some(known.key_index)
    }

    /// Keeps a token whose MAC was right.
    pub(super) fn keep(&mut self, token: [u8; BYTES], binding: Binding, key_index: usize) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        if let Some(slot) = self.slots.get_mut(slot(&token)) {
            *slot = Some(Verification { token, binding, key_index });
        }
    }
}

/// By the session id behind the format and the key id: it is random.
fn slot([_, _, a, b, ..]: &[u8; BYTES]) -> usize {
    usize::from(u16::from_be_bytes([*a, *b])) % SLOTS
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was verified before: only the very same token with the very same binding is known.
        #[test]
        fn only_what_was_verified_is_known(
            kept in proptest::collection::vec((any::<[u8; 16]>(), any::<bool>(), 0..3_usize), 0..600),
            bit in 0..BYTES * 8,
        ) {
            let bindings = [Binding::NONE, Binding::of(&[Some(b"a".to_vec())])];
            let mut recent = Recent::default();
            for (id, is_bound, key_index) in kept {
                let mut token = [0; BYTES];
                token[2..18].copy_from_slice(&id);
                let (binding, other) = (bindings[usize::from(is_bound)], bindings[usize::from(!is_bound)]);
                recent.keep(token, binding, key_index);
                prop_assert_eq!(recent.key_index(&token, &binding), Some(key_index));
                prop_assert_eq!(recent.key_index(&token, &other), None);
                token[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(recent.slots.len() <= SLOTS);
                let is_kept = recent.slots.iter().flatten().any(|known| known.token == token);
                prop_assert!(is_kept || recent.key_index(&token, &binding).is_none());
            }
        }
    }
}
