//! What upstreams write, and that it is committed before the client gets the response.

use serde_json::json;

use super::*;
use crate::testing::World;

#[test]
fn a_write_is_there_for_the_next_request() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[("x-session-patch", r#"{"cart":{"n":2},"tmp":1}"#)]);
    assert_eq!(first.client("x-session-patch"), "");
    let cookie = first.cookie().expect("issued");
    let second = world.visit(&cookie, &[("x-session-patch", r#"{"cart":{"m":3},"tmp":null}"#)]);
    assert_eq!(second.upstream("x-session-version"), "1");
    let third = world.visit(&second.cookie().expect("issued"), &[]);
    assert_eq!(third.upstream("x-session-data"), r#"{"cart":{"m":3,"n":2}}"#);
    assert_eq!(third.upstream("x-session-version"), "2");
    assert_eq!(third.upstream("x-session-id"), first.upstream("x-session-id"));
}

#[test]
fn several_patches_are_one_change_in_their_order() {
    let mut world = World::new(json!({}));
    let patches = [("x-session-patch", r#"{"a":1}"#), ("x-session-patch", r#"{"a":{"b":2}}"#)];
    let cookie = world.visit("", &[("x-session-patch", r#"{"a":{"c":3}}"#)]).cookie().expect("issued");
    let cookie = world.visit(&cookie, &patches).cookie().expect("issued");
    let seen = world.visit(&cookie, &[]);
    // Composed into one merge patch they would have kept `c`.
    assert_eq!(seen.upstream("x-session-data"), r#"{"a":{"b":2}}"#);
    assert_eq!(seen.upstream("x-session-version"), "2");
}

#[test]
fn the_first_write_promotes_an_anonymous_session() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[]);
    let anonymous = first.cookie().expect("issued");
    let write = world.visit(&anonymous, &[("x-session-patch", r#"{"n":1}"#)]);
    let promoted = write.cookie().expect("issued");
    let seen = world.visit(&promoted, &[]);
    assert_eq!(seen.upstream("x-session-data"), r#"{"n":1}"#);
    assert_ne!(seen.upstream("x-session-id"), first.upstream("x-session-id"));

    // The anonymous token opens nothing of it.
    let other = world.visit(&anonymous, &[]);
    assert_eq!(other.upstream("x-session-data"), "{}");
    assert_eq!(other.upstream("x-session-id"), first.upstream("x-session-id"));
}

#[test]
fn two_first_writes_at_the_same_time_land_in_one_session() {
    let mut world = World::new(json!({}));
    let anonymous = world.visit("", &[]).cookie().expect("issued");
    let one = world.visit(&anonymous, &[("x-session-patch", r#"{"one":1}"#)]).cookie().expect("issued");
    world.now += 10;
    let two = world.visit(&anonymous, &[("x-session-patch", r#"{"two":2}"#)]).cookie().expect("issued");
    for cookie in [one, two] {
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-data"), r#"{"one":1,"two":2}"#);
    }
}

#[test]
fn a_first_write_after_the_grace_is_refused_and_the_next_try_starts_afresh() {
    let mut world = World::new(json!({}));
    let anonymous = world.visit("", &[]).cookie().expect("issued");
    let mine = world.visit(&anonymous, &[("x-session-patch", r#"{"mine":1}"#)]).cookie().expect("issued");
    world.now += 11;
    let refused = world.visit(&anonymous, &[("x-session-patch", r#"{"theirs":1}"#)]);
    assert_eq!((refused.status(), refused.client("x-session-error")), (503, "promotion-refused"));
    let retry = world.visit(&refused.cookie().expect("fresh"), &[("x-session-patch", r#"{"theirs":1}"#)]);
    assert_eq!(retry.status(), 200);
    assert_eq!(world.visit(&mine, &[]).upstream("x-session-data"), r#"{"mine":1}"#);
}

#[test]
fn a_planted_token_never_joins_the_session_of_a_login() {
    let mut world = World::new(json!({}));
    let planted = world.visit("", &[]).cookie().expect("issued");
    let login = [("x-session-patch", r#"{"user":"alice"}"#)];
    let victim = world.visit(&planted, &login).cookie().expect("issued");
    assert_eq!(world.visit(&victim, &[]).upstream("x-session-subject"), "alice");

    assert_eq!(world.visit(&planted, &[]).upstream("x-session-subject"), "");
    // Not even at once, and without a cookie that could replace the one on its way to the victim.
    let joined = world.visit(&planted, &[("x-session-patch", r#"{"a":1}"#)]);
    assert_eq!((joined.status(), joined.cookie()), (503, None));
    assert_eq!(world.visit(&victim, &[]).upstream("x-session-data"), r#"{"user":"alice"}"#);
}

#[test]
fn a_login_into_a_session_that_an_attacker_began_ends_the_attackers_token() {
    let mut world = World::new(json!({}));
    let planted = world.visit("", &[]).cookie().expect("issued");
    let attacker = world.visit(&planted, &[("x-session-patch", r#"{"a":1}"#)]).cookie().expect("issued");
    let victim = world.visit(&planted, &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued");
    assert_eq!(world.visit(&victim, &[]).upstream("x-session-subject"), "alice");
    let seen = world.visit(&attacker, &[]);
    assert_eq!((seen.upstream("x-session-subject"), seen.upstream("x-session-state")), ("", "expired"));
}

/// What an upstream says of a step that is no login to us: it keeps who that is to itself.
const ROTATING: [&[(&str, &str)]; 2] = [
    &[("x-session-control", "rotate"), ("x-session-patch", r#"{"step":"password"}"#)],
    &[("x-session-control", "authenticated"), ("x-session-patch", r#"{"step":"password"}"#)],
];

#[test]
fn no_write_joins_a_session_that_begins_with_a_rotation() {
    for rotating in ROTATING {
        let mut world = World::new(json!({}));
        let planted = world.visit("", &[]).cookie().expect("issued");
        let victim = world.visit(&planted, rotating).cookie().expect("issued");
        for attempt in [&[("x-session-patch", r#"{"a":1}"#)], rotating] {
            let joined = world.visit(&planted, attempt);
            assert_eq!((joined.status(), joined.cookie()), (503, None), "{rotating:?}");
        }
        let seen = world.visit(&victim, &[]);
        assert_eq!((seen.upstream("x-session-state"), seen.upstream("x-session-version")), ("active", "2"));
        assert_eq!(seen.upstream("x-session-data"), r#"{"step":"password"}"#);
    }
}

#[test]
fn a_rotation_that_joins_a_session_spares_no_token_of_it() {
    for rotating in ROTATING {
        let mut world = World::new(json!({}));
        let planted = world.visit("", &[]).cookie().expect("issued");
        let attacker = world.visit(&planted, &[("x-session-patch", r#"{"a":1}"#)]).cookie().expect("issued");
        let victim = world.visit(&planted, rotating).cookie().expect("issued");
        let seen = world.visit(&attacker, &[]);
        assert_eq!((seen.upstream("x-session-state"), seen.upstream("x-session-data")), ("expired", "{}"));
        // It may be late, and its client may have the better token.
        assert_eq!(seen.cookie(), None);
        assert_eq!(world.visit(&victim, &[]).upstream("x-session-state"), "active");
    }
}

#[test]
fn a_session_begun_anew_under_its_old_id_is_not_opened_by_old_tokens() {
    let mut world = World::new(json!({}));
    let planted = world.visit("", &[]).cookie().expect("issued");
    let write = world.visit(&planted, &[("x-session-patch", r#"{"user":"alice"}"#)]);
    let old = write.cookie().expect("issued");
    let id = world.visit(&old, &[]).upstream("x-session-id").to_owned();
    world.gateway.evict(&id);
    world.now += 600;
    // The attacker promotes the planted token again: the same id, another session.
    let attacker = world.visit(&planted, &[("x-session-patch", r#"{"trap":1}"#)]).cookie().expect("issued");
    assert_eq!(world.visit(&attacker, &[]).upstream("x-session-id"), id);
    let victim = world.visit(&old, &[]);
    assert_eq!((victim.upstream("x-session-state"), victim.upstream("x-session-data")), ("expired", "{}"));
    assert!(victim.counts.contains(&Counter::TokenForeign));
}

#[test]
fn eager_commits_the_write_of_a_first_response() {
    let mut world = World::new(json!({"create": "eager"}));
    let first = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]);
    let second = world.visit(&first.cookie().expect("issued"), &[]);
    assert_eq!(second.upstream("x-session-data"), r#"{"n":1}"#);
    assert_eq!(second.upstream("x-session-version"), "2");
}

#[test]
fn destroy_ends_the_session_and_clears_the_cookie() {
    let mut world = World::new(json!({}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    // It wins over a patch in the same response.
    let seen = world.visit(&cookie, &[("x-session-control", "destroy"), ("x-session-patch", r#"{"n":2}"#)]);
    assert_eq!(seen.cookie().as_deref(), Some("sid="));
    assert_eq!(seen.client("x-session-control"), "");
    assert!(seen.client("set-cookie").contains("Max-Age=0"));
    assert!(!world.gateway.calls.iter().any(|call| call.starts_with("PATCH")), "{:?}", world.gateway.calls);
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

#[test]
fn destroy_without_a_stored_session_asks_the_store_nothing() {
    let mut world = World::new(json!({}));
    let destroy = [("x-session-control", "destroy")];
    assert_eq!(world.visit("", &destroy).client_all("set-cookie"), Vec::<&str>::new());
    let anonymous = world.visit("", &[]).cookie().expect("issued");
    assert_eq!(world.visit(&anonymous, &destroy).cookie().as_deref(), Some("sid="));
    assert_eq!(world.gateway.calls, Vec::<String>::new());
}

#[test]
fn a_write_never_brings_an_ended_session_back() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]);
    let (cookie, id) = (first.cookie().expect("issued"), first.upstream("x-session-id").to_owned());
    // Another client logs out while the upstream works.
    let mut exchange = Exchange::new(world.config.clone());
    let request = crate::testing::headers(&[("cookie", &cookie)]);
    let Step::LookUp { look_up, .. } = world.request(&mut exchange, &request) else { panic!("looked up") };
    let look_up = look_up.callout(&world.config);
    assert!(matches!(world.answer(&mut exchange, &look_up), Step::Forward { .. }));
    world.destroy(&id);
    let response = crate::testing::headers(&[("x-session-patch", r#"{"n":2}"#)]);
    let Step::Call(patch) = exchange.response(&response, &world.slots, || world.now()) else { panic!("committed") };
    let Step::Reply(reply) = world.answer(&mut exchange, &patch) else { panic!("refused") };
    assert_eq!(reply.status, 503);
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

#[test]
fn exposed_members_are_headers_that_clients_cannot_set() {
    let mut world = World::new(json!({"upstream": {"expose": {"user": "x-user", "n": "x-count"}}}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"user":"Zo\u00eb","n":3}"#)]).cookie().expect("issued");
    let request = crate::testing::headers(&[("cookie", &cookie), ("x-user", "evil"), ("x_user", "evil")]);
    let seen = world.visit_with(request, &[]);
    assert_eq!(seen.upstream_all("x-user"), ["Zo%C3%AB"]);
    assert_eq!(seen.upstream_all("x_user"), Vec::<&str>::new());
    assert_eq!(seen.upstream("x-count"), "3");
    let anonymous = world.visit_with(crate::testing::headers(&[("x-user", "evil")]), &[]);
    assert_eq!(anonymous.upstream_all("x-user"), Vec::<&str>::new());
}

#[test]
fn data_over_the_limit_is_left_out_and_said_to_be() {
    let mut world = World::new(json!({"upstream": {"max_data_bytes": 9}}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":123}"#)]).cookie().expect("issued");
    let fits = world.visit(&cookie, &[("x-session-patch", r#"{"n":1234}"#)]);
    assert_eq!(fits.upstream("x-session-data"), r#"{"n":123}"#);
    let omitted = world.visit(&fits.cookie().expect("issued"), &[]);
    assert_eq!(omitted.upstream_all("x-session-data"), Vec::<&str>::new());
    assert_eq!(omitted.upstream("x-session-data-omitted"), "10");
}

#[test]
fn an_exposed_member_over_the_limit_is_left_out() {
    let mut world = World::new(json!({"upstream": {"expose": {"name": "x-name"}, "max_data_bytes": 9}}));
    for (name, header) in [("ninebytes", "ninebytes"), ("ten bytes!", ""), ("ääää", "")] {
        let patch = format!(r#"{{"name":"{name}"}}"#);
        let cookie = world.visit("", &[("x-session-patch", &patch)]).cookie().expect("issued");
        assert_eq!(world.visit(&cookie, &[]).upstream("x-name"), header, "{name}");
    }
}
