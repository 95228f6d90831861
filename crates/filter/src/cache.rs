//! Copies of sessions that the proxy keeps for a while.
//!
//! They are in a fixed number of slots, because keys in Envoy's shared data can never be deleted. A session's id
//! determines its slot, and replaces any other session there. So memory is bounded by slots × (`max_data_bytes` +
//! some), whatever clients send. The marks for replaced cookies have their own slots.
//!
//! Four rules keep a copy from being wrong for longer than its time to live. It is used only for tokens that have seen
//! no newer version and were issued before it was fetched (read-your-writes). A newer version is never replaced by an
//! older one of the same session. The end of a session, and a write whose answer was lost, leave a mark that no earlier
//! copy replaces. A copy that was fetched in the future, because the clock has been set back since, is not used.

use crate::config::Cache;
use crate::found::{FoundSession, VisibleData};
use session::id::SessionId;
use session::rotation::Grace;
use session::time::{Seconds, UnixSeconds};
use session::version::Version;

/// How long the mark of an ended session holds its slot against that session: longer than any lookup that was under way
/// when it ended.
const END_MARK: Seconds = Seconds::new(60);

/// The number of slots for the marks of [`is_replaced`], apart from those for sessions: copies must not push them out.
const MARKS: u32 = 4096;

const FORMAT: u8 = 4;

const FOUND: u8 = 0;
const ENDED: u8 = 1;
const REPLACED: u8 = 2;

/// The slots, wherever they are stored.
pub trait Slots {
    /// The content of a slot; `None` if it was never written.
    fn read(&self, slot: u32) -> Option<Vec<u8>>;
}

/// What to write into which slot, if [`replaces`] allows it given what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// The slot.
    pub slot: u32,
    /// Its new content.
    pub value: Vec<u8>,
}

/// One slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheEntry {
    pub(crate) id: SessionId,
    /// When the gateway was asked.
    pub(crate) fetched: UnixSeconds,
    /// What the slot says of the session.
    pub(crate) state: CopyState,
}

/// What is known about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// It was found in this state.
    Found(FoundSession),
    /// It has ended, or what was known about it may be out of date: it has to be looked up.
    Ended,
    /// A client's cookie for it was replaced by one for another session: see [`is_replaced`].
    Replaced,
}

/// The slot of a session.
#[must_use]
pub fn slot(id: SessionId, slots: u32) -> u32 {
    // Ids are random, or keyed hashes: any part of one is evenly spread.
    let [a, b, c, d, ..] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d]) % slots.max(1)
}

/// Whether `new` may take the place of `existing`.
#[must_use]
pub fn replaces(existing: &[u8], new: &[u8]) -> bool {
    let (Some(existing), Some(new)) = (Head::read(&mut CopyReader(existing)), Head::read(&mut CopyReader(new))) else {
        return true;
    };
    if existing.id != new.id {
        return true;
    }
    // No lookup takes that long: the clock was set back.
    if existing.fetched > new.fetched.plus(END_MARK) {
        return true;
    }
    match (existing.life, new.life) {
        (Life::Ended | Life::Replaced, Life::Found { .. }) => new.fetched > existing.fetched.plus(END_MARK),
        (_, Life::Ended | Life::Replaced) => true,
        // A derived id may be used again: the session that was created later counts, whatever its version.
        (Life::Found { created, version }, Life::Found { created: new_created, version: new_version }) => {
            (new_created, new_version, new.fetched) >= (created, version, existing.fetched)
        }
    }
}

/// Whether a client's cookie for this session was replaced recently, as far as this proxy knows. Later responses then
/// leave the client's cookie alone, because it may be a better one than theirs. `began` is when the request arrived.
pub(crate) fn is_replaced(
    slots: &impl Slots,
    id: SessionId,
    config: &Cache,
    began: UnixSeconds,
    now: UnixSeconds,
) -> bool {
    let entry = slots.read(mark(id, config)).and_then(|bytes| CacheEntry::decode(&bytes, config.layout));
    entry.is_some_and(|entry| {
        // A request that arrives after the mark may have been sent before it.
        let is_late = began <= entry.fetched || now.since(entry.fetched) < END_MARK;
        entry.id == id && entry.state == CopyState::Replaced && is_late && entry.fetched <= now
    })
}

/// What decides which of two entries stays.
struct Head {
    id: SessionId,
    fetched: UnixSeconds,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Found { created: UnixSeconds, version: Version },
    Ended,
    Replaced,
}

impl Head {
    fn read(reader: &mut CopyReader<'_>) -> Option<Self> {
        let [FORMAT] = reader.array()? else { return None };
        let id = SessionId::from_bytes(reader.array()?);
        let fetched = reader.moment()?;
        let life = match reader.array()? {
            [ENDED] => Life::Ended,
            [REPLACED] => Life::Replaced,
            [FOUND] => Life::Found { created: reader.moment()?, version: reader.version()? },
            _ => return None,
        };
        Some(Self { id, fetched, life })
    }
}

