//! How often upstreams renew the ids of their own sessions (`upstream.cookie`).
//!
//! If several upstreams behind a load balancer accept only their own ids, each response has a new id. Each renewal
//! would be a rotation, a write and a new cookie, until parallel requests invalidate each other's tokens. So a session
//! whose id is renewed too often keeps the one that it has.

use core::fmt;

use session::id::SessionId;
use session::time::{Seconds, UnixSeconds};

/// Rarely are more sessions than this renewed too often at once. Two that share a slot make each other's renewals look
/// new. The slots take about 40 KiB.
const SLOTS: usize = 1024;
/// Renewals count as consecutive if no more than this lies between them.
const WINDOW: Seconds = Seconds::new(60);
/// A login renews the id once or twice, and an upstream that has forgotten a session renews it once.
const MAX_IN_A_ROW: u8 = 4;

/// What to do with a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It is committed.
    Kept,
    /// It is one of too many.
    Ignored {
        /// Whether the log should say so: once in a while is enough.
        is_worth_a_line: bool,
    },
}

/// The renewals of the most recently renewed sessions.
#[derive(Clone, Default)]
pub(crate) struct Renewals {
    slots: Vec<Option<Run>>,
    told: Option<UnixSeconds>,
}

/// Renewals of one session, each soon after the previous one.
#[derive(Clone, Copy)]
struct Run {
    id: SessionId,
    last: UnixSeconds,
    count: u8,
}

impl Renewals {
    /// An upstream has renewed its id of this session.
    pub(crate) fn add(&mut self, id: SessionId, now: UnixSeconds) -> Renewal {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let Some(slot) = self.slots.get_mut(slot(id)) else { return Renewal::Kept };
        let before = slot.filter(|run| run.id == id && now.since(run.last) <= WINDOW);
        let count = before.map_or(0, |run| run.count).saturating_add(1);
        *slot = Some(Run { id, last: now, count });
        if count <= MAX_IN_A_ROW {
            return Renewal::Kept;
        }
        // A clock that was set back does not suppress the log line.
        let was_told = self.told.is_some_and(|told| told <= now && now.since(told) < WINDOW);
        if !was_told {
            self.told = Some(now);
        }
        Renewal::Ignored { is_worth_a_line: !was_told }
    }
}

fn slot(id: SessionId) -> usize {
    let [a, b, ..] = *id.as_bytes();
    usize::from(u16::from_be_bytes([a, b])) % SLOTS
}

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewals(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of everything that ever happened. The ids have slots of their own.
        #[test]
        fn only_renewals_one_soon_after_the_other_are_too_many(
            events in proptest::collection::vec((0..3_u8, prop_oneof![0..3_u64, 55..70_u64]), 0..200),
        ) {
            let mut renewals = Renewals::default();
            let mut history: Vec<(u8, u64)> = Vec::new();
            let mut lines: Vec<u64> = Vec::new();
            let mut now = 1000;
            for (session, pause) in events {
                now += pause;
                history.push((session, now));
                let times: Vec<u64> = history.iter().filter(|(other, _)| *other == session).map(|(_, time)| *time).collect();
                let run = 1 + times.windows(2).rev().take_while(|pair| pair[1] - pair[0] <= 60).count();
                let is_ignored = run > 4;
                let is_worth_a_line = is_ignored && lines.last().is_none_or(|line| now - line >= 60);
                if is_worth_a_line {
                    lines.push(now);
                }
                let expected = if is_ignored { Renewal::Ignored { is_worth_a_line } } else { Renewal::Kept };
                prop_assert_eq!(renewals.add(SessionId::from_bytes([session; 16]), UnixSeconds::new(now)), expected);
            }
        }

        #[test]
        fn whatever_comes_takes_no_more_room(ids: Vec<[u8; 16]>, now: u64) {
            let mut renewals = Renewals::default();
            for id in ids {
                renewals.add(SessionId::from_bytes(id), UnixSeconds::new(now));
                prop_assert!(renewals.slots.len() == SLOTS);
            }
        }
    }
}
