//! The sessions of streams in progress, looked through now and then for those that the store has not heard of for long.

use std::collections::HashMap;

use session::id::SessionId;
use session::time::UnixSeconds;
use session_filter::exchange::{Exchange, LookUp};

/// The most touches under way at a time, so that a thousand streams that began together are no burst of calls. The
/// others wait for the next look; a map has another order each time, so none waits for ever.
pub(crate) const MOST_TOUCHES: usize = 64;

/// What a look at the streams has found.
#[derive(Default)]
pub(crate) struct Touches {
    /// Whether any stream keeps a session in use, so that another look is needed.
    pub(crate) is_any_in_use: bool,
    /// The sessions to be touched, each once, with all streams that go on in it.
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
