//! The callouts under way, and the streams that wait for them. Concurrent requests that miss the cache for the same
//! session share one callout.
//!
//! The SDK delivers an answer to the context in whose callback the callout was made, and drops it if that context is
//! gone. So when the client that made a shared lookup hangs up, the root context, which stays, makes the lookup again.

use std::collections::{HashMap, HashSet};
use std::mem;

use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;
use session_filter::exchange::{Callout, LookUp, Trace};

use crate::ids::ById;

/// Why a callout was made.
pub(crate) enum Purpose {
    /// These streams wait for its answer.
    Awaited(Vec<u32>),
    /// To tell the store, at this time, that this session is in use, possibly because these streams are open.
    Refresh(LookUp, UnixSeconds, Vec<u32>),
}

struct Call {
    purpose: Purpose,
    /// When it was sent, in milliseconds since the Unix epoch.
    sent_ms: u64,
    /// The session that it is about.
    session: SessionId,
    /// The lookup, if others may join it.
    shared: Option<LookUp>,
    /// The stream that made the callout; `None` for the root.
    asked_by: Option<u32>,
}

/// A lookup that others may join.
struct Shared {
    call: u32,
    seen: Version,
}

/// The callouts of one root, by Envoy's ids.
#[derive(Default)]
pub(crate) struct Calls {
    open: ById<Call>,
    /// The calls that streams have made, by stream.
    by_stream: ById<u32>,
    shared: HashMap<SessionId, Shared>,
    /// The sessions that the store is being told about, or will be.
    refreshing: HashSet<SessionId>,
    /// The callouts that the root has to send. They belong to no stream.
    unsent: Vec<Unsent>,
}

/// A callout that the root has to send, because its answer would be lost with the stream in whose callback the need for
/// it arose.
pub(crate) enum Unsent {
    /// A callout for a stream, which waits for its answer.
    Call(u32, Callout, Trace),
    /// A lookup, and the streams that wait for it.
    LookUp(LookUp, Vec<u32>),
    /// A callout that tells the store that a session is in use.
    Refresh(LookUp, Trace),
}

impl Calls {
    /// Records a callout about this session for a stream, which waits for the answer and has no other callout open. It
    /// was `asked_by` that stream, or by the root if that is `None`.
    pub(crate) fn sent(&mut self, call: u32, session: SessionId, stream: u32, asked_by: Option<u32>, sent_ms: u64) {
        let purpose = Purpose::Awaited(vec![stream]);
        self.open.insert(call, Call { purpose, sent_ms, session, shared: None, asked_by });
        if asked_by.is_some() {
            self.by_stream.insert(stream, call);
        }
    }

    /// Records a lookup that the root has sent for these streams.
    pub(crate) fn sent_by_root(&mut self, call: u32, look_up: LookUp, waiting: Vec<u32>, sent_ms: u64) {
        let purpose = Purpose::Awaited(waiting);
        self.open.insert(call, Call { purpose, sent_ms, session: look_up.id, shared: None, asked_by: None });
        self.share(call, look_up);
    }

    /// Makes streams wait for the lookup of their session that is under way. `false` if there is none, or one that
    /// asked for less.
    pub(crate) fn join(&mut self, look_up: &LookUp, streams: &[u32]) -> bool {
        let shared = self.shared.get(&look_up.id).filter(|shared| shared.seen >= look_up.seen);
        match shared.and_then(|shared| self.open.get_mut(&shared.call)) {
            Some(Call { purpose: Purpose::Awaited(waiting), .. }) => {
                waiting.extend(streams);
                true
            }
            _ => false,
        }
    }

    /// Lets others join this lookup, unless there already is one that they can join.
    pub(crate) fn share(&mut self, call: u32, look_up: LookUp) {
        if let Some(open) = self.open.get_mut(&call) {
            self.shared.entry(look_up.id).or_insert_with(|| {
                open.shared = Some(look_up);
                Shared { call, seen: look_up.seen }
            });
        }
    }

    /// Adds a callout for the root to send.
    pub(crate) fn leave_to_root(&mut self, unsent: Unsent) {
        if let Unsent::Refresh(look_up, _) = &unsent {
            self.refreshing.insert(look_up.id);
        }
        self.unsent.push(unsent);
    }

    /// Whether the store is not yet being told about this session.
    pub(crate) fn needs_refresh(&self, look_up: &LookUp) -> bool {
        !self.refreshing.contains(&look_up.id)
    }

    /// The number of sessions that the store is being told about.
    pub(crate) fn refreshing(&self) -> usize {
        self.refreshing.len()
    }

    /// The root has told the store about a session, on behalf of these streams.
    pub(crate) fn sent_refresh(
        &mut self,
        call: u32,
        look_up: LookUp,
        streams: Vec<u32>,
        asked: UnixSeconds,
        sent_ms: u64,
    ) {
        self.refreshing.insert(look_up.id);
        let purpose = Purpose::Refresh(look_up, asked, streams);
        self.open.insert(call, Call { purpose, sent_ms, session: look_up.id, shared: None, asked_by: None });
    }

    /// The root could not tell the store about a session.
    pub(crate) fn refresh_failed(&mut self, look_up: &LookUp) {
        self.refreshing.remove(&look_up.id);
    }

    /// Whether the root has something to send.
    pub(crate) fn is_any_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes the callouts that the root has to send.
    pub(crate) fn take_unsent(&mut self) -> Vec<Unsent> {
        mem::take(&mut self.unsent)
    }

    /// A callout has been answered. Returns why it was made, and when. After a write, no stream joins an earlier lookup
    /// of its session, because the answer may be out of date.
    pub(crate) fn answered(&mut self, call: u32) -> Option<(Purpose, u64)> {
        let Call { purpose, sent_ms, session, shared, asked_by } = self.open.remove(&call)?;
        if let Some(stream) = asked_by {
            self.by_stream.remove(&stream);
        }
        match (&purpose, shared) {
            (Purpose::Refresh(look_up, ..), _) => {
                self.refreshing.remove(&look_up.id);
            }
            (Purpose::Awaited(_), Some(look_up)) => self.unshare(call, look_up.id),
            (Purpose::Awaited(_), None) => {
                self.shared.remove(&session);
            }
        }
        Some((purpose, sent_ms))
    }

    /// A stream has ended, and the SDK drops the answer to its callout. `true` if other streams wait for that: then the
    /// callout has to be made again. If it was a write, which may have been made, no stream joins an earlier lookup:
    /// see [`answered`](Self::answered).
    pub(crate) fn stream_ended(&mut self, stream: u32) -> bool {
        let Some(call) = self.by_stream.remove(&stream) else { return false };
        let Some(Call { purpose: Purpose::Awaited(mut waiting), shared, session, .. }) = self.open.remove(&call) else {
            return false;
        };
        let Some(look_up) = shared else {
            self.shared.remove(&session);
            return false;
        };
        self.unshare(call, look_up.id);
        waiting.retain(|other| *other != stream);
        let is_awaited = !waiting.is_empty();
        if is_awaited {
            self.unsent.push(Unsent::LookUp(look_up, waiting));
        }
        is_awaited
    }

    fn unshare(&mut self, call: u32, session: SessionId) {
        if self.shared.get(&session).is_some_and(|shared| shared.call == call) {
            self.shared.remove(&session);
        }
    }
}
