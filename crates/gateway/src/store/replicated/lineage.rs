//! The position of one copy in the history of a value, and how it is stored.
//!
//! ```text
//! R1 112589990684262403 9f3b0c11,04d2a7e0,77777777
//! S1{"v":3, …
//! ```
//!
//! A line precedes the unchanged value. A value without such a line was written when there was only one copy of
//! everything, and is older than any that has one.

use std::time::{Duration, SystemTime};

const KIND: &str = "R1 ";

/// The number of recent writes that a copy names.
const REMEMBERED: usize = 4;

/// The most recent writes of a copy.
///
/// It serves to compare copies of one value: one may be made from the other, or both from a third one, which a mere
/// number could not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Incremented with each write. The first write of a key starts with the time, so that it is above anything that an
    /// earlier value of the key left on a node that was down.
    number: u64,
    /// A random number for each of the last writes, the latest first.
    writes: Vec<u32>,
}

impl Lineage {
    /// Of the first write of a key.
    pub(super) fn first() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { number: millis.saturating_mul(1 << 16), writes: vec![random()] }
    }

    /// Of a write that replaces this.
    pub(super) fn next(&self) -> Self {
        if self.writes.is_empty() {
            return Self::first();
        }
        let earlier = self.writes.iter().take(REMEMBERED - 1).copied();
        Self { number: self.number.saturating_add(1), writes: [random()].into_iter().chain(earlier).collect() }
    }

    /// Whether this was made from `other` by any number of writes, including none. If the named writes do not reach
    /// back far enough, it is assumed.
    pub(super) fn descends_from(&self, other: &Self) -> bool {
        let Some(writes_since) = self.number.checked_sub(other.number) else { return false };
        let then = usize::try_from(writes_since).ok().and_then(|since| self.writes.get(since));
        then.is_none_or(|then| other.writes.first() == Some(then))
    }

    /// Identifies this state among all that the value has had.
    pub(super) fn name(&self) -> u64 {
        // The number alone is not unique, and its upper half is the time of the first write.
        let write = self.writes.first().copied().unwrap_or_default();
        (self.number << 32) | u64::from(write)
    }

    /// The bytes of a replica.
    pub(super) fn encode(&self, value: &[u8]) -> Vec<u8> {
        let writes: Vec<_> = self.writes.iter().map(|write| format!("{write:08x}")).collect();
        let line = format!("{KIND}{} {}\n", self.number, writes.join(","));
        [line.as_bytes(), value].concat()
    }

    /// A copy's lineage and value. The value is not copied, because with one copy of everything each read passes
    /// through here.
    pub(super) fn split(mut bytes: Vec<u8>) -> (Self, Vec<u8>) {
        let (lineage, value) = Self::decode(&bytes);
        let line = bytes.len() - value.len();
        bytes.drain(..line);
        (lineage, bytes)
    }

    fn decode(bytes: &[u8]) -> (Self, &[u8]) {
        Self::read(bytes).unwrap_or((Self::default(), bytes))
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let rest = bytes.strip_prefix(KIND.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, value) = rest.split_at_checked(end)?;
        let (number, writes) = str::from_utf8(line).ok()?.split_once(' ')?;
        let writes = writes.split(',').map(|write| u32::from_str_radix(write, 16));
        let writes = writes.collect::<Result<Vec<_>, _>>().ok().filter(|writes| writes.len() <= REMEMBERED)?;
        Some((Self { number: number.parse().ok()?, writes }, value.get(1..)?))
    }
}

fn random() -> u32 {
    // Without random bytes, two concurrent writes may look like one. The copies are then repaired later.
    getrandom::u32().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(start: &Lineage, writes: usize) -> Lineage {
        (0..writes).fold(start.clone(), |lineage, _| lineage.next())
    }

    proptest! {
        #[test]
        fn written_and_read_back(writes in 0..10_usize, value: Vec<u8>) {
            let lineage = after(&Lineage::first(), writes);
            let bytes = lineage.encode(&value);
            prop_assert_eq!(Lineage::decode(&bytes), (lineage.clone(), value.as_slice()));
            prop_assert_eq!(Lineage::split(bytes), (lineage, value));
        }

        #[test]
        fn anything_else_is_an_old_value(bytes: Vec<u8>) {
            prop_assume!(!bytes.starts_with(KIND.as_bytes()));
            prop_assert_eq!(Lineage::decode(&bytes), (Lineage::default(), bytes.as_slice()));
            prop_assert_eq!(Lineage::split(bytes.clone()), (Lineage::default(), bytes));
        }

        #[test]
        fn arbitrary_lines_never_panic(line in "R1 [0-9a-f, ]{0,40}\n?.{0,9}") {
            let (lineage, value) = Lineage::decode(line.as_bytes());
            let _ = lineage.next();
            prop_assert!(line.as_bytes().ends_with(value));
        }

        #[test]
        fn what_was_made_from_a_state_descends_from_it(before in 0..9_usize, since in 0..9_usize) {
            let old = after(&Lineage::first(), before);
            let new = after(&old, since);
            prop_assert!(new.descends_from(&old));
            prop_assert_eq!(old.descends_from(&new), since == 0);
            prop_assert_eq!(old.name() == new.name(), since == 0);
        }

        #[test]
        fn what_was_made_beside_it_does_not(common in 0..5_usize, one in 1..4_usize, other in 1..4_usize) {
            let common = after(&Lineage::first(), common);
            let (one, other) = (after(&common, one), after(&common, other));
            prop_assert!(!one.descends_from(&other) && !other.descends_from(&one));
        }
    }

    #[test]
    fn a_value_from_before_there_were_copies_is_the_oldest() {
        let old = Lineage::default();
        assert!(old.next().descends_from(&old) && !old.descends_from(&old.next()));
        assert!(Lineage::first().descends_from(&old));
    }

    #[test]
    fn damaged_lines_are_part_of_the_value() {
        for bytes in ["R1 ", "R1 x 0\n", "R1 1 0", "R1 -1 0\n", "R1 1\n", "R1 1 \n", "R1 1 0,0,0,0,0\n", "R1 1 x\n"] {
            assert_eq!(Lineage::decode(bytes.as_bytes()), (Lineage::default(), bytes.as_bytes()), "{bytes:?}");
        }
    }
}
