//! Rules for paths, and tokens that are bound to their client.

use serde_json::json;

use super::*;
use crate::testing::{GatewayState, World, headers};

fn world() -> World {
    World::new(json!({
        "cache": {"ttl": "5s"},
        "on_store_failure": "continue",
        "rules": [
            {"path_prefix": "/static/", "session": "off"},
            {"path_prefix": "/account/", "session": "required", "redirect": "/login"},
            {"path_prefix": "/api/", "session": "required"},
            {"path_prefix": "/admin/", "session": "strict"},
            {"path_prefix": "/account/close/", "session": "required", "strict": true},
            {"path_prefix": "/account/password/", "session": "required", "redirect": "/login", "max_age": "5m"},
        ]
    }))
}

fn login(world: &mut World) -> String {
    world.visit("", &[("x-session-patch", r#"{"user":"alice"}"#)]).cookie().expect("issued")
}

fn get(world: &mut World, path: &str, cookie: &str, response: &[(&str, &str)]) -> crate::testing::Visit {
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
fn required_refuses_a_request_whose_login_cannot_be_checked() {
    let mut world = world();
    let cookie = login(&mut world);
    world.slots.0.clear();
    world.gateway.state = GatewayState::Down;
    assert_eq!(get(&mut world, "/api/x", &cookie, &[]).status(), 503);
    assert_eq!(get(&mut world, "/x", &cookie, &[]).upstream("x-session-state"), "unavailable");
}

#[test]
fn strict_always_asks_the_store() {
    let mut world = world();
    let cookie = login(&mut world);
    world.gateway.calls.clear();
    get(&mut world, "/x", &cookie, &[]);
    assert_eq!(world.gateway.calls.len(), 0);
    get(&mut world, "/admin/x", &cookie, &[]);
    get(&mut world, "/admin/x", &cookie, &[]);
    assert_eq!(world.gateway.calls.len(), 2);
    // Not even an outage makes an old copy good enough.
    world.gateway.state = GatewayState::Down;
    assert_eq!(get(&mut world, "/admin/x", &cookie, &[]).upstream("x-session-state"), "unavailable");
    let mut exchange = Exchange::new(world.config.clone());
    let request = headers(&[(":path", "/admin/x"), ("cookie", &cookie)]);
    assert!(matches!(world.request(&mut exchange, &request), Step::LookUp { is_shareable: false, .. }));
}

#[test]
fn required_and_strict_asks_the_store_who_is_logged_in() {
    let mut world = world();
    let cookie = login(&mut world);
    get(&mut world, "/account/x", &cookie, &[]);
    world.gateway.calls.clear();
    assert_eq!(get(&mut world, "/account/close/", &cookie, &[]).upstream("x-session-subject"), "alice");
    assert_eq!(world.gateway.calls.len(), 1);
    assert_eq!(get(&mut world, "/account/close/", "", &[]).status(), 401);
    // The copy still says that alice is logged in.
    let id = get(&mut world, "/account/x", &cookie, &[]).upstream("x-session-id").to_owned();
    world.destroy(&id);
    assert!(get(&mut world, "/account/x", &cookie, &[]).was_forwarded());
    assert_eq!(get(&mut world, "/account/close/", &cookie, &[]).status(), 401);
    world.gateway.state = GatewayState::Down;
    assert_eq!(get(&mut world, "/account/close/", &cookie, &[]).status(), 503);
}

#[test]
fn a_login_that_is_too_old_has_to_be_repeated() {
    let mut world = world();
    let path = "/account/password/";
    let anonymous = get(&mut world, path, "", &[]);
    assert_eq!((anonymous.status(), anonymous.client("location")), (302, "/login?return_to=/account/password/"));
    let cookie = login(&mut world);
    let write = [("x-session-patch", r#"{"n":1}"#)];
    world.now += 300;
    // Neither using the session nor writing to it is a login, nor is a rotation.
    let cookie = world.visit(&cookie, &write).cookie().expect("issued");
    let cookie = world.visit(&cookie, &[("x-session-control", "rotate")]).cookie().expect("issued");
    assert!(get(&mut world, path, &cookie, &[]).was_forwarded());
    world.now += 1;
    let old = get(&mut world, path, &cookie, &[]);
    let location = "/login?max_age=300&return_to=/account/password/";
    assert_eq!((old.status(), old.client("location")), (302, location));
    assert!(old.counts.contains(&Counter::RequestLogin));
    let post = headers(&[(":method", "POST"), (":path", path), ("cookie", &cookie)]);
    let post = world.visit_with(post, &[]);
    assert_eq!(post.status(), 401);
    let challenge = "Session error=\"insufficient_user_authentication\", max_age=\"300\"";
    assert_eq!(post.client("www-authenticate"), challenge);
    assert!(get(&mut world, "/account/x", &cookie, &[]).was_forwarded(), "other paths do not mind");

    let again = world.visit(&cookie, &[("x-session-control", "authenticated")]).cookie().expect("issued");
    assert!(get(&mut world, path, &again, &[]).was_forwarded());
    world.now += 11;
    world.slots.0.clear();
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired", "older tokens end");
}

#[test]
fn the_time_of_the_login_goes_upstream_where_it_is_asked_for() {
    let mut world = World::new(json!({"upstream": {"auth_time": true}, "cache": {"ttl": "5s"}}));
    assert_eq!(world.visit("", &[]).upstream_all("x-session-auth-time"), Vec::<&str>::new());
    let cookie = login(&mut world);
    let then = world.now.to_string();
    world.now += 2;
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-auth-time"), then, "from the cache");
    world.slots.0.clear();
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-auth-time"), then, "from the store");
    let cookie = world.visit(&cookie, &[("x-session-patch", r#"{"user":"bob"}"#)]).cookie().expect("issued");
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-auth-time"), world.now.to_string(), "bob's");
    let mut world = self::world();
    let cookie = login(&mut world);
    assert_eq!(world.visit(&cookie, &[]).upstream_all("x-session-auth-time"), Vec::<&str>::new(), "not asked for");
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

/// An access log may print `Cookie`.
#[test]
fn a_request_that_the_filter_answers_or_holds_has_no_token_left() {
    let rules = json!([{"path_prefix": "/account/", "session": "required"}]);
    for gateway in [GatewayState::Up, GatewayState::Down] {
        for write in [&[][..], &[("x-session-patch", r#"{"n":1}"#)]] {
            let mut world = World::new(json!({"rules": rules}));
            let cookie = world.visit("", write).cookie().unwrap();
            world.gateway.state = gateway;
            let line = format!("theme=dark; {cookie}");
            let request = headers(&[(":method", "GET"), (":path", "/account/"), ("cookie", &line)]);
            let seen = world.visit_with(request, &[]);
            assert!(matches!(seen.status(), 401 | 503));
            let cookies: Vec<_> = seen.request.iter().filter(|(name, _)| name == "cookie").collect();
            assert_eq!(cookies, [&("cookie".to_owned(), b"theme=dark".to_vec())]);
        }
    }
}
