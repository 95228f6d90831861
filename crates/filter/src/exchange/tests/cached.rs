//! The cache: fewer calls, and never a copy that is older than what the client has seen.

use serde_json::json;

use super::*;
use crate::testing::{GatewayState, World, borrowed};

fn cached(changes: &serde_json::Value) -> (World, String) {
    let mut config = json!({"cache": {"ttl": "5s", "stale_if_error": "60s", "slots": 1024}});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let mut world = World::new(config);
    let cookie = write(&mut world, "", r#"{"n":1}"#);
    world.gateway.calls.clear();
    (world, cookie)
}

fn write(world: &mut World, cookie: &str, patch: &str) -> String {
    world.visit(cookie, &[("x-session-patch", patch)]).cookie().expect("issued")
}

#[test]
fn a_copy_saves_the_call_for_its_time_to_live() {
    let (mut world, cookie) = cached(&json!({}));
    for _ in 0..3 {
        let seen = world.visit(&cookie, &[]);
        assert_eq!(seen.upstream("x-session-data"), r#"{"n":1}"#);
        assert_eq!(seen.upstream("x-session-version"), "1");
        assert!(seen.counts.contains(&Counter::CacheHit));
    }
    assert_eq!(world.gateway.calls, Vec::<String>::new());
    world.now += 5;
    assert!(world.visit(&cookie, &[]).counts.contains(&Counter::CacheMiss));
    assert_eq!(world.gateway.calls.len(), 1);
}

#[test]
fn what_a_copy_says_is_what_the_gateway_said() {
    let changes = json!({"upstream": {"expose": {"user": "x-user"}, "max_data_bytes": 30}});
    let (mut world, cookie) = cached(&changes);
    let patch = r#"{"user":"Zo\u00eb","more":"than fits into the header"}"#;
    let cookie = write(&mut world, &cookie, patch);
    world.slots.0.clear();
    let asked = world.visit(&cookie, &[]);
    let copied = world.visit(&cookie, &[]);
    assert!(copied.counts.contains(&Counter::CacheHit));
    for name in ["x-session-id", "x-session-version", "x-session-subject", "x-session-data-omitted", "x-user"] {
        assert_ne!(asked.upstream(name), "", "{name}");
        assert_eq!(asked.upstream(name), copied.upstream(name), "{name}");
    }
}

#[test]
fn a_client_never_misses_its_own_write_on_another_proxy() {
    let (mut here, cookie) = cached(&json!({}));
    here.visit(&cookie, &[]);
    let copies_of_here = std::mem::take(&mut here.slots.0);
    // The same client writes through a proxy with a cache of its own.
    let newer = write(&mut here, &cookie, r#"{"n":2}"#);
    here.slots.0 = copies_of_here;
    assert_eq!(here.visit(&newer, &[]).upstream("x-session-data"), r#"{"n":2}"#);
}

#[test]
fn a_logout_here_is_seen_at_once_and_elsewhere_within_the_time_to_live() {
    let (mut world, cookie) = cached(&json!({}));
    world.visit(&cookie, &[]);
    let elsewhere = world.slots.0.clone();
    world.visit(&cookie, &[("x-session-control", "destroy")]);
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");

    world.slots.0 = elsewhere;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "active");
    world.now += 5;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

#[test]
fn an_answer_from_before_a_logout_does_not_bring_the_copy_back() {
    let (mut world, cookie) = cached(&json!({}));
    world.now += 5;
    let mut slow = Exchange::new(world.config.clone());
    let request = crate::testing::headers(&[("cookie", &cookie)]);
    let Step::LookUp { look_up, .. } = world.request(&mut slow, &request) else { panic!("looked up") };
    let callout = look_up.callout(&world.config);
    world.answer(&mut slow, &callout);
    let late = slow.take_effects().cache.expect("kept");

    world.visit(&cookie, &[("x-session-control", "destroy")]);
    let mark = &world.slots.0[&late.slot];
    assert!(!crate::cache::replaces(mark, &late.value));
}

#[test]
fn a_rotated_token_is_refused_from_the_copy_too() {
    let (mut world, cookie) = cached(&json!({"timeouts": {"rotation_grace": "1s"}}));
    world.visit(&cookie, &[("x-session-control", "rotate")]);
    world.gateway.calls.clear();
    world.now += 1;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
    assert_eq!(world.gateway.calls, Vec::<String>::new());
}

#[test]
fn an_old_copy_serves_through_an_outage_for_a_while() {
    for gateway in [GatewayState::Down, GatewayState::Unreachable, GatewayState::StoreDown] {
        let (mut world, cookie) = cached(&json!({}));
        world.gateway.state = gateway;
        world.now += 64;
        let seen = world.visit(&cookie, &[]);
        assert_eq!(seen.upstream("x-session-data"), r#"{"n":1}"#);
        assert!(seen.counts.contains(&Counter::RequestStale));
        world.now += 1;
        assert_eq!(world.visit(&cookie, &[]).status(), 503);
    }
}

#[test]
fn an_old_copy_never_hides_the_clients_own_write() {
    let (mut world, cookie) = cached(&json!({}));
    let copies = world.slots.0.clone();
    let newer = write(&mut world, &cookie, r#"{"n":2}"#);
    world.slots.0 = copies;
    world.gateway.state = GatewayState::Down;
    assert_eq!(world.visit(&newer, &[]).status(), 503);
}

#[test]
fn a_session_that_is_gone_is_not_served_from_an_old_copy() {
    let (mut world, cookie) = cached(&json!({}));
    let id = world.visit(&cookie, &[]).upstream("x-session-id").to_owned();
    world.destroy(&id);
    world.now += 5;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

#[test]
fn a_copy_ends_with_its_session() {
    let timeouts = json!({"timeouts": {"idle": "8s", "absolute": "8s", "touch_after": "1s", "rotation_grace": "0s"}});
    let (mut world, cookie) = cached(&timeouts);
    world.now += 6;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "active");
    world.now += 2;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

#[test]
fn a_session_in_use_is_touched_without_holding_the_request() {
    let changes = json!({
        "cache": {"ttl": "10m", "stale_if_error": "0s"},
        "timeouts": {"idle": "30m", "touch_after": "1m"}
    });
    let (mut world, cookie) = cached(&changes);
    world.now += 59;
    assert_eq!(world.visit(&cookie, &[]).effects.refresh, None);
    world.now += 1;
    let seen = world.visit(&cookie, &[]);
    assert_eq!(world.gateway.calls, Vec::<String>::new());
    let look_up = seen.effects.refresh.expect("due");
    assert_eq!(look_up.id.to_string(), seen.upstream("x-session-id"));
    assert!(look_up.callout(&world.config).headers.iter().any(|(_, value)| value.ends_with("?touch")));
}

#[test]
fn a_refresh_renews_the_copy_or_marks_the_end() {
    const ID: &str = "01010101010101010101010101010101";
    let (world, _) = cached(&json!({}));
    let look_up = LookUp { id: SessionId::from_bytes([1; 16]), seen: Version::FIRST };
    let refresh = |headers: &[(&str, &str)]| {
        let headers = crate::testing::headers(headers);
        look_up.refresh(&world.config, Answer::Received { headers: &borrowed(&headers), body: b"{}" }, world.now())
    };
    let session = [
        (":status", "200"),
        ("session-gateway", "1"),
        ("session-id", ID),
        ("etag", "\"2\""),
        ("session-min-version", "1"),
        ("session-created", "1"),
        ("session-expires", "9"),
    ];
    let renewed = refresh(&session).expect("renewed");
    let marked = refresh(&[(":status", "404"), ("session-gateway", "1"), ("session-id", ID)]).expect("marked");
    assert_eq!(renewed.slot, marked.slot);
    assert!(crate::cache::replaces(&renewed.value, &marked.value));
    assert_eq!(refresh(&[(":status", "503")]), None);
    // Of another session, or of none.
    assert_eq!(refresh(&[(":status", "404"), ("session-gateway", "1"), ("session-id", &ID.replace("01", "02"))]), None);
    assert_eq!(refresh(&[(":status", "404"), ("session-gateway", "1")]), None);
}

#[test]
fn a_time_to_live_of_zero_turns_the_cache_off() {
    let mut world = World::new(json!({"cache": {"ttl": "0s"}}));
    let cookie = write(&mut world, "", r#"{"n":1}"#);
    world.visit(&cookie, &[]);
    assert!(world.slots.0.is_empty());
}

/// Two filters that share Envoy's data, or one whose limit was lowered.
#[test]
fn a_copy_of_another_limit_is_none() {
    let world_with = |limit: usize| World::new(json!({"cache": {"ttl": "30s"}, "upstream": {"max_data_bytes": limit}}));
    let mut world = world_with(900);
    let patch = format!(r#"{{"a":"{}"}}"#, "x".repeat(500));
    let cookie = world.visit("", &[("x-session-patch", &patch)]).cookie().unwrap();
    assert_eq!(world.visit(&cookie, &[]).upstream_all("x-session-data").len(), 1);
    world.config = world_with(100).config;
    assert_eq!(world.visit(&cookie, &[]).upstream_all("x-session-data"), [""; 0]);
}

#[test]
fn copies_are_bounded_by_their_slots() {
    let mut world = World::new(json!({"cache": {"slots": 4}}));
    for _ in 0..100 {
        write(&mut world, "", r#"{"n":1}"#);
    }
    assert!(world.slots.0.len() <= 4);
}
