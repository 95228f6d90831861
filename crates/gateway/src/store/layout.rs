//! Which nodes the sessions are on, in how many copies: the *layout*, and what gateways have recorded about it.
//!
//! ```text
//! L1 moving 1/1/cache-0:11211,cache-1:11211 2/2/cache-0:11211,cache-1:11211,cache-2:11211
//! ```
//!
//! Each node has the record of the latest change that could be written to it. A gateway that is started with another
//! layout than the recorded one, or out of turn, would look for sessions in the wrong places: it refuses to start.

use std::fmt;

/// Nodes and copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    number: u16,
    copies: usize,
    /// In alphabetical order: their order does not matter.
    nodes: Vec<String>,
}

/// What a gateway is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One layout.
    Only(Layout),
    /// The first step of a change: sessions are where they were, and those that have been moved are found.
    Before {
        /// Where sessions are.
        old: Layout,
        /// Where they will be.
        new: Layout,
    },
    /// The second step: sessions are moved.
    During {
        /// Where sessions were.
        old: Layout,
        /// Where they are moved to.
        new: Layout,
    },
}

/// What is recorded on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Sessions are in this layout.
    In(Layout),
    /// Gateways are being prepared to move them.
    Preparing(Layout, Layout),
    /// They are being moved.
    Moving(Layout, Layout),
}

/// Why a gateway can't use what it was started with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The nodes have another layout.
    #[error("--store is not what the nodes have: {0}. docs/deploy/upgrades.md says how to change it")]
    Different(Recorded),
    /// The sessions are still elsewhere.
    #[error("the sessions have not been moved yet: {0}. Start all gateways with --previous-store first")]
    NotMoved(Recorded),
    /// Other gateways may still look for sessions in the old places only.
    #[error("the other gateways have not been prepared: {0}. Start all of them with --next-store first")]
    NotPrepared(Recorded),
    /// The next step would not know of this one.
    #[error("no node could be told about the change of the layout")]
    Unrecorded,
    /// The old layout is no longer used.
    #[error("the sessions have been moved, or are being moved: {0}")]
    Moved(Recorded),
}

impl Layout {
    /// A layout of these nodes.
    #[must_use]
    pub fn new(number: u16, copies: usize, nodes: &[String]) -> Self {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        Self { number, copies, nodes }
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The number of copies of each session.
    #[must_use]
    pub const fn copies(&self) -> usize {
        self.copies
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (number, copies) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let nodes: Vec<_> = parts.next()?.split(',').map(str::to_owned).collect();
        Some(Self::new(number, copies, &nodes))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.number, self.copies, self.nodes.join(","))
    }
}

impl Recorded {
    const KIND: &'static str = "L1 ";

    /// `None` for what no gateway has written.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(bytes).ok()?.strip_prefix(Self::KIND)?.split(' ');
        let (word, first) = (words.next()?, Layout::read(words.next()?)?);
        let second = words.next().map(Layout::read);
        match (word, second, words.next()) {
            ("in", None, None) => Some(Self::In(first)),
            ("preparing", Some(second), None) => Some(Self::Preparing(first, second?)),
            ("moving", Some(second), None) => Some(Self::Moving(first, second?)),
            _ => None,
        }
    }

    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        format!("{}{self}", Self::KIND).into_bytes()
    }

    /// Of several nodes' records, the one that counts is the latest: a node may have been away for some time.
    #[must_use]
    pub fn latest(records: impl IntoIterator<Item = Self>) -> Option<Self> {
        records.into_iter().max_by_key(Self::rank)
    }

    /// Whether this is recorded after `other`.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    const fn rank(&self) -> (u16, u8) {
        match self {
            Self::Preparing(_, new) => (new.number, 0),
            Self::Moving(_, new) => (new.number, 1),
            Self::In(layout) => (layout.number, 2),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(layout) => write!(f, "in {layout}"),
            Self::Preparing(old, new) => write!(f, "preparing {old} {new}"),
            Self::Moving(old, new) => write!(f, "moving {old} {new}"),
        }
    }
}

