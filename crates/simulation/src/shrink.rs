//! Makes a plan that fails as short as possible.

use crate::plan::{FaultKind, Plan};
use crate::world::run;

/// With how many other random numbers a shorter plan is tried: what it leaves out changes when they are drawn.
const TRIES: u64 = 4;

/// A shorter plan that fails as well.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    loop {
        let before = best.clone();
        // Others wait for a fault: so its time stays.
        best = without(
            best,
            |plan| plan.faults.len(),
            |plan, range| {
                plan.faults.get_mut(range).into_iter().flatten().for_each(|fault| fault.kind = FaultKind::Nothing);
            },
        );
        best = without(best, |plan| plan.hangs.len(), |plan, range| drop(plan.hangs.drain(range)));
        best = without(best, |plan| plan.calls.len(), |plan, range| drop(plan.calls.drain(range)));
        if best == before {
            return best;
        }
    }
}

/// Leaves out as many items as possible, many at once at first.
fn without(
    mut best: Plan,
    count: impl Fn(&Plan) -> usize,
    leave_out: impl Fn(&mut Plan, std::ops::Range<usize>),
) -> Plan {
    let mut size = count(&best).div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < count(&best) {
            let mut shorter = best.clone();
            leave_out(&mut shorter, at..(at + size).min(count(&best)));
            match failing(&shorter) {
                Some(shorter) if count(&shorter) < count(&best) => best = shorter,
                Some(shorter) => {
                    best = shorter;
                    at += size;
                }
                None => at += size,
            }
        }
        size /= 2;
    }
    best
}

fn failing(plan: &Plan) -> Option<Plan> {
    (0..TRIES).map(|add| Plan { seed: plan.seed.wrapping_add(add), ..plan.clone() }).find(|plan| {
        let report = run(plan);
        !report.violations.is_empty()
    })
}
