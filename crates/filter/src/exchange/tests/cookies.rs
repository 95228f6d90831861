//! When a client gets a cookie, and what upstreams see of it.

use serde_json::json;

use super::*;
use crate::testing::World;

const WRITE: &[(&str, &str)] = &[("x-session-patch", r#"{"n":1}"#)];

#[test]
fn lazy_gives_a_cookie_at_once_and_asks_the_store_nothing_before_a_write() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[]);
    assert_eq!(first.upstream("x-session-state"), "new");
    assert_eq!(first.upstream("x-session-version"), "0");
    assert_eq!(first.upstream("x-session-data"), "{}");
    let cookie = first.cookie().expect("issued");

    let second = world.visit(&cookie, &[]);
    assert_eq!(second.upstream("x-session-state"), "active");
    assert_eq!(second.upstream("x-session-id"), first.upstream("x-session-id"));
    assert_eq!(second.upstream_all("cookie"), Vec::<&str>::new());
    assert_eq!(second.cookie(), None);
    assert_eq!(world.gateway.calls, Vec::<String>::new());
}

#[test]
fn eager_stores_the_session_before_the_client_gets_its_cookie() {
    let mut world = World::new(json!({"create": "eager"}));
    let first = world.visit("", &[]);
    assert_eq!(first.upstream("x-session-state"), "new");
    let id = first.upstream("x-session-id").to_owned();
    assert_eq!(world.gateway.calls, [format!("PUT /v1/sessions/{id}")]);

    let second = world.visit(&first.cookie().expect("issued"), &[]);
    assert_eq!(second.upstream("x-session-state"), "active");
    assert_eq!(second.upstream("x-session-id"), id);
    assert_eq!(second.upstream("x-session-version"), "1");
    assert_eq!(second.cookie(), None);
}

#[test]
fn eager_holds_the_response_until_the_session_is_stored() {
    let mut world = World::new(json!({"create": "eager"}));
    let mut exchange = Exchange::new(world.config.clone());
    let Step::Forward { callout: Some(create), .. } = world.request(&mut exchange, &[]) else {
        panic!("forwarded, with a callout");
    };
    assert_eq!(exchange.response(&Vec::new(), &world.slots, || world.now()), Step::Hold);
    let Step::Deliver(edits) = world.answer(&mut exchange, &create) else { panic!("delivered") };
    assert!(edits.iter().any(|edit| matches!(edit, Edit::Add("set-cookie", _))));
}

#[test]
fn on_write_gives_no_cookie_before_a_write() {
    let mut world = World::new(json!({"create": "on_write"}));
    let read = world.visit("", &[]);
    assert_eq!((read.upstream("x-session-state"), read.cookie()), ("new", None));
    assert_eq!(world.gateway.calls, Vec::<String>::new());

    let write = world.visit("", WRITE);
    let id = write.upstream("x-session-id").to_owned();
    let after = world.visit(&write.cookie().expect("issued"), &[]);
    assert_eq!(after.upstream("x-session-id"), id);
    assert_eq!(after.upstream("x-session-data"), r#"{"n":1}"#);
}

#[test]
fn a_session_that_is_gone_is_said_to_be() {
    for create in ["lazy", "eager", "on_write"] {
        let mut world = World::new(json!({"create": create}));
        let first = world.visit("", WRITE);
        let id = first.upstream("x-session-id").to_owned();
        world.gateway.evict(&id);
        let after = world.visit(&first.cookie().expect("issued"), &[]);
        assert_eq!(after.upstream("x-session-state"), "expired", "{create}");
        assert_ne!(after.upstream("x-session-id"), id, "{create}");
        assert_eq!(after.upstream("x-session-data"), "{}", "{create}");
        let cookie = after.cookie().expect("replaced");
        assert_eq!(cookie == "sid=", create == "on_write", "{create}: {cookie}");
    }
}

#[test]
fn other_cookies_stay_as_they_are() {
    let mut world = World::new(json!({}));
    let cookie = world.visit("", &[]).cookie().expect("issued");
    let seen = world.visit(&format!("a=1; {cookie}; b=\"2\""), &[]);
    assert_eq!(seen.upstream_all("cookie"), ["a=1; b=\"2\""]);
    assert_eq!(seen.upstream("x-session-state"), "active");
}

#[test]
fn a_second_cookie_of_our_name_does_not_hide_the_good_one() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[]);
    let id = first.upstream("x-session-id").to_owned();
    let seen = world.visit(&format!("sid=tossed; {}", first.cookie().expect("issued")), &[]);
    assert_eq!(seen.upstream("x-session-id"), id);
    assert!(seen.counts.contains(&Counter::TokenMalformed));
}

#[test]
fn an_anonymous_token_ends_with_the_absolute_timeout() {
    let mut world = World::new(json!({"timeouts": {"absolute": "1h"}}));
    let first = world.visit("", &[]);
    world.now += 3599;
    let id = first.upstream("x-session-id").to_owned();
    assert_eq!(world.visit(&first.cookie().expect("issued"), &[]).upstream("x-session-id"), id);
    world.now += 1;
    let late = world.visit(&first.cookie().expect("issued"), &[]);
    assert_eq!(late.upstream("x-session-state"), "new");
    assert!(late.counts.contains(&Counter::TokenTooOld));
}

