//! Open streams: as long as a stream is open, its session is in use.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{GatewayState, World, headers};

/// A world in which a session lives for a minute, and a stream that goes on in one of its sessions.
fn streaming(response: &[(&str, &str)]) -> (World, Exchange, String) {
    let mut world = World::new(json!({"timeouts": {"idle": "60s", "touch_after": "10s", "absolute": "1h"}}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let (exchange, cookie) = stream(&mut world, &cookie, response);
    (world, exchange, cookie)
}

fn stream(world: &mut World, cookie: &str, response: &[(&str, &str)]) -> (Exchange, String) {
    let mut exchange = Exchange::new(Rc::clone(&world.config));
    let request = headers(&[(":method", "GET"), (":path", "/"), ("cookie", cookie)]);
    let seen = world.run(&mut exchange, request, response);
    let cookie = seen.cookie().unwrap_or_else(|| cookie.to_owned());
    (exchange, cookie)
}

/// What the edge does now and then: whether a touch was sent.
fn look(world: &mut World, exchange: &mut Exchange) -> bool {
    let Some(look_up) = exchange.due_touch(world.now()) else { return false };
    world.touch(exchange, &look_up);
    true
}

fn state(world: &mut World, cookie: &str) -> String {
    world.visit(cookie, &[]).upstream("x-session-state").to_owned()
}

#[test]
fn a_stream_in_progress_keeps_its_session_alive() {
    let (mut world, mut exchange, cookie) = streaming(&[]);
    let mut touches = 0;
    for _ in 0..200 {
        world.now += 3;
        touches += usize::from(look(&mut world, &mut exchange));
    }
    // Every 12 s, the first multiple of 3 that is not below 10.
    assert_eq!(touches, 50);
    assert_eq!(state(&mut world, &cookie), "active");
    // The stream has ended and is not looked at any more.
    world.now += 60;
    assert_eq!(state(&mut world, &cookie), "expired");
}

#[test]
fn no_stream_outlives_the_absolute_timeout() {
    let (mut world, mut exchange, cookie) = streaming(&[]);
    while exchange.in_use().is_some() {
        world.now += 3;
        look(&mut world, &mut exchange);
        assert!(world.now <= 1_000_000 + 3600 + 12);
    }
    assert_eq!(state(&mut world, &cookie), "expired");
    assert!(!look(&mut world, &mut exchange));
}

#[test]
fn the_session_that_a_stream_wrote_is_the_one_it_uses() {
    let mut world = World::new(json!({"timeouts": {"idle": "60s", "touch_after": "10s"}}));
    let anonymous = world.visit("", &[]).cookie().expect("issued");
    // Until something is stored there is nothing to keep alive.
    let (exchange, _) = stream(&mut world, &anonymous, &[]);
    assert_eq!(exchange.in_use(), None);
    for response in [&[("x-session-patch", r#"{"n":1}"#)][..], &[("x-session-patch", r#"{"user":"zoe"}"#)]] {
        let (mut exchange, cookie) = stream(&mut world, &anonymous, response);
        let stored = exchange.in_use().expect("in use");
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-id"), stored.id.to_string());
        world.now += 40;
        assert!(look(&mut world, &mut exchange));
        world.now += 40;
        assert_eq!(state(&mut world, &cookie), "active");
        world.now += 1000;
    }
}

#[test]
fn a_stream_keeps_no_session_alive_that_its_token_does_not_open() {
    // A logout elsewhere.
    let (mut world, mut exchange, cookie) = streaming(&[]);
    world.visit(&cookie, &[("x-session-control", "destroy")]);
    world.now += 10;
    assert!(look(&mut world, &mut exchange));
    assert_eq!(exchange.in_use(), None);
    assert_eq!(state(&mut world, &cookie), "expired");

    // A login or rotation elsewhere: the stream may belong to another client, which knew the old token.
    for write in [("x-session-patch", r#"{"user":"zoe"}"#), ("x-session-control", "rotate")] {
        let (mut world, mut exchange, cookie) = streaming(&[]);
        let newer = world.visit(&cookie, &[write]).cookie().expect("issued");
        world.now += 10;
        assert!(look(&mut world, &mut exchange));
        assert_eq!((exchange.in_use(), world.gateway.extensions), (None, 0), "the last touch changed nothing, either");
        assert_eq!(state(&mut world, &newer), "active");
    }

    // Its own logout, and its own login.
    let (_, exchange, _) = streaming(&[("x-session-control", "destroy")]);
    assert_eq!(exchange.in_use(), None);
    let (mut world, mut exchange, _) = streaming(&[("x-session-patch", r#"{"user":"zoe"}"#)]);
    world.now += 10;
    assert!(look(&mut world, &mut exchange));
    assert!(exchange.in_use().is_some());
}

#[test]
fn a_touch_that_the_store_did_not_hear_is_made_again() {
    for gateway in [GatewayState::Down, GatewayState::StoreDown] {
        let (mut world, mut exchange, cookie) = streaming(&[]);
        world.gateway.state = gateway;
        world.now += 10;
        assert!(look(&mut world, &mut exchange));
        world.now += 3;
        assert!(look(&mut world, &mut exchange), "it is still due");
        world.gateway.state = GatewayState::Up;
        world.now += 3;
        assert!(look(&mut world, &mut exchange));
        assert!(!look(&mut world, &mut exchange));
        world.now += 59;
        assert_eq!(state(&mut world, &cookie), "active");
    }
}

/// A stream whose edge looks at it every so often, since some moment.
struct Looked {
    exchange: Exchange,
    since: u64,
    until: u64,
}

proptest! {
    /// Streams in several Envoys and requests between them, whatever the timeouts are: the session lives, and the store
    /// writes no more often than it would for requests alone.
    #[test]
    fn the_store_hears_of_streams_in_time_and_no_more_often_than_it_needs(
        (idle, touch_after) in (4..40_u64).prop_flat_map(|idle| (Just(idle), 0..idle)),
        others in proptest::collection::vec((0..300_u64, 1..100_u64), 0..8),
        requests in proptest::collection::vec(0..400_u64, 0..20),
    ) {
        let mut world = World::new(json!({"timeouts": {
            "idle": format!("{idle}s"), "touch_after": format!("{touch_after}s"), "rotation_grace": "1s", "absolute": "1h"
        }}));
        let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
        let apart = world.config.timeouts.stream_touch_after().get();
        let look_every = (apart / 4).max(1);
        let mut streams: Vec<Looked> = Vec::new();
        for second in 0..400 {
            world.now += 1;
            // One goes on all the time.
            for (begin, length) in [(0, 400)].iter().chain(&others) {
                if *begin == second {
                    let (exchange, _) = stream(&mut world, &cookie, &[]);
                    streams.push(Looked { exchange, since: world.now, until: world.now + length });
                }
            }
            streams.retain(|stream| world.now < stream.until);
            for Looked { exchange, since, .. } in &mut streams {
                if (world.now - *since).is_multiple_of(look_every) {
                    look(&mut world, exchange);
                }
                prop_assert!(exchange.in_use().is_some(), "it has ended after {second} s");
            }
            if requests.contains(&second) {
                prop_assert_eq!(state(&mut world, &cookie), "active");
            }
        }
        let most = 400 / apart.max(1) + 1;
        prop_assert!(world.gateway.extensions as u64 <= most, "{} extensions, {most} were enough", world.gateway.extensions);
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_the_touches() {
    let (mut world, mut exchange, _) = streaming(&[]);
    world.now -= 1000;
    assert!(exchange.due_touch(world.now()).is_some());
    look(&mut world, &mut exchange);
    assert_eq!(exchange.due_touch(world.now()), None);
}