impl SlotWrite {
    /// Stores a session in its state when the gateway was asked; `None` marks that it has ended, or may have.
    pub(crate) fn new(id: SessionId, fetched: UnixSeconds, found: Option<&FoundSession>, config: &Cache) -> Self {
        let value = match found {
            Some(found) => encode_found(id, fetched, found, config.layout),
            None => head(id, fetched, ENDED),
        };
        Self { slot: slot(id, config.slots), value }
    }

    /// Remembers for a while that a client's cookie for this session was replaced: see [`is_replaced`].
    pub(crate) fn replaced(id: SessionId, now: UnixSeconds, config: &Cache) -> Self {
        Self { slot: mark(id, config), value: head(id, now, REPLACED) }
    }
}

/// The slot of a session's mark.
fn mark(id: SessionId, config: &Cache) -> u32 {
    config.slots.saturating_add(slot(id, MARKS))
}

fn head(id: SessionId, fetched: UnixSeconds, kind: u8) -> Vec<u8> {
    let mut writer = Vec::with_capacity(if kind == FOUND { 128 } else { 32 });
    writer.push(FORMAT);
    writer.extend(id.as_bytes());
    writer.extend(fetched.get().to_be_bytes());
    writer.push(kind);
    writer
}

fn encode_found(id: SessionId, fetched: UnixSeconds, found: &FoundSession, layout: u32) -> Vec<u8> {
    let mut writer = head(id, fetched, FOUND);
    writer.extend(found.created.get().to_be_bytes());
    writer.extend(found.version.get().to_be_bytes());
    writer.extend(layout.to_be_bytes());
    writer.extend(found.min_version.get().to_be_bytes());
    let (until, from) = found.grace.map_or((0, 0), |grace| (grace.until.get(), grace.from.get()));
    writer.extend(until.to_be_bytes());
    writer.extend(from.to_be_bytes());
    writer.extend(found.expires.get().to_be_bytes());
    writer.extend(found.auth_time.map_or(0, UnixSeconds::get).to_be_bytes());
    text(&mut writer, found.subject.as_deref());
    text(&mut writer, found.upstream_cookie.as_deref());
    writer.extend(length(found.exposed.len()));
    for value in &found.exposed {
        text(&mut writer, value.as_deref());
    }
    match &found.data {
        VisibleData::Whole(data) => {
            writer.push(1);
            writer.extend(data);
        }
        VisibleData::Omitted(bytes) => {
            writer.push(0);
            writer.extend(length(*bytes));
        }
    }
    writer
}

impl CacheEntry {
    /// `None` for anything that was not written as a [`SlotWrite`], or was written by another version or in another
    /// layout.
    pub(crate) fn decode(bytes: &[u8], layout: u32) -> Option<Self> {
        let mut reader = CopyReader(bytes);
        let Head { id, fetched, life } = Head::read(&mut reader)?;
        let (created, version) = match life {
            Life::Ended => return Some(Self { id, fetched, state: CopyState::Ended }),
            Life::Replaced => return Some(Self { id, fetched, state: CopyState::Replaced }),
            Life::Found { created, version } => (created, version),
        };
        if reader.array().map(u32::from_be_bytes)? != layout {
            return None;
        }
        let min_version = reader.version()?;
        let (until, from) = (reader.moment()?, reader.version()?);
        let expires = reader.moment()?;
        let auth_time = reader.moment()?;
        let subject = reader.text().ok()?;
        let upstream_cookie = reader.text().ok()?;
        let count = reader.length()?;
        // Not allocated by the count, which can't be trusted.
        let exposed = (0..count).map(|_| reader.text()).collect::<Result<Vec<_>, _>>().ok()?;
        let data = match reader.array()? {
            [1] => VisibleData::Whole(reader.0.to_vec()),
            _ => VisibleData::Omitted(reader.length()?),
        };
        let grace = (until > UnixSeconds::default()).then_some(Grace { from, until });
        let auth_time = (auth_time > UnixSeconds::default()).then_some(auth_time);
        let found = FoundSession {
            version,
            min_version,
            grace,
            created,
            expires,
            subject,
            auth_time,
            upstream_cookie,
            data,
            exposed,
        };
        Some(Self { id, fetched, state: CopyState::Found(found) })
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// A text with its length, `u32::MAX` for none.
fn text(writer: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            writer.extend(length(text.len()));
            writer.extend(text.as_bytes());
        }
        None => writer.extend(u32::MAX.to_be_bytes()),
    }
}

struct CopyReader<'a>(&'a [u8]);

/// The bytes are not what was written.
struct GarbledError;