#[test]
fn a_cookie_with_a_max_age_is_renewed_before_the_browser_drops_it() {
    let mut world = World::new(json!({"cookie": {"name": "sid", "max_age": "1h"}}));
    let first = world.visit("", WRITE).cookie().expect("issued");
    world.now += 1799;
    assert_eq!(world.visit(&first, &[]).cookie(), None);
    world.now += 1;
    let renewed = world.visit(&first, &[]).cookie().expect("renewed");
    assert_ne!(renewed, first);
    assert_eq!(world.visit(&renewed, &[]).upstream("x-session-data"), r#"{"n":1}"#);
}

#[test]
fn an_anonymous_token_keeps_its_age() {
    let old = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let new = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let timeouts = json!({"idle": "30m", "absolute": "1h"});
    let cookie = json!({"name": "sid", "max_age": "30m"});
    let mut world = World::new(json!({"secrets": [old], "cookie": cookie, "timeouts": timeouts}));
    let first = world.visit("", &[]);
    world.now += 1800;
    assert_eq!(world.visit(&first.cookie().expect("issued"), &[]).cookie(), None);

    world.config = crate::testing::config(json!({"secrets": [new, old], "cookie": cookie, "timeouts": timeouts}));
    // It ends by its age before its secret may go, and a late answer that signs it anew could undo a login.
    let token = first.cookie().expect("issued");
    assert_eq!(world.visit(&token, &[]).cookie(), None);
    world.now += 1799;
    assert_eq!(world.visit(&token, &[]).upstream("x-session-id"), first.upstream("x-session-id"));
    world.now += 1;
    assert_eq!(world.visit(&token, &[]).upstream("x-session-state"), "new");
}

#[test]
fn a_token_of_an_older_secret_is_replaced() {
    let old = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let new = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let mut world = World::new(json!({"secrets": [old]}));
    let first = world.visit("", WRITE);
    world.config = crate::testing::config(json!({"secrets": [new, old]}));
    let second = world.visit(&first.cookie().expect("issued"), &[]);
    assert_eq!(second.upstream("x-session-data"), r#"{"n":1}"#);

    world.config = crate::testing::config(json!({"secrets": [new]}));
    let third = world.visit(&second.cookie().expect("replaced"), &[]);
    assert_eq!(third.upstream("x-session-data"), r#"{"n":1}"#);
    assert_eq!(third.cookie(), None);
}

#[test]
fn a_response_with_our_cookie_is_kept_from_shared_caches() {
    let mut world = World::new(json!({}));
    let first = world.visit("", &[("cache-control", "public, max-age=60")]);
    assert_eq!(first.client_all("cache-control"), ["max-age=60, private"]);
    let second = world.visit(&first.cookie().expect("issued"), &[("cache-control", "public, max-age=60")]);
    assert_eq!(second.client_all("cache-control"), ["public, max-age=60"]);
}

#[test]
fn an_upstream_cannot_set_our_cookie() {
    let mut world = World::new(json!({}));
    let cookie = world.visit("", &[]).cookie().expect("issued");
    let seen =
        world.visit(&cookie, &[("set-cookie", "a=1"), ("set-cookie", "sid=evil; Path=/"), ("set-cookie", "b=2")]);
    assert_eq!(seen.client_all("set-cookie"), ["a=1", "b=2"]);
}

/// Browsers send a cookie without a name as its value alone.
#[test]
fn an_upstream_cannot_set_our_cookie_without_a_name() {
    let mut world = World::new(json!({}));
    let token = world.visit("", WRITE).cookie().expect("issued");
    for line in [format!("={token}; Path=/"), format!(" = {token}"), format!("=={token}")] {
        let seen = world.visit("a=1", &[("set-cookie", &line), ("set-cookie", "b=2")]);
        assert!(!seen.client_all("set-cookie").iter().any(|set| set.contains(&token)), "{line}");
        assert!(seen.client_all("set-cookie").contains(&"b=2"));
    }
}

#[test]
fn adoption_gives_the_upstream_our_id_as_its_own() {
    let mut world = World::new(json!({"create": "eager", "upstream": {"cookie": "JSESSIONID"}}));
    let mut request = crate::testing::headers(&[("cookie", "JSESSIONID=planted; a=1")]);
    let first =
        world.visit_with(request.clone(), &[("set-cookie", "JSESSIONID=00000000000000000000000000000001; Path=/")]);
    let id = first.upstream("x-session-id").to_owned();
    assert_eq!(first.upstream_all("cookie"), [format!("JSESSIONID={id}; a=1")]);
    assert!(!first.client_all("set-cookie").iter().any(|line| line.contains("JSESSIONID")));

    // Without any other cookie the upstream still gets its own.
    let cookie = first.cookie().expect("issued");
    let second = world.visit(&cookie, &[]);
    assert_eq!(second.upstream_all("cookie"), [format!("JSESSIONID={id}")]);
    assert_eq!(second.cookie(), None);

    // Tomcat renews its id at login: a rotation, and from now on every upstream gets the new value.
    let login = world.visit(&cookie, &[("set-cookie", "JSESSIONID=RENEWED; Path=/; HttpOnly")]);
    let renewed = login.cookie().expect("rotated");
    assert!(!login.client_all("set-cookie").iter().any(|line| line.contains("JSESSIONID")));
    request[0].1 = renewed.as_bytes().to_vec();
    let after = world.visit_with(request, &[("set-cookie", "JSESSIONID=RENEWED; Path=/")]);
    assert_eq!(after.upstream_all("cookie"), ["JSESSIONID=RENEWED"]);
    assert_eq!(after.upstream("x-session-id"), id);
    assert_eq!(after.cookie(), None);
    world.now += 11;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}
