//! When the store does not answer: no user is logged out, and nothing seems to be saved that is not.

use serde_json::json;

use super::*;
use crate::testing::{GatewayState, World};

const OUTAGES: [GatewayState; 3] = [GatewayState::Down, GatewayState::Unreachable, GatewayState::StoreDown];
const WRITE: &[(&str, &str)] = &[("x-session-patch", r#"{"n":2}"#)];

fn stored(policies: serde_json::Value) -> (World, String) {
    let mut world = World::new(policies);
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    (world, cookie)
}

#[test]
fn reads_are_denied_without_touching_the_cookie() {
    for outage in OUTAGES {
        let (mut world, cookie) = stored(json!({}));
        world.gateway.state = outage;
        let seen = world.visit(&cookie, &[]);
        assert!(!seen.was_forwarded());
        assert_eq!((seen.status(), seen.client("retry-after")), (503, "1"));
        assert_eq!(seen.client_all("set-cookie"), Vec::<&str>::new());
        assert!(seen.counts.contains(&Counter::RequestDenied));

        world.gateway.state = GatewayState::Up;
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-data"), r#"{"n":1}"#);
    }
}

#[test]
fn reads_continue_without_data_and_without_touching_the_cookie() {
    for outage in OUTAGES {
        let (mut world, cookie) = stored(json!({"on_store_failure": "continue"}));
        world.gateway.state = outage;
        let seen = world.visit(&cookie, &[]);
        assert_eq!(seen.upstream("x-session-state"), "unavailable");
        assert_eq!(seen.upstream("x-session-id").len(), 32);
        assert_eq!(seen.upstream_all("x-session-data"), Vec::<&str>::new());
        assert_eq!(seen.client_all("set-cookie"), Vec::<&str>::new());
    }
}

#[test]
fn anonymous_visitors_do_not_notice_an_outage() {
    let mut world = World::new(json!({}));
    world.gateway.state = GatewayState::Down;
    let first = world.visit("", &[]);
    assert_eq!(first.status(), 200);
    assert_eq!(world.visit(&first.cookie().expect("issued"), &[]).upstream("x-session-state"), "active");
}

#[test]
fn a_write_that_cannot_be_committed_fails() {
    for outage in OUTAGES {
        let (mut world, cookie) = stored(json!({"on_store_failure": "continue"}));
        world.gateway.state = outage;
        let seen = world.visit(&cookie, WRITE);
        assert_eq!((seen.status(), seen.client("x-session-error")), (503, "store-unavailable"));
        assert_eq!(seen.client_all("set-cookie"), Vec::<&str>::new());
        assert!(seen.counts.contains(&Counter::WriteUnavailable));
    }
}

#[test]
fn a_write_that_cannot_be_committed_is_delivered_with_an_error() {
    for outage in OUTAGES {
        let (mut world, cookie) = stored(json!({"on_store_failure": "continue", "on_write_failure": "deliver"}));
        world.gateway.state = outage;
        let seen = world.visit(&cookie, WRITE);
        assert_eq!((seen.status(), seen.client("x-session-error")), (200, "store-unavailable"));
        assert_eq!(seen.client_all("x-session-patch"), Vec::<&str>::new());
        assert_eq!(seen.client_all("set-cookie"), Vec::<&str>::new());
    }
}

#[test]
fn eager_gives_no_cookie_for_a_session_that_is_not_stored() {
    let mut world = World::new(json!({"create": "eager"}));
    world.gateway.state = GatewayState::Down;
    assert_eq!(world.visit("", &[]).status(), 503);

    world.config = crate::testing::config(json!({"create": "eager", "on_store_failure": "continue"}));
    let seen = world.visit("", &[]);
    assert_eq!((seen.status(), seen.cookie()), (200, None));
    let write = world.visit("", WRITE);
    assert_eq!((write.status(), write.cookie()), (503, None));
}

#[test]
fn a_logout_that_cannot_be_committed_is_not_claimed() {
    let (mut world, cookie) = stored(json!({"on_store_failure": "continue"}));
    world.gateway.state = GatewayState::Down;
    let seen = world.visit(&cookie, &[("x-session-control", "destroy")]);
    assert_eq!((seen.status(), seen.cookie()), (503, None));
}

#[test]
fn an_upstreams_nonsense_is_its_own_fault() {
    for (name, value) in [
        ("x-session-patch", "{"),
        ("x-session-patch", "[1]"),
        ("x-session-patch", ""),
        ("x-session-control", "explode"),
    ] {
        let (mut world, cookie) = stored(json!({}));
        let seen = world.visit(&cookie, &[(name, value)]);
        assert_eq!((seen.status(), seen.client("x-session-error")), (502, "invalid-patch"), "{name}: {value}");
        assert!(seen.counts.contains(&Counter::WriteInvalid));

        world.config = crate::testing::config(json!({"on_write_failure": "deliver"}));
        // One good patch beside a bad one is not applied either.
        let seen = world.visit(&cookie, &[(name, value), ("x-session-patch", r#"{"n":9}"#)]);
        assert_eq!((seen.status(), seen.client("x-session-error")), (200, "invalid-patch"));
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-data"), r#"{"n":1}"#);
    }
}

#[test]
fn data_that_is_too_large_is_the_upstreams_fault() {
    let (mut world, cookie) = stored(json!({}));
    let patch = format!(r#"{{"big":"{}"}}"#, "x".repeat(1000));
    let seen = world.visit(&cookie, &[("x-session-patch", &patch)]);
    assert_eq!((seen.status(), seen.client("x-session-error")), (502, "data-too-large"));
}

#[test]
fn an_upstream_cannot_claim_an_error_of_ours() {
    let (mut world, cookie) = stored(json!({}));
    let seen = world.visit(&cookie, &[("x-session-error", "store-unavailable")]);
    assert_eq!(seen.client_all("x-session-error"), Vec::<&str>::new());
}
