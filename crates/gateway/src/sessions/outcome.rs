//! The outcomes of calls on sessions.

use session::id::SessionId;
use session::record::{ChangeError, DecodeError, Session};
use session::subject::SessionLimitError;
use session::time::{Seconds, UnixSeconds};
use session::version::Version;

use crate::store::StoreError;

/// A session, and when it ends unless it is used.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The session.
    pub session: Session,
    /// When it ends unless it is used.
    pub expires: UnixSeconds,
}

/// A session among others.
#[derive(Clone, Debug)]
pub struct ListedSession {
    /// Its id.
    pub id: SessionId,
    /// The session.
    pub live: LiveSession,
}

/// How a creation went.
#[derive(Clone, Debug)]
pub enum Created {
    /// The session is new.
    New(LiveSession),
    /// The data was merged into one that had just been created.
    Merged(LiveSession),
}

/// Which versions a write may replace: the meaning of `if-match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Any version.
    #[default]
    None,
    /// One of these.
    Versions(Vec<Version>),
}

/// A use of a session: the meaning of `?touch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// How old the last extension has to be for another one.
    pub after: Seconds,
    /// The token with which the session is used. With a token that no longer opens it, this is not a use.
    pub presented: Option<Presented>,
}

/// The token with which a session is used or ended: the meaning of `session-seen-version` on `GET` and `DELETE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The token's version.
    pub version: Version,
    /// The maximum length of a grace.
    pub grace: Seconds,
}

impl Presented {
    pub(super) fn opens(self, session: &Session, now: UnixSeconds) -> bool {
        session.standing(self.version, self.grace, now).is_open()
    }
}

impl Precondition {
    pub(super) fn check(&self, session: &Session) -> Result<(), SessionError> {
        let current = session.version();
        match self {
            Self::Versions(versions) if !versions.contains(&current) => {
                Err(SessionError::PreconditionFailed { current })
            }
            Self::None | Self::Versions(_) => Ok(()),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such session: never stored, expired, ended or lost by the store.
    #[error("there is no such session")]
    NotFound,
    /// The id is taken.
    #[error("{}", match created { Some(_) => "a session with this id exists", None => "a session with this id has just ended" })]
    Exists {
        /// When the session that has it was created; `None` if it has recently been ended.
        created: Option<UnixSeconds>,
    },
    /// The precondition does not hold.
    #[error("the session is at version {current}")]
    PreconditionFailed {
        /// The session's version.
        current: Version,
    },
    /// The caller asks for a change that is not allowed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The subject already has as many sessions as allowed.
    #[error(transparent)]
    TooManySessions(#[from] SessionLimitError),
    /// The store holds something that no gateway wrote: a session's or a subject's record is damaged.
    #[error(transparent)]
    Stored(#[from] DecodeError),
    /// The store failed, or the outcome of the write is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No success within the time allowed.
    #[error("the store took too long")]
    TimedOut,
    /// The operating system provided no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}
