//! The callouts that are under way, and who waits for them. Requests that miss on the same session at the same time
//! share one.

use std::collections::{HashMap, HashSet};

use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;
use session_filter::exchange::LookUp;

use crate::context::ById;

/// For whom a callout is made.
pub(crate) enum Caller {
    /// For these streams, which wait for its answer.
    Streams(Vec<u32>),
    /// For nobody: the store should hear that this session is in use. It was asked at this time, maybe because these streams
    /// go on.
    Refresh(LookUp, UnixSeconds, Vec<u32>),
}

struct Call {
    caller: Caller,
    /// When it was sent, in milliseconds since the Unix epoch.
    sent_ms: u64,
    /// The session that it looks up, if others may join it.
    shared: Option<SessionId>,
}

/// A lookup that others may join.
struct Shared {
    token: u32,
    seen: Version,
}

/// The callouts of one worker, by Envoy's tokens.
#[derive(Default)]
pub(crate) struct Calls {
    open: ById<Call>,
    shared: HashMap<SessionId, Shared>,
    /// The sessions that the store is being told of.
    refreshing: HashSet<SessionId>,
}

impl Calls {
    /// A callout for one stream was sent.
    pub(crate) fn sent(&mut self, token: u32, stream: u32, sent_ms: u64) {
        self.open.insert(token, Call { caller: Caller::Streams(vec![stream]), sent_ms, shared: None });
    }

    /// Has a stream wait for the lookup of its session that is under way. `false` if there is none, or one that asked for
    /// less.
    pub(crate) fn join(&mut self, look_up: &LookUp, stream: u32) -> bool {
        let call = self.shared.get(&look_up.id).filter(|shared| shared.seen >= look_up.seen);
        match call.and_then(|shared| self.open.get_mut(&shared.token)) {
            Some(Call { caller: Caller::Streams(waiting), .. }) => {
                waiting.push(stream);
                true
            }
            _ => false,
        }
    }

    /// Lets others join the lookup with this token, unless there is one that they can join already.
    pub(crate) fn share(&mut self, token: u32, look_up: &LookUp) {
        if let Some(call) = self.open.get_mut(&token) {
            self.shared.entry(look_up.id).or_insert_with(|| {
                call.shared = Some(look_up.id);
                Shared { token, seen: look_up.seen }
            });
        }
    }

    /// Whether nobody tells the store of this session yet.
    pub(crate) fn needs_refresh(&self, look_up: &LookUp) -> bool {
        !self.refreshing.contains(&look_up.id)
    }

    /// Of how many sessions the store is being told.
    pub(crate) fn refreshing(&self) -> usize {
        self.refreshing.len()
    }

    /// A callout that tells the store of a session was sent, on behalf of these streams.
    pub(crate) fn sent_refresh(
        &mut self,
        token: u32,
        look_up: LookUp,
        streams: Vec<u32>,
        asked: UnixSeconds,
        sent_ms: u64,
    ) {
        self.refreshing.insert(look_up.id);
        self.open.insert(token, Call { caller: Caller::Refresh(look_up, asked, streams), sent_ms, shared: None });
    }

    /// A callout was answered: for whom it was made, and when.
    pub(crate) fn answered(&mut self, token: u32) -> Option<(Caller, u64)> {
        let Call { caller, sent_ms, shared } = self.open.remove(&token)?;
        if let Some(id) = shared {
            self.shared.remove(&id);
        }
        if let Caller::Refresh(look_up, ..) = &caller {
            self.refreshing.remove(&look_up.id);
        }
        Some((caller, sent_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn look_up(id: u8, seen: u32) -> LookUp {
        LookUp { id: SessionId::from_bytes([id; 16]), seen: Version::new(seen) }
    }

    fn waiting(calls: &mut Calls, token: u32) -> Vec<u32> {
        match calls.answered(token) {
            Some((Caller::Streams(waiting), NOW)) => waiting,
            _ => Vec::new(),
        }
    }

    #[test]
    fn streams_share_the_lookup_of_a_session() {
        let mut calls = Calls::default();
        assert!(!calls.join(&look_up(1, 5), 10));
        calls.sent(100, 10, NOW);
        calls.share(100, &look_up(1, 5));
        assert!(calls.join(&look_up(1, 5), 11));
        assert!(calls.join(&look_up(1, 4), 12), "an older version will do");
        assert!(!calls.join(&look_up(1, 6), 13), "the answer may be older than this client has seen");
        assert!(!calls.join(&look_up(2, 5), 14), "another session");
        assert_eq!(waiting(&mut calls, 100), [10, 11, 12]);
        assert!(!calls.join(&look_up(1, 5), 15), "it is over");
        assert!(waiting(&mut calls, 100).is_empty());
    }

    #[test]
    fn a_second_lookup_of_a_session_is_nobodys_to_join() {
        let mut calls = Calls::default();
        calls.sent(100, 10, NOW);
        calls.share(100, &look_up(1, 5));
        calls.sent(101, 11, NOW);
        calls.share(101, &look_up(1, 6));
        assert_eq!(waiting(&mut calls, 101), [11]);
        assert!(calls.join(&look_up(1, 5), 12), "the first is still under way");
        assert_eq!(waiting(&mut calls, 100), [10, 12]);
    }

    #[test]
    fn the_store_is_told_of_a_session_once_at_a_time() {
        let mut calls = Calls::default();
        assert!(calls.needs_refresh(&look_up(1, 5)));
        calls.sent_refresh(100, look_up(1, 5), Vec::new(), UnixSeconds::new(7), NOW);
        assert!(!calls.needs_refresh(&look_up(1, 5)));
        assert!(calls.needs_refresh(&look_up(2, 5)));
        assert!(matches!(calls.answered(100), Some((Caller::Refresh(..), NOW))));
        assert!(calls.needs_refresh(&look_up(1, 5)));
    }
}
