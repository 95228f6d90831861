//! Lookups that are under way: requests that miss on the same session at the same time share one.
//!
//! One request leads: its lookup is sent. Others wait with it, and are resumed by the root context once the
//! answer has come. If the leader goes away first (its client hung up, and Envoy dropped its lookup with it), the root
//! context asks again for those who wait.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Weak;

use session_core::exchange::LookUp;
use session_core::id::SessionId;
use session_core::time::UnixSeconds;
use session_core::version::Version;

use crate::host::OwnedAnswer;
use crate::stream::Inner;

/// A stream that waits for somebody else's lookup.
pub(crate) struct Waiter {
    pub(crate) context_id: u32,
    pub(crate) stream: Weak<RefCell<Inner>>,
}

/// A question of the root context's own.
pub(crate) enum Question {
    /// Asked again for these, whose leader is gone.
    Orphans(LookUp, Vec<Waiter>),
    /// Asked because the store should hear that the session is in use.
    Refresh(LookUp, UnixSeconds),
    /// Asked for one stream, by an event that the root context handed to it.
    Stream(Waiter),
}

struct Flight {
    seen: Version,
    waiters: Vec<Waiter>,
}

/// What streams leave to the root context.
#[derive(Default)]
pub(crate) struct Left {
    /// Answers for waiters, to be handed out.
    pub(crate) landed: Vec<(OwnedAnswer, Vec<Waiter>)>,
    /// Questions to ask.
    pub(crate) questions: Vec<Question>,
}

/// What the streams of a worker leave to each other and to the root context.
#[derive(Default)]
pub(crate) struct Flights {
    open: HashMap<SessionId, Flight>,
    /// The sessions that the store is being told of.
    refreshing: HashSet<SessionId>,
    pub(crate) left: Left,
}

impl Flights {
    /// Has the root context look this session up, unless it is about to. `true` if it has something to do.
    pub(crate) fn refresh(&mut self, look_up: LookUp, now: UnixSeconds) -> bool {
        let is_first = self.refreshing.insert(look_up.id);
        if is_first {
            self.left.questions.push(Question::Refresh(look_up, now));
        }
        is_first
    }

    /// The store has been told of this session, or could not be.
    pub(crate) fn refreshed(&mut self, id: SessionId) {
        self.refreshing.remove(&id);
    }

    /// Joins the lookup for this session that is under way; gives the waiter back if there is none, or
    /// one that asked for less.
    pub(crate) fn join(&mut self, look_up: &LookUp, waiter: Waiter) -> Result<(), Waiter> {
        match self.open.get_mut(&look_up.id) {
            Some(flight) if flight.seen >= look_up.seen => {
                flight.waiters.push(waiter);
                Ok(())
            }
            _ => Err(waiter),
        }
    }

    /// Lets others join this lookup; `false` if there is one already.
    pub(crate) fn lead(&mut self, look_up: &LookUp) -> bool {
        if self.open.contains_key(&look_up.id) {
            return false;
        }
        self.open.insert(look_up.id, Flight { seen: look_up.seen, waiters: Vec::new() });
        true
    }

    /// The leader has its answer. `true` if there is something for the root context to do.
    pub(crate) fn land(&mut self, id: SessionId, answer: impl FnOnce() -> OwnedAnswer) -> bool {
        match self.open.remove(&id) {
            Some(flight) if !flight.waiters.is_empty() => {
                self.left.landed.push((answer(), flight.waiters));
                true
            }
            _ => false,
        }
    }

    /// The leader is gone without an answer. `true` if there is something for the root context to do.
    pub(crate) fn abandon(&mut self, id: SessionId) -> bool {
        match self.open.remove(&id) {
            Some(flight) if !flight.waiters.is_empty() => {
                self.left.questions.push(Question::Orphans(LookUp { id, seen: flight.seen }, flight.waiters));
                true
            }
            _ => false,
        }
    }
}
