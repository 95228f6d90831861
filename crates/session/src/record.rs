//! The session record: what a stored session is, and how a write changes it.
//!
//! The gateway reads a [`Stored`] value, lets this module compute the next one, and writes that with compare-and-swap.
//! Nothing here depends on a store or a clock.
//!
//! A session starts with [`Session::create`] and goes through any number of [`Session::change`]s, each of which
//! increments its version. It ends when a [`Tombstone`] replaces it, or when [`Session::lifetime_left`] returns `None`.

mod codec;
mod data;

use core::fmt;

use serde_json::Value;

use crate::epoch::Epoch;
use crate::limits::MAX_SUBJECT_BYTES;
use crate::merge_patch::{self, Object};
use crate::principal::{Principal, Realm};
use crate::rotation::Standing;
pub use crate::rotation::{Grace, Rotation};
use crate::time::{CLOCK_TOLERANCE, Seconds, UnixSeconds};
use crate::version::Version;

pub use codec::DecodeError;
pub use data::Data;

/// What a store holds under a session's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A session, which is alive unless its time is over.
    Session(Session),
    /// A session with this id was ended recently.
    Tombstone(Tombstone),
}

/// Keeps an id from being used again right after its session was ended: a write that was under way
/// must not bring the session back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// When the session was ended.
    pub ended: UnixSeconds,
}

/// A random number for one write, stored with the value. A writer whose answer was lost uses it to tell whether the
/// value that it finds later is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteId(u64);

impl WriteId {
    /// Makes an id of these random bytes.
    #[must_use]
    pub const fn from_random(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

/// One session.
///
/// `Debug` omits the data and who is logged in: neither belongs in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    version: Version,
    min_version: Version,
    grace: Option<Grace>,
    created: UnixSeconds,
    timeouts: Timeouts,
    login: Option<Login>,
    upstream_cookie: Option<String>,
    write: WriteId,
    data: Data,
}

/// Who is logged in.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    principal: Principal,
    auth_time: UnixSeconds,
    /// `None` until the session is enlisted in its subject's record.
    epoch: Option<Epoch>,
}

/// A session's timeouts, both at least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Ends the session this long after its last use.
    pub idle: Seconds,
    /// Ends the session this long after its creation, used or not.
    pub absolute: Seconds,
}

/// What a new session starts with.
#[derive(Clone)]
pub struct NewSession {
    /// The data.
    pub data: Object,
    /// The timeouts, fixed for the session's life.
    pub timeouts: Timeouts,
    /// The data key that holds the subject.
    pub subject_key: String,
    /// The realm of the subject.
    pub realm: Option<Realm>,
    /// See [`Session::upstream_cookie`].
    pub upstream_cookie: Option<String>,
    /// Whether it begins with a rotation. Then no other token's write joins it ([`Session::may_merge`]).
    pub rotation: Rotation,
}

/// One change of a session. Either all of it takes effect or none of it.
#[derive(Clone, Default)]
pub struct Change {
    /// Merge patches on the data, in order.
    pub patches: Vec<Object>,
    /// Whether older tokens end, the most recent of them only after the grace. [`Rotation::Authenticated`] also sets
    /// [`Session::auth_time`].
    pub rotation: Rotation,
    /// How long the grace of a rotation is.
    pub grace: Seconds,
    /// The version of the token that the change is made with, if it is made with one.
    pub seen: Option<Version>,
    /// Whether it is a creation that joins the session of another request, which may be another client's. If it then
    /// rotates, the grace covers no token.
    pub joins: bool,
    /// The data key that holds the subject.
    pub subject_key: String,
    /// The realm of the subject, if this change sets the subject.
    pub realm: Option<Realm>,
    /// Replaces [`Session::upstream_cookie`] if given.
    pub upstream_cookie: Option<String>,
}

/// The circumstances of a write.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The time of the write.
    pub now: UnixSeconds,
    /// Identifies the write.
    pub id: WriteId,
    /// The most bytes of data that a session may hold, as ASCII JSON.
    pub max_data_bytes: usize,
}

/// A write asks for a session that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The data would take `bytes` bytes as ASCII JSON.
    DataTooLarge {
        /// The bytes that it would take.
        bytes: usize,
        /// The bytes that are allowed.
        limit: usize,
    },
    /// The token that the change is made with no longer opens the session, or it is valid only by the grace of a
    /// rotation and the change itself is a rotation.
    TokenEnded,
    /// The subject is longer than [`MAX_SUBJECT_BYTES`].
    SubjectTooLong,
    /// The subject has more than one spelling, or stands for more than one text.
    SubjectAmbiguous(&'static str),
    /// The stored data can't be read, so there is nothing to merge into.
    Stored(DecodeError),
}

