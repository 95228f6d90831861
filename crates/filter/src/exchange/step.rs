//! The output of an exchange: the step to take with the stream, and what else there is to do.

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
    /// Do nothing: what is held stays held, and what is running goes on.
    Hold,
    /// Hold the request until this session has been looked up.
    LookUp {
        /// The session to look up.
        look_up: LookUp,
        /// Whether the answer to the same question, asked a moment earlier, is good enough.
        is_shareable: bool,
    },
    /// Hold the response, and make this callout.
    Call(Callout),
    /// Forward the request to the upstream after these edits, and make this callout meanwhile.
    Forward {
        /// For the request's headers.
        edits: Vec<Edit>,
        /// The callout to make while the upstream works; the response will wait for its answer.
        callout: Option<Callout>,
    },
    /// Send the response to the client after these edits.
    Deliver(Vec<Edit>),
    /// Respond to the client in place of the upstream.
    Reply(LocalReply),
}

/// A request for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// Its id.
    pub id: SessionId,
    /// The newest version that the client has seen of it.
    pub seen: Version,
}

impl LookUp {
    /// The callout that looks the session up. It counts as a use of the session if the client's token opens it.
    #[must_use]
    pub fn callout(&self, config: &Config) -> Callout {
        Callout::look_up(config, self.id, self.seen, config.timeouts.touch_after)
    }

    /// The callout that reports a use without a request, because a stream is open.
    #[must_use]
    pub fn touch(&self, config: &Config) -> Callout {
        Callout::look_up(config, self.id, self.seen, config.timeouts.stream_touch_after())
    }

    /// What an answer puts into the cache if no exchange waits for it. `asked` is when it was sent.
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

/// What the events of an exchange lead to, besides steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// How to change a request that is held or responded to: see
    /// [`Exchange::take_request_edits`](super::Exchange::take_request_edits).
    pub request: Vec<Edit>,
    /// What to count.
    pub counts: Counts,
    /// What to put into the cache.
    pub cache: Option<SlotWrite>,
    /// The mark that the client's cookie was replaced, for later responses. It is put into the cache, too.
    pub replaced: Option<SlotWrite>,
    /// A session to look up again in the background: its copy is good, but the store should be told that it is in use.
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
