//! Lookups that are under way: requests that miss on the same session at the same time share one.
//!
//! One request leads: its lookup is sent. Others wait with it, and are resumed by the root context once the
//! answer has come. If the leader goes away first (its client hung up, and Envoy dropped its lookup with it), the root
//! context asks again for those who wait.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Weak;

use session_core::exchange::LookUp;
use session_core::id::SessionId;
use session_core::time::UnixSeconds;
use session_core::version::Version;

use crate::stream::Inner;

/// A stream that waits for somebody else's lookup.
pub(crate) struct Waiter {
    pub(crate) context_id: u32,
    pub(crate) stream: Weak<RefCell<Inner>>,
}

/// An answer, kept until the waiters were resumed.
#[derive(Default)]
pub(crate) struct OwnedAnswer {
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
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

/// What the streams of a worker leave to each other and to the root context.
#[derive(Default)]
pub(crate) struct Flights {
    open: HashMap<SessionId, Flight>,
    /// Answers for waiters, to be handed out by the root context.
    pub(crate) landed: Vec<(OwnedAnswer, Vec<Waiter>)>,
    /// Questions for the root context to ask.
    pub(crate) questions: Vec<Question>,
}

impl Flights {
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
                self.landed.push((answer(), flight.waiters));
                true
            }
            _ => false,
        }
    }

    /// The leader is gone without an answer. `true` if there is something for the root context to do.
    pub(crate) fn abandon(&mut self, id: SessionId) -> bool {
        match self.open.remove(&id) {
            Some(flight) if !flight.waiters.is_empty() => {
                self.questions.push(Question::Orphans(LookUp { id, seen: flight.seen }, flight.waiters));
                true
            }
            _ => false,
        }
    }
}