impl Session {
    /// Creates a session at [`Version::FIRST`]. If it begins with a rotation, it is at the next version, and no older
    /// token is good.
    pub fn create(new: NewSession, write: Write) -> Result<Self, ChangeError> {
        let subject = subject_of(&new.data, &new.subject_key)?;
        let version = if new.rotation > Rotation::None { Version::FIRST.next() } else { Version::FIRST };
        Ok(Self {
            version,
            min_version: version,
            grace: None,
            created: write.now,
            timeouts: new.timeouts,
            login: subject.map(|subject| Login {
                principal: Principal { realm: new.realm, subject },
                auth_time: write.now,
                epoch: None,
            }),
            upstream_cookie: new.upstream_cookie,
            write: write.id,
            data: bounded(&new.data, write.max_data_bytes)?,
        })
    }

    /// The session after `change`, one version up.
    ///
    /// A session keeps the realm of its login until the next login, because adding a realm to a site must not log all
    /// of its users out. A change that writes the subject, or says that it was authenticated, is a login in the realm
    /// of the change.
    ///
    /// A change of the subject always rotates, and the grace covers no token: a token from before a login must never
    /// open the session after it (OWASP ASVS 5.0 7.2.4). Nor may a change that was under way with such a token, so its
    /// standing is checked again here.
    pub fn change(&self, change: Change, write: Write) -> Result<Self, ChangeError> {
        let standing = change.seen.map_or(Standing::Good, |seen| self.standing(seen, change.grace, write.now));
        if !standing.is_open() {
            return Err(ChangeError::TokenEnded);
        }
        let mut data = self.data.parse().map_err(ChangeError::Stored)?;
        let writes_subject = change.patches.iter().any(|patch| patch.contains_key(&change.subject_key));
        let is_login = change.rotation == Rotation::Authenticated || writes_subject;
        for patch in change.patches {
            merge_patch::apply(&mut data, patch);
        }
        let version = self.version.next();
        // Who is logged in changes when it is written, not because the member is read in another way than it was then.
        let subject =
            if writes_subject { subject_of(&data, &change.subject_key)? } else { self.subject().map(str::to_owned) };
        let principal = subject.map(|subject| match self.principal() {
            Some(before) if !is_login && before.subject == subject => before.clone(),
            _ => Principal { realm: change.realm, subject },
        });
        let grace = |from| (change.grace > Seconds::ZERO).then(|| Grace { from, until: write.now.plus(change.grace) });
        let is_rotation = change.rotation > Rotation::None;
        let (min_version, grace) = if principal.as_ref() != self.principal() || (is_rotation && change.joins) {
            (version, grace(version))
        } else if is_rotation {
            (version, grace(self.min_version))
        } else {
            (self.min_version, self.grace)
        };
        // A token that is only spared would rotate the good one away, or log a user in.
        if min_version == version && standing != Standing::Good {
            return Err(ChangeError::TokenEnded);
        }
        Ok(Self {
            version,
            min_version,
            grace,
            created: self.created,
            timeouts: self.timeouts,
            login: principal.map(|principal| match &self.login {
                Some(login) if login.principal == principal => {
                    let is_repeated = change.rotation == Rotation::Authenticated;
                    let auth_time = if is_repeated { write.now } else { login.auth_time };
                    Login { principal, auth_time, epoch: login.epoch }
                }
                _ => Login { principal, auth_time: write.now, epoch: None },
            }),
            upstream_cookie: change.upstream_cookie.or_else(|| self.upstream_cookie.clone()),
            write: write.id,
            data: bounded(&data, write.max_data_bytes)?,
        })
    }

    /// The session, bound to its subject's record. Before that, a session that has a subject is not good.
    #[must_use]
    pub fn enlisted_in(self, epoch: Epoch) -> Self {
        Self { login: self.login.map(|login| Login { epoch: Some(epoch), ..login }), ..self }
    }

    /// Whether a creation under this session's id may become a change of it: no user has ever been logged in, no
    /// rotation has ever taken place, and it was created at most `within` ago. Then it is a race between the first
    /// writes of one visitor. Later it would be a replay, and after a rotation, such as that of a login or logout, it
    /// would let an older token in. A session that seems to have been created in the future, because the clock was set
    /// back, is not joined.
    #[must_use]
    pub fn may_merge(&self, within: Seconds, now: UnixSeconds) -> bool {
        let is_young = now.since(self.created) <= within && self.created <= now.plus(CLOCK_TOLERANCE);
        self.login.is_none() && self.min_version == Version::FIRST && is_young
    }

    /// How long the session lives if it is used now and never again; `None` if its time is over.
    #[must_use]
    pub fn lifetime_left(&self, now: UnixSeconds) -> Option<Seconds> {
        let left = self.timeouts.idle.min(self.end().since(now));
        (left > Seconds::ZERO).then_some(left)
    }

