//! Which node keeps which key: rendezvous hashing (Thaler and Ravishankar, 1998).
//!
//! Every node gets a score for a key, and the highest wins. Replicas are on the nodes with the next highest scores.
//! Adding or removing a node moves only its own keys, and the order of the list does not matter.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Ranks nodes for keys.
///
/// A node is identified by its configured text: a name that resolves to a different address tomorrow is still the same
/// node. XXH3 is specified and frozen, so every build on every machine computes the same ranking.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    seeds: Vec<u64>,
}

impl Rendezvous {
    /// A ranking of these nodes.
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { seeds: nodes.into_iter().map(|node| xxh3_64(node.as_bytes())).collect() }
    }

    /// The position of the node that `key` belongs to.
    #[must_use]
    pub fn first(&self, key: &str) -> usize {
        let mut best = (0, 0);
        for (node, seed) in self.seeds.iter().enumerate() {
            let score = score(*seed, key);
            if node == 0 || score > best.1 {
                best = (node, score);
            }
        }
        best.0
    }

    /// The positions of all nodes, the one that `key` belongs to first.
    #[must_use]
    pub fn ranked(&self, key: &str) -> Vec<usize> {
        let mut scored: Vec<_> = self.seeds.iter().map(|seed| score(*seed, key)).enumerate().collect();
        scored.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        scored.into_iter().map(|(node, _)| node).collect()
    }
}

fn score(seed: u64, key: &str) -> u64 {
    xxh3_64_with_seed(key.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODES: [&str; 3] = ["cache-0:11211", "cache-1:11211", "cache-2:11211"];

    /// If a value here changes, a rolling upgrade loses sessions.
    #[test]
    fn golden_values() {
        let rendezvous = Rendezvous::new(NODES);
        let ranks = ["sm:s:00", "sm:s:01", "sm:s:02", "sm:s:0123456789abcdef0123456789abcdef", ""]
            .map(|key| rendezvous.ranked(key));
        assert_eq!(ranks, GOLDEN.map(Vec::from));
        assert_eq!(score(xxh3_64(b"cache-0:11211"), "sm:s:00"), GOLDEN_SCORE);
    }

    /// Computed with the reference implementation, through Python's `xxhash`.
    const GOLDEN: [[usize; 3]; 5] = [[2, 1, 0], [1, 2, 0], [0, 1, 2], [1, 0, 2], [0, 1, 2]];
    const GOLDEN_SCORE: u64 = 0x33da_4af4_99e5_0f43;

    proptest! {
        #[test]
        fn every_node_is_ranked_once_and_the_first_is_the_first(key in "\\PC{0,40}", nodes in 1..9usize) {
            let names: Vec<_> = (0..nodes).map(|node| format!("n{node}:1")).collect();
            let rendezvous = Rendezvous::new(names.iter().map(String::as_str));
            let ranked = rendezvous.ranked(&key);
            let mut sorted = ranked.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..nodes).collect::<Vec<_>>());
            prop_assert_eq!(ranked[0], rendezvous.first(&key));
        }

        #[test]
        fn a_node_that_leaves_moves_only_its_own_keys(key in "\\PC{0,40}") {
            let all = Rendezvous::new(NODES).ranked(&key);
            let without_last = Rendezvous::new(NODES[..2].iter().copied());
            let expected: Vec<_> = all.into_iter().filter(|node| *node != 2).collect();
            prop_assert_eq!(without_last.ranked(&key), expected);
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let rendezvous = Rendezvous::new(NODES);
        let mut counts = [0; NODES.len()];
        for key in 0..30_000 {
            counts[rendezvous.first(&format!("sm:s:{key:032x}"))] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
