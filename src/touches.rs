//! The sessions of open streams. They are checked from time to time for those that the store has not been told about
//! for a while.

use std::collections::HashMap;

use session::id::SessionId;
use session::time::UnixSeconds;
use session_filter::exchange::{Exchange, LookUp};

/// The maximum number of touches under way, so that a thousand streams that began together don't cause a burst of
/// calls. The others wait for the next check. A map's order differs each time, so none waits for ever.
pub(crate) const MOST_TOUCHES: usize = 64;

/// The result of checking the streams.
#[derive(Default)]
pub(crate) struct Touches {
    /// Whether any stream keeps a session in use, so that another check is needed.
    pub(crate) is_any_in_use: bool,
    /// The sessions to touch, each once, with all its open streams.
    pub(crate) due: HashMap<SessionId, (LookUp, Vec<u32>)>,
}

impl Touches {
    pub(crate) fn of<'a>(streams: impl Iterator<Item = (u32, &'a Exchange)> + Clone, now: UnixSeconds) -> Self {
        let mut touches = Self::default();
        for (_, exchange) in streams.clone() {
            touches.is_any_in_use |= exchange.in_use().is_some();
            if let Some(look_up) = exchange.due_touch(now) {
                let (due, _) = touches.due.entry(look_up.id).or_insert((look_up, Vec::new()));
                due.seen = due.seen.max(look_up.seen);
            }
        }
        if !touches.due.is_empty() {
            for (stream, exchange) in streams {
                if let Some((_, streams)) = exchange.in_use().and_then(|used| touches.due.get_mut(&used.id)) {
                    streams.push(stream);
                }
            }
        }
        touches
    }
}