    /// When the session ends, used or not.
    #[must_use]
    pub const fn end(&self) -> UnixSeconds {
        self.created.plus(self.timeouts.absolute)
    }

    /// The lifetime that a use now gives the session, if that is worth a write to the store, where it has `remaining`
    /// left: if the last extension is at least `touch_after` old. This needs no field in the record, because every
    /// extension sets the remaining time to the value that this function returns.
    #[must_use]
    pub fn extension(&self, remaining: Seconds, touch_after: Seconds, now: UnixSeconds) -> Option<Seconds> {
        let lifetime = self.lifetime_left(now)?;
        let gained = lifetime.get().saturating_sub(remaining.get());
        (gained > 0 && gained >= touch_after.get()).then_some(lifetime)
    }

    /// How many changes the session has had, its creation included.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Tokens of an older version are refused unless the [`grace`](Self::grace) covers them.
    #[must_use]
    pub const fn min_version(&self) -> Version {
        self.min_version
    }

    /// The grace of the last rotation, whether over or not.
    #[must_use]
    pub const fn grace(&self) -> Option<Grace> {
        self.grace
    }

    /// How a token of this version stands with the session. `longest` is how long a grace may be.
    #[must_use]
    pub fn standing(&self, token: Version, longest: Seconds, now: UnixSeconds) -> Standing {
        Standing::of(token, self.min_version, self.grace, longest, now)
    }

    /// When the session was first stored.
    #[must_use]
    pub const fn created(&self) -> UnixSeconds {
        self.created
    }

    /// The session's timeouts.
    #[must_use]
    pub const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Who is logged in.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.principal().map(|principal| principal.subject.as_str())
    }

    /// Who is logged in, and in which realm.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.login.as_ref().map(|login| &login.principal)
    }

    /// When the user last proved their identity, at the login or later (`authenticated`).
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixSeconds> {
        self.login.as_ref().map(|login| login.auth_time)
    }

    /// The epoch of the subject's record in which the session was enlisted.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.login.as_ref().and_then(|login| login.epoch)
    }

    /// The id that upstreams keep their own state under, if it isn't the session's.
    #[must_use]
    pub fn upstream_cookie(&self) -> Option<&str> {
        self.upstream_cookie.as_deref()
    }

    /// The last write to the session.
    #[must_use]
    pub const fn write(&self) -> WriteId {
        self.write
    }

    /// The session's data.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// The session's data, without the rest.
    #[must_use]
    pub fn into_data(self) -> Data {
        self.data
    }
}

/// Who is logged in: a non-empty string or a whole number under `key`, digit by digit. Anything else is no subject.
///
/// `1` and `1.0` are the same number and must not be two subjects; `a\ud83d` and `a\ud83e` are two texts and must not
/// be one subject.
fn subject_of(data: &Object, key: &str) -> Result<Option<String>, ChangeError> {
    let subject = match data.get(key) {
        Some(Value::String(name)) if name.contains(char::REPLACEMENT_CHARACTER) => {
            return Err(ChangeError::SubjectAmbiguous("contains U+FFFD, which stands for unreadable characters"));
        }
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(Value::Number(number)) => {
            let number = number.to_string();
            let is_whole = number.strip_prefix('-').unwrap_or(&number).bytes().all(|byte| byte.is_ascii_digit());
            if !is_whole || number == "-0" {
                return Err(ChangeError::SubjectAmbiguous(
                    "is a number with a fraction, an exponent or the value -0: write it as a string",
                ));
            }
            number
        }
        _ => return Ok(None),
    };
    if subject.len() > MAX_SUBJECT_BYTES {
        return Err(ChangeError::SubjectTooLong);
    }
    Ok(Some(subject))
}

fn bounded(data: &Object, limit: usize) -> Result<Data, ChangeError> {
    let data = Data::from_object(data);
    let bytes = data.as_str().len();
    if bytes > limit {
        return Err(ChangeError::DataTooLarge { bytes, limit });
    }
    Ok(data)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .field("min_version", &self.min_version)
            .field("grace", &self.grace)
            .field("created", &self.created)
            .field("timeouts", &self.timeouts)
            .field("data_bytes", &self.data.as_str().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataTooLarge { bytes, limit } => {
                write!(f, "the session's data would take {bytes} bytes; the limit is {limit}")
            }
            Self::TokenEnded => f.write_str("a rotation has invalidated the token that the change was made with"),
            Self::SubjectTooLong => write!(f, "the subject is longer than {MAX_SUBJECT_BYTES} bytes"),
            Self::SubjectAmbiguous(reason) => write!(f, "the subject {reason}"),
            Self::Stored(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ChangeError {}

#[cfg(test)]
mod tests;
