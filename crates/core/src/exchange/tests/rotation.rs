//! Versions: rotation, the grace, and logins.

use serde_json::json;

use super::world::World;
use super::*;

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
    assert_eq!(world.visit(&rotated, &[]).upstream("x-session-version"), "1");
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
