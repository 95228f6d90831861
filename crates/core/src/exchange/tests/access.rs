//! Rules for paths, and tokens that are bound to their client.

use serde_json::json;

use super::world::{Gateway, World, headers};
use super::*;

fn world() -> World {
    World::new(json!({
        "cache": {"ttl": "5s"},
        "on_store_failure": "continue",
        "rules": [
            {"path_prefix": "/static/", "session": "off"},
            {"path_prefix": "/account/", "session": "required", "redirect": "/login"},
            {"path_prefix": "/api/", "session": "required"},
            {"path_prefix": "/admin/", "session": "strict"},
        ]
    }))
}

fn login(world: &mut World) -> String {
    world.visit("", &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued")
}

fn get(world: &mut World, path: &str, cookie: &str, response: &[(&str, &str)]) -> super::world::Seen {
    world.visit_with(headers(&[(":method", "GET"), (":path", path), ("cookie", cookie)]), response)
}

#[test]
fn off_has_no_session_and_lets_nothing_through() {
    let mut world = world();
    let cookie = login(&mut world);
    let request =
        headers(&[(":path", "/static/a.css"), ("cookie", &format!("a=1; {cookie}")), ("x-session-subject", "root")]);
    let response = [("x-session-patch", r#"{"n":1}"#), ("set-cookie", "sid=evil"), ("set-cookie", "b=2")];
    let seen = world.visit_with(request, &response);
    assert_eq!(seen.upstream_all("cookie"), ["a=1"]);
    for name in ["x-session-id", "x-session-subject", "x-session-state"] {
        assert_eq!(seen.upstream_all(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(seen.client_all("set-cookie"), ["b=2"]);
    assert_eq!(seen.client_all("x-session-patch"), Vec::<&str>::new());
    assert!(seen.counts.contains(&Counter::RequestOff));
}

#[test]
fn required_lets_only_subjects_through() {
    let mut world = world();
    let anonymous = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let lazy = world.visit("", &[]).cookie().expect("issued");
    for cookie in ["", "sid=forged", &anonymous, &lazy] {
        let seen = get(&mut world, "/account/x?y=1", cookie, &[]);
        assert!(!seen.was_forwarded());
        assert_eq!((seen.status(), seen.client("location")), (302, "/login?return_to=/account/x%3Fy%3D1"));
        let seen = get(&mut world, "/api/x", cookie, &[]);
        assert_eq!((seen.status(), seen.client_all("set-cookie").len()), (401, 0));
        assert!(seen.counts.contains(&Counter::RequestLogin));
    }
    let cookie = login(&mut world);
    assert_eq!(get(&mut world, "/account/x", &cookie, &[]).upstream("x-session-subject"), "alice");
    assert_eq!(get(&mut world, "//API/%2e/x", &cookie, &[]).upstream("x-session-subject"), "alice");
    assert_eq!(get(&mut world, "//API/%2e/x", "", &[]).status(), 401);
}

#[test]
fn required_lets_nobody_through_whose_login_cannot_be_seen() {
    let mut world = world();
    let cookie = login(&mut world);
    world.slots.0.clear();
    world.gateway = Gateway::Down;
    assert_eq!(get(&mut world, "/api/x", &cookie, &[]).status(), 503);
    assert_eq!(get(&mut world, "/x", &cookie, &[]).upstream("x-session-state"), "unavailable");
}

#[test]
fn strict_always_asks_the_store() {
    let mut world = world();
    let cookie = login(&mut world);
    world.calls.clear();
    get(&mut world, "/x", &cookie, &[]);
    assert_eq!(world.calls.len(), 0);
    get(&mut world, "/admin/x", &cookie, &[]);
    get(&mut world, "/admin/x", &cookie, &[]);
    assert_eq!(world.calls.len(), 2);
    // Not even an outage makes an old copy good enough.
    world.gateway = Gateway::Down;
    assert_eq!(get(&mut world, "/admin/x", &cookie, &[]).upstream("x-session-state"), "unavailable");
    let mut exchange = Exchange::new(world.config.clone());
    let request = headers(&[(":path", "/admin/x"), ("cookie", &cookie)]);
    assert!(matches!(world.request(&mut exchange, &request), Step::LookUp { is_shareable: false, .. }));
}

#[test]
fn a_bound_token_is_nothing_to_another_client() {
    let mut world = World::new(json!({"bind": ["request.useragent"]}));
    let browser = |name: &str| Binding::of(&[Some(name.as_bytes().to_vec())]);
    world.binding = browser("Firefox");
    let cookie = login(&mut world);
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-subject"), "alice");
    world.binding = browser("curl");
    let stolen = world.visit(&cookie, &[]);
    assert_eq!((stolen.upstream("x-session-state"), stolen.upstream("x-session-subject")), ("new", ""));
    assert!(stolen.counts.contains(&Counter::TokenBadMac));
}

#[test]
fn the_identity_is_what_the_upstream_sees() {
    let mut world = world();
    let seen = world.visit("", &[]);
    let identity = seen.effects.identity.expect("forwarded");
    assert_eq!(identity.id.to_string(), seen.upstream("x-session-id"));
    assert_eq!(identity.state.as_str(), seen.upstream("x-session-state"));
    assert_eq!(get(&mut world, "/api/", "", &[]).effects.identity, None);
}
