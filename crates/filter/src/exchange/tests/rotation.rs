//! Versions: rotation, the grace, and logins.

use serde_json::json;

use super::*;
use crate::testing::World;

const ROTATE: &[(&str, &str)] = &[("x-session-control", "rotate")];

#[test]
fn rotation_keeps_the_session_and_ends_old_tokens_after_the_grace() {
    let mut world = World::new(json!({"timeouts": {"rotation_grace": "10s"}}));
    let first = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]);
    let old = first.cookie().expect("issued");
    let new = world.visit(&old, ROTATE).cookie().expect("rotated");
    assert_ne!(old, new);

    world.now += 9;
    let in_grace = world.visit(&old, &[]);
    assert_eq!((in_grace.upstream("x-session-state"), in_grace.cookie()), ("active", None));
    world.now += 1;
    let refused = world.visit(&old, &[]);
    assert_eq!(refused.upstream("x-session-state"), "expired");
    assert_ne!(refused.upstream("x-session-id"), first.upstream("x-session-id"));
    assert!(refused.counts.contains(&Counter::TokenRotated));

    let seen = world.visit(&new, &[]);
    assert_eq!(seen.upstream("x-session-id"), first.upstream("x-session-id"));
    assert_eq!(seen.upstream("x-session-data"), r#"{"n":1}"#);
}

#[test]
fn rotating_often_keeps_no_old_token_alive() {
    let mut world = World::new(json!({}));
    let oldest = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let mut cookie = world.visit(&oldest, ROTATE).cookie().expect("rotated");
    for _ in 0..5 {
        world.now += 5;
        cookie = world.visit(&cookie, ROTATE).cookie().expect("rotated");
    }
    assert_eq!(world.visit(&oldest, &[]).upstream("x-session-state"), "expired");
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "active");
}

#[test]
fn rotating_an_anonymous_session_stores_it() {
    let mut world = World::new(json!({}));
    let anonymous = world.visit("", &[]).cookie().expect("issued");
    let rotated = world.visit(&anonymous, ROTATE).cookie().expect("rotated");
    assert_eq!(world.visit(&rotated, &[]).upstream("x-session-version"), "2");
}

#[test]
fn a_login_ends_older_tokens_at_once_and_late_answers_keep_the_new_cookie() {
    let mut world = World::new(json!({}));
    let before = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]);
    let old = before.cookie().expect("issued");
    let new = world.visit(&old, &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued");

    // A request that was on its way during the login sees nothing of it, and its answer sets no cookie.
    let late = world.visit(&old, &[]);
    assert_eq!(late.upstream("x-session-state"), "expired");
    assert_eq!(late.upstream("x-session-subject"), "");
    assert_eq!(late.client_all("set-cookie"), Vec::<&str>::new());

    let after = world.visit(&new, &[]);
    assert_eq!(after.upstream("x-session-subject"), "alice");
    assert_eq!(after.upstream("x-session-id"), before.upstream("x-session-id"));

    // Once no answer can be late any more, the stale cookie is replaced.
    world.now += 11;
    assert!(world.visit(&old, &[]).cookie().is_some());
}

#[test]
fn a_logout_by_data_ends_older_tokens_too() {
    let mut world = World::new(json!({}));
    let old = world.visit("", &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued");
    let new = world.visit(&old, &[("x-session-patch", r#"{"user":null}"#)]).cookie().expect("issued");
    assert_eq!(world.visit(&old, &[]).upstream("x-session-state"), "expired");
    assert_eq!(world.visit(&new, &[]).upstream("x-session-state"), "active");
}

#[test]
fn a_write_in_the_grace_does_not_end_it() {
    let mut world = World::new(json!({}));
    let old = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let new = world.visit(&old, ROTATE).cookie().expect("rotated");
    world.visit(&new, &[("x-session-patch", r#"{"n":2}"#)]);
    assert_eq!(world.visit(&old, &[]).upstream("x-session-data"), r#"{"n":2}"#);
    world.now += 10;
    assert_eq!(world.visit(&old, &[]).upstream("x-session-state"), "expired");
}

/// A request that is with its upstream; the callout that its answer leads to.
struct UnderWay {
    exchange: Exchange,
}

impl UnderWay {
    fn begin(world: &mut World, cookie: &str) -> Self {
        let mut exchange = Exchange::new(world.config.clone());
        let request = crate::testing::headers(&[("cookie", cookie)]);
        let Step::LookUp { look_up, .. } = world.request(&mut exchange, &request) else { panic!("looked up") };
        let callout = look_up.callout(&world.config);
        assert!(matches!(world.answer(&mut exchange, &callout), Step::Forward { .. }));
        Self { exchange }
    }

    fn end(mut self, world: &mut World, response: &[(&str, &str)]) -> Step {
        let now = world.now();
        let response = crate::testing::headers(response);
        let Step::Call(callout) = self.exchange.response(&response, &world.slots, || now) else { panic!("committed") };
        world.answer(&mut self.exchange, &callout)
    }
}

fn has_cookie(step: &Step) -> bool {
    match step {
        Step::Deliver(edits) => edits.iter().any(|edit| matches!(edit, Edit::Add("set-cookie", _))),
        Step::Reply(reply) => reply.headers.iter().any(|(name, _)| *name == "set-cookie"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_under_way_during_a_login_gains_nothing_from_it() {
    for wait in [0, 30] {
        let mut world = World::new(json!({}));
        let planted = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
        let attacker = UnderWay::begin(&mut world, &planted);
        let victim = world.visit(&planted, &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued");
        world.now += wait;
        let step = attacker.end(&mut world, &[("x-session-patch", r#"{"trap":1}"#)]);
        assert!(matches!(&step, Step::Reply(reply) if reply.status == 503), "{step:?}");
        assert!(!has_cookie(&step));
        assert_eq!(world.visit(&victim, &[]).upstream("x-session-data"), r#"{"n":1,"user":"alice"}"#);
    }
}

#[test]
fn a_token_in_its_grace_writes_but_does_not_become_a_good_one() {
    let mut world = World::new(json!({}));
    let old = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let new = world.visit(&old, ROTATE).cookie().expect("rotated");
    let write = world.visit(&old, &[("x-session-patch", r#"{"n":2}"#)]);
    assert_eq!((write.status(), write.cookie()), (200, None));
    // Nor can it be used to log in, or to rotate the good one away.
    for response in [("x-session-patch", r#"{"user":"alice"}"#), ("x-session-control", "rotate")] {
        let seen = world.visit(&old, &[response]);
        assert_eq!((seen.status(), seen.cookie()), (503, None), "{response:?}");
    }
    assert_eq!(world.visit(&new, &[]).upstream("x-session-data"), r#"{"n":2}"#);
}
