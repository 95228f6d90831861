//! The bytes of a [`Stored`] value.
//!
//! Two bytes give the kind and the format. One line of JSON follows, and after it a session's data, unchanged:
//!
//! ```text
//! S1{"v":3,"m":1,"c":1700000000,"i":1800,"a":43200,"s":"alice","l":1700000000,"e":7,"w":9,"n":16}
//! {"user":"alice"}
//! ```
//!
//! Keys a format doesn't know are refused rather than dropped: in a rolling upgrade, an older gateway must not write
//! back a record that it understands only in part. A later format has a different number.

use core::fmt;
use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Data, Grace, Login, Session, Stored, Timeouts, Tombstone, WriteId};
use crate::epoch::Epoch;
use crate::principal::{Principal, RealmError};
use crate::time::{Seconds, UnixSeconds};
use crate::version::Version;

const SESSION: &[u8; 2] = b"S1";
const TOMBSTONE: &[u8; 2] = b"T1";

/// The bytes are not a stored value, at least not one of a format that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The kind or format is unknown: a newer gateway wrote it, or something else did.
    Format,
    /// The line after the format is damaged or contradicts itself.
    Head,
    /// The data is cut off or not a JSON object in ASCII.
    Data,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionHead<'a> {
    /// The version.
    v: u32,
    /// The oldest version whose tokens are good.
    m: u32,
    /// The grace of the last rotation: its oldest version and its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    g: Option<(u32, u64)>,
    /// When it was created.
    c: u64,
    /// The idle timeout.
    i: u64,
    /// The absolute timeout.
    a: u64,
    /// The subject.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    s: Option<Cow<'a, str>>,
    /// The subject's realm.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    r: Option<Cow<'a, str>>,
    /// When the subject last proved who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<u64>,
    /// The epoch in which the session was enlisted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<u64>,
    /// The upstream cookie.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    u: Option<Cow<'a, str>>,
    /// The id of the write.
    w: u64,
    /// How many bytes of data follow.
    n: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TombstoneHead {
    /// When the session was ended.
    e: u64,
}

impl Stored {
    /// The bytes to put in a store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Session(session) => session.encode(),
            Self::Tombstone(tombstone) => tombstone.encode(),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, rest) = bytes.split_first_chunk().ok_or(DecodeError::Format)?;
        match kind {
            SESSION => Session::decode(rest).map(Self::Session),
            TOMBSTONE => {
                let head: TombstoneHead = serde_json::from_slice(rest).map_err(|_| DecodeError::Head)?;
                Ok(Self::Tombstone(Tombstone { ended: UnixSeconds::new(head.e) }))
            }
            _ => Err(DecodeError::Format),
        }
    }
}

impl Tombstone {
    /// The bytes to put in a store.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        head(*TOMBSTONE, &TombstoneHead { e: self.ended.get() }, 0)
    }
}

impl Session {
    /// The bytes to put in a store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let data = self.data.as_str().as_bytes();
        let fields = SessionHead {
            v: self.version.get(),
            m: self.min_version.get(),
            g: self.grace.map(|grace| (grace.from.get(), grace.until.get())),
            c: self.created.get(),
            i: self.timeouts.idle.get(),
            a: self.timeouts.absolute.get(),
            s: self.subject().map(Cow::Borrowed),
            r: self.principal().and_then(|it| it.realm.as_ref()).map(|realm| Cow::Borrowed(realm.as_str())),
            l: self.auth_time().map(UnixSeconds::get),
            e: self.epoch().map(Epoch::get),
            u: self.upstream_cookie.as_deref().map(Cow::Borrowed),
            w: self.write.0,
            n: data.len(),
        };
        let mut bytes = head(*SESSION, &fields, data.len() + 1);
        bytes.push(b'\n');
        bytes.extend_from_slice(data);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        // JSON strings hold no raw newline, so the first one ends the head.
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let (Some(head), Some(data)) = (parts.next(), parts.next()) else {
            return Err(DecodeError::Head);
        };
        let head: SessionHead<'_> = serde_json::from_slice(head).map_err(|_| DecodeError::Head)?;
        if head.v == Version::UNSTORED.get() || head.m > head.v || head.g.is_some_and(|(min, _)| min > head.m) {
            return Err(DecodeError::Head);
        }
        let realm = head.r.map(|realm| realm.parse().map_err(|RealmError| DecodeError::Head)).transpose()?;
        let login = match (head.s, head.l, head.e) {
            (Some(subject), Some(auth_time), epoch) => Some(Login {
                principal: Principal { realm, subject: subject.into_owned() },
                auth_time: UnixSeconds::new(auth_time),
                epoch: epoch.map(Epoch::new),
            }),
            (None, None, None) if realm.is_none() => None,
            _ => return Err(DecodeError::Head),
        };
        if head.n != data.len() {
            return Err(DecodeError::Data);
        }
        Ok(Self {
            version: Version::new(head.v),
            min_version: Version::new(head.m),
            grace: head.g.map(|(from, until)| Grace { from: Version::new(from), until: UnixSeconds::new(until) }),
            created: UnixSeconds::new(head.c),
            timeouts: Timeouts { idle: Seconds::new(head.i), absolute: Seconds::new(head.a) },
            login,
            upstream_cookie: head.u.map(Cow::into_owned),
            write: WriteId(head.w),
            data: Data::from_stored(data)?,
        })
    }
}

fn head(kind: [u8; 2], fields: &impl Serialize, data_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192 + data_bytes);
    bytes.extend_from_slice(&kind);
    // Numbers and strings into a Vec: nothing in it can fail. Half a head would be refused on reading.
    let _ = serde_json::to_writer(&mut bytes, fields);
    bytes
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "the stored value has an unknown format",
            Self::Head => "the stored value's head is damaged",
            Self::Data => "the stored data is damaged",
        })
    }
}

impl core::error::Error for DecodeError {}
