//! The bytes of a [`Subject`].
//!
//! The kind and the format, one line of JSON, and a line for each session: its id, the version at which it was
//! enlisted, the time of that, and the latest time at which it ends.
//!
//! ```text
//! U1{"e":1122334455667788,"u":1700043260}
//! 0123456789abcdef0123456789abcdef 2 1700000000 1700043200
//! ```

use serde::{Deserialize, Serialize};

use super::{Epoch, Member, Subject};
use crate::id::SessionId;
use crate::record::DecodeError;
use crate::time::UnixSeconds;
use crate::version::Version;

const KIND: &[u8] = b"U1";
/// An id, three numbers, and the separators.
const TYPICAL_LINE_BYTES: usize = 60;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// The epoch.
    e: u64,
    /// The spared session and its epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<(String, u64)>,
    /// When the last session ends.
    u: u64,
}

impl Subject {
    /// The bytes to put in a store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            e: self.epoch.get(),
            k: self.spared.map(|(id, epoch)| (id.to_string(), epoch.get())),
            u: self.until.get(),
        };
        let mut bytes = Vec::with_capacity(96 + self.members.len() * TYPICAL_LINE_BYTES);
        bytes.extend_from_slice(KIND);
        // Numbers and strings into a Vec: nothing in it can fail. Half a head would be refused on reading.
        let _ = serde_json::to_writer(&mut bytes, &head);
        bytes.push(b'\n');
        for Member { id, version, since, until } in &self.members {
            bytes.extend_from_slice(format!("{id} {version} {since} {until}\n").as_bytes());
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut subject, lines) = Self::decode_head(bytes)?;
        let lines = core::str::from_utf8(lines).map_err(|_| DecodeError::Data)?;
        subject.members = lines.lines().map(|line| member(line).ok_or(DecodeError::Data)).collect::<Result<_, _>>()?;
        Ok(subject)
    }

    /// Like [`admits`](Self::admits), but on stored bytes, for the hot path: the list is searched only if it matters,
    /// and never parsed.
    pub fn stored_admits(bytes: &[u8], id: SessionId, epoch: Epoch, limited: bool) -> Result<bool, DecodeError> {
        let (subject, lines) = Self::decode_head(bytes)?;
        let hex = id.to_hex();
        let listed = || lines.split(|byte| *byte == b'\n').any(|line| line.starts_with(hex.as_str().as_bytes()));
        Ok(subject.admits(id, epoch, false) && (!limited || listed()))
    }

    /// The record without its list, and the list's lines.
    fn decode_head(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let bytes = bytes.strip_prefix(KIND).ok_or(DecodeError::Format)?;
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let (Some(head), Some(lines)) = (parts.next(), parts.next()) else {
            return Err(DecodeError::Head);
        };
        let head: Head = serde_json::from_slice(head).map_err(|_| DecodeError::Head)?;
        let spared = match head.k {
            Some((id, epoch)) => Some((id.parse().map_err(|_| DecodeError::Head)?, Epoch::new(epoch))),
            None => None,
        };
        if !lines.is_empty() && !lines.ends_with(b"\n") {
            return Err(DecodeError::Data);
        }
        let until = UnixSeconds::new(head.u);
        Ok((Self { epoch: Epoch::new(head.e), spared, until, members: Vec::new() }, lines))
    }
}

fn member(line: &str) -> Option<Member> {
    let mut words = line.split(' ');
    let member = Member {
        id: words.next()?.parse().ok()?,
        version: Version::new(words.next()?.parse().ok()?),
        since: UnixSeconds::new(words.next()?.parse().ok()?),
        until: UnixSeconds::new(words.next()?.parse().ok()?),
    };
    words.next().is_none().then_some(member)
}