impl Step {
    /// What is to be recorded, if the gateway may go on.
    pub fn admit(&self, recorded: Option<Recorded>) -> Result<Recorded, LayoutError> {
        let Some(recorded) = recorded else {
            return Ok(match self.clone() {
                Self::Only(layout) => Recorded::In(layout),
                Self::Before { old, new } => Recorded::Preparing(old, new),
                Self::During { old, new } => Recorded::Moving(old, new),
            });
        };
        match (self, &recorded) {
            (Self::Only(mine), Recorded::In(layout)) if mine == layout => Ok(recorded),
            // Not all gateways have been started with the first step yet, or the change is taken back.
            (Self::Only(mine), Recorded::Preparing(old, _)) if mine == old => Ok(recorded),
            (Self::Only(mine), Recorded::Preparing(_, new) | Recorded::Moving(_, new)) if mine == new => {
                Err(LayoutError::NotMoved(recorded))
            }
            (Self::Only(mine), Recorded::Moving(old, _)) if mine == old => Err(LayoutError::Moved(recorded)),
            (Self::Before { old, new }, Recorded::In(layout)) if old == layout => {
                Ok(Recorded::Preparing(old.clone(), new.clone()))
            }
            // Nothing has been moved yet: the next layout may still be another one.
            (Self::Before { old, new }, Recorded::Preparing(layout, _)) if old == layout => {
                Ok(Recorded::Preparing(old.clone(), new.clone()))
            }
            (Self::Before { old, new }, Recorded::Moving(from, to)) if (old, new) == (from, to) => Ok(recorded),
            (Self::Before { new, .. }, Recorded::In(layout)) if new == layout => Err(LayoutError::Moved(recorded)),
            (Self::During { old, new }, Recorded::Preparing(from, to) | Recorded::Moving(from, to))
                if (old, new) == (from, to) =>
            {
                Ok(Recorded::Moving(old.clone(), new.clone()))
            }
            (Self::During { new, .. }, Recorded::In(layout)) if new == layout => Ok(recorded),
            (Self::During { old, .. }, Recorded::In(layout) | Recorded::Preparing(layout, _)) if old == layout => {
                Err(LayoutError::NotPrepared(recorded))
            }
            _ => Err(LayoutError::Different(recorded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(number: u16) -> Layout {
        Layout::new(number, 1 + usize::from(number % 2), &[format!("b{number}:1"), "[::1]:2".to_owned()])
    }

    fn recorded() -> impl Strategy<Value = Recorded> {
        (1..4_u16, 0..3).prop_map(|(number, kind)| match kind {
            0 => Recorded::In(layout(number)),
            1 => Recorded::Preparing(layout(number), layout(number + 1)),
            _ => Recorded::Moving(layout(number), layout(number + 1)),
        })
    }

    fn change(number: u16) -> [Step; 4] {
        let (old, new) = (layout(number), layout(number + 1));
        [
            Step::Only(old.clone()),
            Step::Before { old: old.clone(), new: new.clone() },
            Step::During { old, new: new.clone() },
            Step::Only(new),
        ]
    }

    proptest! {
        #[test]
        fn written_and_read_back(record in recorded()) {
            prop_assert_eq!(Recorded::decode(&record.encode()), Some(record));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, text in "L1 (in|moving|preparing|x) [0-9/,a:. ]{0,30}") {
            let _ = Recorded::decode(&bytes);
            let _ = Recorded::decode(text.as_bytes());
        }

        /// Gateways are started in any order, each one step further than any other at most, and none is refused. Two
        /// that are further apart never run at the same time.
        #[test]
        fn gateways_go_through_a_change_one_after_the_other(order in proptest::collection::vec(0..3_usize, 0..40)) {
            let steps = change(1);
            let (mut at, mut record) = ([0_usize; 3], None);
            for gateway in order {
                let next = at[gateway] + 1;
                let is_next = at.iter().all(|other| next <= other + 1) && next < steps.len();
                // Before the last step, everything was moved.
                if is_next && next == 3 && at.iter().all(|other| *other >= 2) {
                    record = Some(Recorded::In(layout(2)));
                }
                let may = if is_next { next } else { at[gateway] };
                let is_moved = record == Some(Recorded::In(layout(2)));
                if is_moved && may < 2 {
                    continue;
                }
                let admitted = steps[may].admit(record.clone());
                prop_assert!(admitted.is_ok(), "{admitted:?}");
                record = admitted.ok();
                at[gateway] = may;
            }
        }
    }

    #[test]
    fn whoever_is_out_of_turn_is_refused() {
        let [only_old, before, during, only_new] = change(1);
        let (old, new) = (layout(1), layout(2));
        let other = Step::Only(Layout::new(1, 2, &["c:1".to_owned()]));
        let settled = Some(Recorded::In(old.clone()));
        assert!(matches!(during.admit(settled.clone()), Err(LayoutError::NotPrepared(_))));
        assert!(matches!(only_new.admit(settled.clone()), Err(LayoutError::Different(_))));
        assert!(matches!(other.admit(settled), Err(LayoutError::Different(_))));
        let preparing = Some(Recorded::Preparing(old.clone(), new.clone()));
        assert!(matches!(only_new.admit(preparing), Err(LayoutError::NotMoved(_))));
        let moving = Some(Recorded::Moving(old, new.clone()));
        assert!(matches!(only_old.admit(moving.clone()), Err(LayoutError::Moved(_))));
        assert!(matches!(only_new.admit(moving.clone()), Err(LayoutError::NotMoved(_))));
        assert!(matches!(change(2)[2].admit(moving), Err(LayoutError::Different(_))));
        let moved = Some(Recorded::In(new));
        assert!(matches!(before.admit(moved.clone()), Err(LayoutError::Moved(_))));
        assert!(matches!(only_old.admit(moved), Err(LayoutError::Different(_))));
    }

    #[test]
    fn a_node_that_was_away_does_not_count() {
        let (one, two) = (layout(1), layout(2));
        let stale = [Recorded::In(one.clone()), Recorded::Preparing(one.clone(), two.clone())];
        let latest = Recorded::Moving(one, two.clone());
        assert_eq!(Recorded::latest(stale.into_iter().chain([latest.clone()])), Some(latest.clone()));
        assert_eq!(Recorded::latest([latest, Recorded::In(two.clone())]), Some(Recorded::In(two)));
        assert_eq!(Recorded::latest([]), None);
    }
}
