//! Maps whose keys are Envoy's ids of contexts and callouts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by id.
pub(crate) type ById<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

/// Spreads ids. Envoy assigns them by counting, so clients can't choose them, and no keyed hash is needed.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: the odd number nearest to 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_row_do_not_collide() {
        let hashes: std::collections::HashSet<_> = (0..10_000_u32)
            .map(|id| {
                let mut hasher = IdHasher::default();
                hasher.write_u32(id);
                // The bits that a table of 65536 buckets uses.
                hasher.finish() & 0xffff
            })
            .collect();
        assert!(hashes.len() > 9_000, "{}", hashes.len());
    }
}
