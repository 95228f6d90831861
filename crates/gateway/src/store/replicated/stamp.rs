//! The header of one copy: which write made it, and in which view it was put on its node.
//!
//! ```text
//! R2 1764201600123 112589990684262403 9f3b0c1104d2a7e0
//! S1{"v":3, …
//! ```
//!
//! A line precedes the unchanged value. Earlier versions wrote a line that starts with `R1`, and no line at all when
//! there was only one copy of everything; both are still read.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_64;

use super::view::ViewNumber;
use crate::store::Cas;

/// What is under a key instead of a copy whose time was over.
pub(super) const EXPIRED: &[u8] = b"R2 expired\n";

const KIND: &str = "R2 ";
const KIND_BEFORE: &str = "R1 ";

/// What a copy says about itself.
///
/// Two copies are of the same write if they have the same version and write, in whatever view each was put on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The view of the gateway that put the copy on this node.
    pub(super) view: ViewNumber,
    /// Incremented with each write of the key.
    pub(super) version: u64,
    /// A random number that the write drew.
    pub(super) write: u64,
}

impl Stamp {
    /// Of a write that replaces a copy with the stamp `base`, or nothing.
    ///
    /// The first version is the time in milliseconds, so that it is above anything that an earlier value of the key may
    /// have left somewhere.
    pub(super) fn next(base: Option<Self>, view: ViewNumber, now_millis: u64, write: u64) -> Self {
        let version = base.map_or(now_millis.saturating_mul(1 << 16), |base| base.version.saturating_add(1));
        Self { view, version, write }
    }

    /// Whether both are of the same write.
    pub(super) const fn is_same_write(self, other: Self) -> bool {
        self.version == other.version && self.write == other.write
    }

    /// Of two copies that both count, the greater is kept. With the same version in two views, the write of the earlier
    /// view was never acknowledged: it was not yet everywhere when the view ended.
    pub(super) fn precedence(self, other: Self) -> Ordering {
        (self.version, self.view).cmp(&(other.version, other.view))
    }

    /// Names the value to callers of the store.
    pub(super) const fn name(self) -> Cas {
        Cas::from_number(self.write)
    }

    /// The bytes of a copy.
    pub(super) fn encode(self, value: &[u8]) -> Vec<u8> {
        let Self { view, version, write } = self;
        let line = format!("{KIND}{} {version} {write:016x}\n", view.0);
        [line.as_bytes(), value].concat()
    }

    /// A copy's stamp and value. The value is not copied, because every read passes through here.
    pub(super) fn split(mut bytes: Vec<u8>) -> (Self, Vec<u8>) {
        let (stamp, value) = Self::read(&bytes).or_else(|| Self::read_before(&bytes)).unwrap_or_else(|| {
            // Two such values must not have one name.
            let bare = Self { view: ViewNumber::NONE, version: 0, write: xxh3_64(&bytes) };
            (bare, bytes.len())
        });
        bytes.drain(..bytes.len() - value);
        (stamp, bytes)
    }

    /// The stamp, and the length of the value after it.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (line, value) = line(bytes, KIND)?;
        let mut words = line.split(' ');
        let stamp = Self {
            view: ViewNumber(words.next()?.parse().ok()?),
            version: words.next()?.parse().ok()?,
            write: u64::from_str_radix(words.next().filter(|write| write.len() == 16)?, 16).ok()?,
        };
        words.next().is_none().then_some((stamp, value))
    }

    /// `R1 NUMBER WRITE,WRITE…`, the latest write first.
    fn read_before(bytes: &[u8]) -> Option<(Self, usize)> {
        let (line, value) = line(bytes, KIND_BEFORE)?;
        let (number, writes) = line.split_once(' ')?;
        let version: u64 = number.parse().ok()?;
        let latest = u32::from_str_radix(writes.split(',').next()?, 16).ok()?;
        // The number alone is not unique, and its upper half is the time of the first write.
        let write = (version << 32) | u64::from(latest);
        Some((Self { view: ViewNumber::NONE, version, write }, value))
    }
}

/// The rest of the first line, if it starts with `kind`, and the length of what follows.
fn line<'a>(bytes: &'a [u8], kind: &str) -> Option<(&'a str, usize)> {
    let rest = bytes.strip_prefix(kind.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, value) = rest.split_at_checked(end)?;
    Some((str::from_utf8(line).ok()?, value.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn written_and_read_back(view: u64, version: u64, write: u64, value: Vec<u8>) {
            let stamp = Stamp { view: ViewNumber(view), version, write };
            prop_assert_eq!(Stamp::split(stamp.encode(&value)), (stamp, value));
        }

        #[test]
        fn anything_else_is_a_value_of_one_copy(bytes: Vec<u8>, other: Vec<u8>) {
            prop_assume!(!bytes.starts_with(b"R") && !other.starts_with(b"R"));
            let (stamp, value) = Stamp::split(bytes.clone());
            prop_assert_eq!((stamp.view, stamp.version, &value), (ViewNumber::NONE, 0, &bytes));
            prop_assert_eq!(Stamp::split(other.clone()).0.name() == stamp.name(), bytes == other);
        }

        #[test]
        fn arbitrary_lines_never_panic(line in "R[12] [0-9a-f, ]{0,60}\n?.{0,9}") {
            let (_, value) = Stamp::split(line.clone().into_bytes());
            prop_assert!(line.as_bytes().ends_with(&value));
        }

        #[test]
        fn what_replaces_a_copy_precedes_it(view: u64, version in 0..u64::MAX, write: u64, next: u64, now in 0..1_u64 << 42) {
            let base = Stamp { view: ViewNumber(view), version, write };
            let next = Stamp::next(Some(base), ViewNumber::NONE, now, next);
            prop_assert_eq!(next.precedence(base), Ordering::Greater);
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let (stamp, value) = Stamp::split(Vec::from("R1 112589990684262403 9f3b0c11,04d2a7e0\nS1{}"));
        assert_eq!(
            (stamp.view, stamp.version, value.as_slice()),
            (ViewNumber::NONE, 112_589_990_684_262_403, &b"S1{}"[..])
        );
        assert_eq!(stamp.write & 0xffff_ffff, 0x9f3b_0c11);
    }

    #[test]
    fn damaged_lines_are_part_of_the_value() {
        for bytes in ["R2 ", "R2 1 2 3\n", "R2 1 2 000000000000000x\n", "R2 1 2\n", "R2 1 2 0000000000000000", "R1 1\n"]
        {
            assert_eq!(Stamp::split(Vec::from(bytes)).1, bytes.as_bytes(), "{bytes:?}");
        }
    }
}
