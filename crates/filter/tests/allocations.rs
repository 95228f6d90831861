//! Counts the allocations of the decisions for a cached request. Unlike times, allocations are exact, so this is the
//! one figure of the hot path that a test can check.

use session_filter::exchange::Step;
use session_filter::testing::CachedVisit;

/// The list of the request's headers, the slot's content (in Envoy what hostcalls have returned), the subject and the
/// data read from it, the cookies of ours, the lines without them and the one line in them, the list of edits, and the
/// values of the id, the state and the version; and what a callout would say of the request.
const ALLOCATIONS: u64 = 12;

#[test]
fn a_cached_request_allocates_what_it_hands_out_and_little_else() {
    let visit = CachedVisit::new();
    let (edits, step) = visit.make();
    assert_eq!(step, Step::Deliver(Vec::new()));
    assert_eq!(edits.len(), 6, "the cookie line and five headers: {edits:?}");

    let counted = allocation_counter::measure(|| {
        visit.make();
    });
    assert!(counted.count_total <= ALLOCATIONS, "{counted:?}");
    assert_eq!(counted.count_current, 0, "something was kept: {counted:?}");
}
