//! What comes out of an exchange: the step to take with the stream, and what else there is to do.

use super::callout::{Answer, CallOutcome, Callout};
use crate::cache::SlotWrite;
use crate::config::Config;
use crate::counter::Counts;
use crate::edit::{Edit, LocalReply};
use crate::upstream_api::SessionState;
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;

/// What to do next with the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: what is held stays held, what is running goes on.
    Hold,
    /// Hold the request until this session was looked up.
    LookUp {
        /// What to ask for.
        look_up: LookUp,
        /// Whether the answer to the same question, asked a moment before, will do.
        is_shareable: bool,
    },
    /// Hold the response, and make this callout.
    Call(Callout),
    /// Let the request go to the upstream after these edits, and make this callout meanwhile.
    Forward {
        /// For the request's headers.
        edits: Vec<Edit>,
        /// To be made while the upstream works; the response will wait for its answer.
        callout: Option<Callout>,
    },
    /// Let the response go to the client after these edits.
    Deliver(Vec<Edit>),
    /// Answer the client in place of the upstream.
    Reply(LocalReply),
}

/// The question for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// Its id.
    pub id: SessionId,
    /// The newest version that the client has seen of it.
    pub seen: Version,
}

impl LookUp {
    /// The callout that asks it. The session counts as used by it, if the client's token opens it.
    #[must_use]
    pub fn callout(&self, config: &Config) -> Callout {
        Callout::look_up(config, self.id, self.seen, config.timeouts.touch_after)
    }

    /// The callout that tells of a use although no request came, because a stream goes on.
    #[must_use]
    pub fn touch(&self, config: &Config) -> Callout {
        Callout::look_up(config, self.id, self.seen, config.timeouts.stream_touch_after())
    }

    /// What an answer to it puts into the cache, when no exchange waits for it. `asked` is when it was sent.
    #[must_use]
    pub fn refresh(&self, config: &Config, answer: Answer<'_>, asked: UnixSeconds) -> Option<SlotWrite> {
        let found = match CallOutcome::of(config, self.id, answer) {
            CallOutcome::Found(found) => Some(found),
            CallOutcome::Missing => None,
            _ => return None,
        };
        Some(SlotWrite::new(self.id, asked, found.as_ref(), &config.cache))
    }
}

/// What the events of an exchange lead to besides their steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// What to change of a request that is held or answered: see
    /// [`Exchange::take_request_edits`](super::Exchange::take_request_edits).
    pub request: Vec<Edit>,
    /// What to count.
    pub counts: Counts,
    /// What to put into the cache.
    pub cache: Option<SlotWrite>,
    /// That the client's cookie was replaced, for answers that come later: to be put into the cache, too.
    pub replaced: Option<SlotWrite>,
    /// A session to look up again when there is time: its copy is good, but the store should hear that it is in use.
    pub refresh: Option<LookUp>,
    /// A line for the log.
    pub warning: Option<String>,
    /// Whose request this is, for logs and other filters.
    pub identity: Option<Identity>,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The session's id, as the upstream sees it.
    pub id: SessionId,
    /// The session's state, as the upstream sees it.
    pub state: SessionState,
}