impl CopyReader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn moment(&mut self) -> Option<UnixSeconds> {
        self.array().map(u64::from_be_bytes).map(UnixSeconds::new)
    }

    fn version(&mut self) -> Option<Version> {
        self.array().map(u32::from_be_bytes).map(Version::new)
    }

    fn length(&mut self) -> Option<usize> {
        self.array().map(u32::from_be_bytes).and_then(|length| usize::try_from(length).ok())
    }

    fn text(&mut self) -> Result<Option<String>, GarbledError> {
        let length = self.array().map(u32::from_be_bytes).ok_or(GarbledError)?;
        if length == u32::MAX {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| GarbledError)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(GarbledError)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map(Some).map_err(|_| GarbledError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAYOUT: u32 = 7;

    impl CacheEntry {
        fn encode(&self) -> Vec<u8> {
            match &self.state {
                CopyState::Found(found) => encode_found(self.id, self.fetched, found, LAYOUT),
                CopyState::Ended => head(self.id, self.fetched, ENDED),
                CopyState::Replaced => head(self.id, self.fetched, REPLACED),
            }
        }
    }

    prop_compose! {
        fn entry()(
            id in 0..3_u8,
            fetched in 0..200_u64,
            version in 1..5_u32,
            numbers: (u32, u64, u64),
            grace: Option<(u32, u32)>,
            auth_time: Option<u32>,
            texts: (Option<String>, Option<String>, Vec<Option<String>>),
            data in prop_oneof![any::<Vec<u8>>().prop_map(VisibleData::Whole), any::<u32>().prop_map(|n| VisibleData::Omitted(n as usize))],
            kind in 0..6_u8,
        ) -> CacheEntry {
            let found = FoundSession {
                version: Version::new(version),
                min_version: Version::new(numbers.0),
                grace: grace.map(|(until, from)| Grace {
                    until: UnixSeconds::new(u64::from(until) + 1), from: Version::new(from),
                }),
                created: UnixSeconds::new(numbers.1 % 3),
                expires: UnixSeconds::new(numbers.2),
                subject: texts.0,
                auth_time: auth_time.map(|time| UnixSeconds::new(u64::from(time) + 1)),
                upstream_cookie: texts.1,
                data,
                exposed: texts.2,
            };
            CacheEntry {
                id: SessionId::from_bytes([id; 16]),
                fetched: UnixSeconds::new(fetched),
                state: match kind { 0 => CopyState::Ended, 1 => CopyState::Replaced, _ => CopyState::Found(found) },
            }
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(entry in entry()) {
            let bytes = entry.encode();
            let in_another_layout = CacheEntry::decode(&bytes, LAYOUT + 1);
            prop_assert_eq!(in_another_layout.is_some(), !matches!(entry.state, CopyState::Found(_)));
            prop_assert_eq!(CacheEntry::decode(&bytes, LAYOUT), Some(entry));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, entry in entry(), end: proptest::sample::Index) {
            let _ = CacheEntry::decode(&bytes, LAYOUT);
            let whole = entry.encode();
            let _ = CacheEntry::decode(&whole[..end.index(whole.len())], LAYOUT);
            prop_assert!(replaces(&bytes, &whole));
        }

        /// Whatever is written to a slot, in any order: the newest version of the session created last stays.
        #[test]
        fn no_older_version_replaces_a_newer_one(entries in proptest::collection::vec(entry(), 1..20)) {
            let mut slot: Option<CacheEntry> = None;
            for new in entries {
                let is_replaced = slot.as_ref().is_none_or(|old| replaces(&old.encode(), &new.encode()));
                if let (Some(old), true) = (&slot, is_replaced) && old.id == new.id {
                    let is_set_back = old.fetched.since(new.fetched) > END_MARK;
                    let is_over = new.fetched.since(old.fetched) > END_MARK;
                    match (&old.state, &new.state) {
                        _ if is_set_back => {}
                        (CopyState::Found(old), CopyState::Found(new)) => {
                            prop_assert!((new.created, new.version) >= (old.created, old.version));
                        }
                        (CopyState::Ended | CopyState::Replaced, CopyState::Found(_)) => prop_assert!(is_over),
                        (_, CopyState::Ended | CopyState::Replaced) => {}
                    }
                }
                if is_replaced {
                    slot = Some(new);
                }
            }
        }

        #[test]
        fn slots_are_within_bounds(id: [u8; 16], slots in 1..100_000_u32) {
            prop_assert!(slot(SessionId::from_bytes(id), slots) < slots);
        }
    }

    #[test]
    fn another_session_is_simply_replaced() {
        let entry = |id| CacheEntry {
            id: SessionId::from_bytes([id; 16]),
            fetched: UnixSeconds::new(0),
            state: CopyState::Ended,
        };
        assert!(replaces(&entry(1).encode(), &entry(2).encode()));
        assert_eq!(slot(SessionId::from_bytes([9; 16]), 0), 0);
    }
}
