//! Random session ids, drawn in bulk: one hostcall for many requests.

use session::id::SessionId;

const IDS: usize = 64;

/// A stock of random ids that have never been used.
#[derive(Default)]
pub(crate) struct Entropy {
    stock: Vec<SessionId>,
}

impl Entropy {
    /// A fresh id, or `None` if the host has no entropy.
    pub(crate) fn session_id(&mut self) -> Option<SessionId> {
        if self.stock.is_empty() {
            let mut bytes = [[0; SessionId::BYTES]; IDS];
            getrandom::fill(bytes.as_flattened_mut()).ok()?;
            self.stock.extend(bytes.map(SessionId::from_bytes));
        }
        self.stock.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_id_comes_twice() {
        let mut entropy = Entropy::default();
        let ids: HashSet<_> = (0..IDS * 3).map(|_| entropy.session_id()).collect();
        assert_eq!(ids.len(), IDS * 3);
        assert!(!ids.contains(&None));
    }
}
