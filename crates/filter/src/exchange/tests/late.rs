//! One browser, several requests and several tokens: whatever arrives late, a login is not undone.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{GatewayState, World, headers};

const OLD: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NEW: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const LOGIN: &[(&str, &str)] = &[("x-session-patch", r#"{"user":"alice"}"#)];
const WRITE: &[(&str, &str)] = &[("x-session-patch", r#"{"n":1}"#)];
const DESTROY: &[(&str, &str)] = &[("x-session-control", "destroy")];
const LOGOUT: &[(&str, &str)] = &[("x-session-patch", r#"{"user":null}"#)];

/// A request that its upstream has, and has not answered.
struct UnderWay(Exchange);

impl UnderWay {
    fn begin(world: &mut World, request: &[(&str, &str)]) -> Self {
        let mut exchange = Exchange::new(world.config.clone());
        let mut step = world.request(&mut exchange, &headers(request));
        loop {
            step = match step {
                Step::LookUp { look_up, .. } => {
                    let callout = look_up.callout(&world.config);
                    world.answer(&mut exchange, &callout)
                }
                Step::Forward { callout, .. } => {
                    if let Some(callout) = callout {
                        assert_eq!(world.answer(&mut exchange, &callout), Step::Hold);
                    }
                    world.carry_out(&mut exchange);
                    return Self(exchange);
                }
                other => panic!("{other:?}"),
            };
        }
    }

    /// The answer's status, and what it does to the browser's cookie.
    fn end(mut self, world: &mut World, response: &[(&str, &str)]) -> (u16, Option<String>) {
        let now = world.now();
        let mut step = self.0.response(&headers(response), &world.slots, || now);
        loop {
            step = match step {
                Step::Call(callout) => world.answer(&mut self.0, &callout),
                Step::Deliver(edits) => {
                    world.carry_out(&mut self.0);
                    let mut lines = edits.into_iter().filter_map(|edit| match edit {
                        Edit::Add("set-cookie", line) => Some(String::from_utf8(line).unwrap()),
                        _ => None,
                    });
                    return (200, lines.next_back());
                }
                Step::Reply(reply) => {
                    world.carry_out(&mut self.0);
                    let lines = reply.headers.into_iter().filter(|(name, _)| *name == "set-cookie");
                    return (reply.status, lines.map(|(_, line)| String::from_utf8(line).unwrap()).next_back());
                }
                other => panic!("{other:?}"),
            };
        }
    }
}

/// A browser's cookie after an answer.
fn take(jar: &mut Option<String>, line: Option<String>) {
    if let Some(line) = line {
        let pair = line.split(';').next().unwrap().to_owned();
        *jar = (pair != "sid=").then_some(pair);
    }
}

fn request<'a>(jar: Option<&'a str>, destination: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let mut request = vec![(":method", "GET"), (":path", "/")];
    request.extend(jar.map(|cookie| ("cookie", cookie)));
    request.extend(destination.map(|destination| ("sec-fetch-dest", destination)));
    request
}

/// What the browser has when it sends several requests at the same time.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Nothing: all requests but the login are for parts of a page.
    Nothing,
    Anonymous,
    Stored,
    /// A session that has just ended.
    Ended,
    /// A session whose token a logout has replaced, long ago.
    Rotated,
}

fn config(create: &str, max_age: bool, secrets: &[&str]) -> Value {
    let max_age = if max_age { json!("1h") } else { Value::Null };
    json!({
        "create": create, "secrets": secrets, "cookie": {"name": "sid", "max_age": max_age},
        "timeouts": {"idle": "2h", "absolute": "12h"}
    })
}

proptest! {
    /// A login that was answered with success stays, whatever other requests of the same browser that were under way at
    /// that time answer afterwards, as long as they do not write.
    #[test]
    fn no_late_answer_undoes_a_login(
        create in prop_oneof![Just("lazy"), Just("eager"), Just("on_write")],
        start in prop_oneof![
            Just(Start::Nothing), Just(Start::Anonymous), Just(Start::Stored), Just(Start::Ended), Just(Start::Rotated)
        ],
        has_max_age: bool,
        is_secret_changed: bool,
        waits in proptest::collection::vec(prop_oneof![Just(0_u64), Just(2), Just(40)], 5),
        others in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..4),
    ) {
        let mut world = World::new(config(create, has_max_age, &[OLD]));
        let mut jar = match start {
            Start::Nothing => None,
            Start::Anonymous => world.visit("", &[]).cookie(),
            Start::Stored | Start::Ended | Start::Rotated => world.visit("", WRITE).cookie(),
        };
        let cookie = jar.clone().unwrap_or_default();
        if matches!(start, Start::Ended) {
            world.visit(&cookie, DESTROY);
            // Not by a logout of this browser's: its cookie would be gone.
            world.slots.0.clear();
        }
        if matches!(start, Start::Rotated) {
            let login = world.visit(&cookie, LOGIN).cookie().unwrap();
            world.visit(&login, LOGOUT);
            world.slots.0.clear();
            world.now += 60;
        }
        if is_secret_changed {
            world.config = crate::testing::config(config(create, has_max_age, &[NEW, OLD]));
        }
        world.now += 3000;

        let destination = matches!(start, Start::Nothing).then_some("image");
        let mut under_way: Vec<_> = others
            .iter()
            .map(|_| UnderWay::begin(&mut world, &request(jar.as_deref(), destination)))
            .collect();
        let login = UnderWay::begin(&mut world, &request(jar.as_deref(), None));
        for (index, (_, destroys)) in others.iter().enumerate().filter(|(_, (is_first, _))| *is_first) {
            let end = if *destroys { DESTROY } else { &[] };
            let other = std::mem::replace(&mut under_way[index], UnderWay(Exchange::new(world.config.clone())));
            take(&mut jar, other.end(&mut world, end).1);
            world.now += waits[index];
        }
        let (status, line) = login.end(&mut world, LOGIN);
        take(&mut jar, line);
        if status != 200 {
            return Ok(());
        }
        for (index, (_, destroys)) in others.iter().enumerate().filter(|(_, (is_first, _))| !*is_first) {
            world.now += waits[index + 1];
            let end = if *destroys { DESTROY } else { &[] };
            let other = std::mem::replace(&mut under_way[index], UnderWay(Exchange::new(world.config.clone())));
            take(&mut jar, other.end(&mut world, end).1);
        }
        let seen = world.visit(jar.as_deref().unwrap_or_default(), &[]);
        prop_assert_eq!(seen.upstream("x-session-subject"), "alice");
    }

    /// Of several genuine tokens the best opens its session, in whatever order they are sent: stored before anonymous,
    /// then the newest.
    #[test]
    fn the_best_of_several_tokens_wins(order in Just(vec![0, 1, 2, 3]).prop_shuffle()) {
        let mut world = World::new(json!({}));
        let old = world.visit("", WRITE);
        world.now += 1;
        let best = world.visit("", LOGIN);
        world.now += 1;
        let anonymous = world.visit("", &[]);
        let tokens = [old.cookie().unwrap(), best.cookie().unwrap(), anonymous.cookie().unwrap(), "sid=forged".into()];
        world.gateway.calls.clear();
        let line = order.iter().map(|index: &usize| tokens[*index].clone()).collect::<Vec<_>>().join("; ");
        let seen = world.visit(&line, &[]);
        prop_assert_eq!(seen.upstream("x-session-subject"), "alice");
        prop_assert_eq!(world.gateway.calls.len(), 1);
    }
}

#[test]
fn an_ended_token_is_passed_over_without_a_second_lookup() {
    let mut world = World::new(json!({}));
    let anonymous = world.visit("", &[]);
    world.now += 1;
    let ended = world.visit("", WRITE);
    world.visit(&ended.cookie().unwrap(), DESTROY);
    world.gateway.calls.clear();
    let both = format!("{}; {}", ended.cookie().unwrap(), anonymous.cookie().unwrap());
    let seen = world.visit(&both, &[]);
    assert_eq!(seen.upstream("x-session-id"), anonymous.upstream("x-session-id"));
    assert_eq!(seen.upstream("x-session-state"), "active");
    assert_eq!(world.gateway.calls.len(), 1, "{:?}", world.gateway.calls);
}

/// Another user's token was planted beside the user's own, and is the newer one.
#[test]
fn a_good_session_is_not_hidden_by_an_ended_one() {
    let strict = json!([{"path_prefix": "/strict/", "session": "strict"}]);
    for path in ["/", "/strict/"] {
        let mut world =
            World::new(json!({"rules": strict.clone(), "cookie": {"name": "sid", "domain": "example.com"}}));
        let good = world.visit("", LOGIN).cookie().unwrap();
        world.now += 1;
        let planted = world.visit("", WRITE);
        world.destroy(planted.upstream("x-session-id"));
        // Another proxy, or a copy that was pushed out.
        world.slots.0.clear();
        let both = format!("{good}; {}", planted.cookie().unwrap());
        let seen = world.visit_with(headers(&[(":method", "GET"), (":path", path), ("cookie", &both)]), &[]);
        assert_eq!(seen.upstream("x-session-subject"), "alice", "{path}");
        assert_eq!(seen.client_all("set-cookie").len(), 2, "the ended one is cleared, and the good one set");
    }
}

#[test]
fn no_good_token_of_another_session_is_cleared() {
    let mut world = World::new(json!({"cookie": {"name": "sid", "domain": "example.com"}}));
    let good = world.visit("", LOGIN).cookie().unwrap();
    world.now += 1;
    let planted = world.visit("", WRITE).cookie().unwrap();
    let both = format!("{good}; {planted}");
    assert_eq!(world.visit(&both, &[]).client_all("set-cookie"), [""; 0]);
    let write = world.visit(&both, WRITE);
    let lines = write.client_all("set-cookie");
    assert_eq!(lines.len(), 1, "{lines:?}");
    // The planted one ends, and the user is back.
    world.destroy(write.upstream("x-session-id"));
    assert_eq!(
        world.visit(&format!("{good}; {}", write.cookie().unwrap()), &[]).upstream("x-session-subject"),
        "alice"
    );
}

#[test]
fn a_logout_ends_every_session_that_the_browser_has_a_token_of() {
    for policy in ["fail", "deliver"] {
        let mut world =
            World::new(json!({"cookie": {"name": "sid", "domain": "example.com"}, "on_write_failure": policy}));
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(world.visit("", LOGIN).cookie().unwrap());
            world.now += 1;
        }
        let all = tokens.join("; ");
        world.gateway.calls.clear();
        let seen = world.visit(&all, DESTROY);
        assert_eq!(world.gateway.calls.iter().filter(|call| call.starts_with("DELETE")).count(), 3);
        assert_eq!(seen.cookie().as_deref(), Some("sid="));
        for token in &tokens {
            assert_eq!(world.visit(token, &[]).upstream("x-session-state"), "expired");
        }
        // With the best of them ended already, too.
        let (first, second) = (world.visit("", LOGIN), world.visit("", LOGIN));
        world.destroy(second.upstream("x-session-id"));
        world.visit(&format!("{}; {}", first.cookie().unwrap(), second.cookie().unwrap()), DESTROY);
        assert_eq!(world.visit(&first.cookie().unwrap(), &[]).upstream("x-session-state"), "expired");
    }
}

/// After `cookie.domain` was switched on, browsers have a cookie with it and one without.
#[test]
fn the_loser_is_cleared_where_the_configuration_tells_what_it_is() {
    for (cookie, cleared) in [
        (json!({"name": "sid", "domain": "example.com"}), Some("Path=/; Secure; HttpOnly; SameSite=Lax")),
        (json!({"name": "sid", "partitioned": true}), Some("Path=/; Secure; HttpOnly; SameSite=Lax")),
        (json!({"name": "sid"}), None),
    ] {
        let mut world = World::new(json!({"cookie": cookie}));
        let first = world.visit("", &[]).cookie().unwrap();
        world.now += 1;
        let best = world.visit("", LOGIN).cookie().unwrap();
        let seen = world.visit(&format!("{first}; {best}"), &[]);
        assert_eq!(seen.upstream("x-session-subject"), "alice");
        let lines = seen.client_all("set-cookie");
        match cleared {
            None => assert!(lines.is_empty(), "{lines:?}"),
            Some(attributes) => {
                assert_eq!(lines.len(), 2, "{lines:?}");
                assert!(lines[0].starts_with("sid=; Max-Age=0;") && lines[0].ends_with(attributes), "{lines:?}");
                assert_ne!(lines[1].split(';').next(), Some("sid="));
            }
        }
        let alone = world.visit(&best, &[]);
        assert_eq!(alone.client_all("set-cookie"), [""; 0], "once");
    }
}

#[test]
fn no_write_joins_a_session_that_was_logged_out() {
    let mut world = World::new(json!({}));
    let planted = world.visit("", &[]).cookie().unwrap();
    let login = world.visit(&planted, &[("x-session-patch", r#"{"user":"alice","cart":"private"}"#)]).cookie().unwrap();
    world.visit(&login, LOGOUT);
    let seen = world.visit(&planted, &[("x-session-patch", r#"{"mine":1}"#)]);
    assert_eq!((seen.status(), seen.client("x-session-error")), (503, "promotion-refused"));
}

#[test]
fn a_copy_from_the_future_is_none() {
    let mut world = World::new(json!({"cache": {"ttl": "5s", "stale_if_error": "60s", "slots": 1024}}));
    let cookie = world.visit("", WRITE).cookie().unwrap();
    let id = world.visit(&cookie, &[]).upstream("x-session-id").to_owned();
    world.now += 5;
    world.visit(&cookie, &[]);
    world.now -= 5;
    world.destroy(&id);
    assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired");
}

/// A derived id is used again after its session ended; a copy of that one, of a higher version, is still there.
#[test]
fn a_session_stored_anew_under_a_derived_id_is_not_hidden_by_the_one_before() {
    let mut world = World::new(json!({"cache": {"ttl": "5m", "stale_if_error": "60s", "slots": 1024}}));
    let anonymous = world.visit("", &[]).cookie().unwrap();
    let mut cookie = world.visit(&anonymous, WRITE).cookie().unwrap();
    for _ in 0..5 {
        cookie = world.visit(&cookie, &[("x-session-patch", r#"{"ghost":true}"#)]).cookie().unwrap();
    }
    let id = world.visit(&cookie, &[]).upstream("x-session-id").to_owned();
    let ghost = world.slots.0.clone();
    world.gateway.evict(&id);
    world.now += 2;
    let anew = world.visit(&anonymous, WRITE).cookie().unwrap();
    for slots in [None, Some(ghost)] {
        // The write was through this proxy, or through another.
        if let Some(slots) = slots {
            world.slots.0 = slots;
        }
        let seen = world.visit(&anew, &[]);
        assert_eq!((seen.upstream("x-session-id"), seen.upstream("x-session-data")), (&*id, r#"{"n":1}"#));
    }
}

#[test]
fn what_a_client_has_seen_lost_opens_no_path_that_depends_on_it() {
    let rules = json!([
        {"path_prefix": "/account/", "session": "required", "redirect": "/login"},
        {"path_prefix": "/strict/", "session": "strict"}
    ]);
    let mut world = World::new(json!({"rules": rules}));
    let first = world.visit("", LOGIN);
    let older = world.gateway.stored(first.upstream("x-session-id"));
    let newer = world.visit(&first.cookie().unwrap(), LOGOUT).cookie().unwrap();
    world.gateway.restore(first.upstream("x-session-id"), older);
    for (path, status) in [("/account/", 503), ("/strict/", 503), ("/", 200)] {
        let seen = world.visit_with(headers(&[(":method", "GET"), (":path", path), ("cookie", &newer)]), &[]);
        assert_eq!(seen.status(), status, "{path}");
    }
}

#[test]
fn a_part_of_a_page_gets_no_cookie_and_stores_nothing() {
    for create in ["lazy", "eager", "on_write"] {
        let mut world = World::new(json!({"create": create}));
        for destination in ["image", "style", "script", "font"] {
            let seen = world.visit_with(headers(&request(None, Some(destination))), &[]);
            assert_eq!(seen.client_all("set-cookie"), [""; 0], "{create} {destination}");
            assert_eq!(world.gateway.calls, [""; 0], "{create} {destination}");
        }
        for destination in ["document", "iframe", "empty"] {
            let seen = world.visit_with(headers(&request(None, Some(destination))), &[]);
            assert_eq!(seen.cookie().is_some(), create != "on_write", "{create} {destination}");
        }
        let write = world.visit_with(headers(&request(None, Some("image"))), WRITE);
        assert!(write.cookie().is_some(), "{create}");
    }
}

#[test]
fn a_renewed_token_stays_out_of_shared_caches() {
    let mut world = World::new(config("lazy", true, &[OLD]));
    let cookie = world.visit("", WRITE).cookie().unwrap();
    world.now += 1800;
    let seen = world.visit(&cookie, &[]);
    assert!(seen.cookie().is_some());
    assert_eq!(seen.client("cache-control"), "private");
}

/// The answer of the gateway is lost once: the rotation is made, and the client gets its token.
#[test]
fn a_lost_answer_to_a_rotation_logs_no_user_out() {
    const AUTHENTICATED: &[(&str, &str)] = &[("x-session-control", "authenticated")];
    for change in [&[("x-session-control", "rotate")], AUTHENTICATED, LOGIN, LOGOUT] {
        let mut world = World::new(json!({}));
        let login = world.visit("", &[("x-session-patch", r#"{"user":"bob","n":1}"#)]).cookie().unwrap();
        let rotating = UnderWay::begin(&mut world, &request(Some(&login), None));
        world.gateway.lost_answers = 1;
        let mut jar = Some(login);
        let (status, line) = rotating.end(&mut world, change);
        assert_eq!(status, 200, "{change:?}");
        take(&mut jar, line);
        world.now += 3600 / 4;
        let seen = world.visit(jar.as_deref().unwrap(), &[]);
        assert_eq!(
            (seen.upstream("x-session-state"), seen.upstream("x-session-version")),
            ("active", "2"),
            "{change:?}"
        );
    }
}

/// It began before the login, and its answer must not take the login's cookie away: nothing was saved.
#[test]
fn a_refused_write_that_is_late_leaves_the_cookie_of_a_login_alone() {
    for (policy, status) in [("fail", 503), ("deliver", 200)] {
        for create in ["lazy", "on_write"] {
            let mut world = World::new(json!({}));
            let anonymous = world.visit("", &[]).cookie().unwrap();
            world.config = World::new(json!({"create": create, "on_write_failure": policy})).config;
            let mut slow = || UnderWay::begin(&mut world, &request(Some(&anonymous), None));
            let (slow, slower) = (slow(), slow());
            world.now += 1;
            let login = world.visit(&anonymous, LOGIN).cookie().unwrap();
            world.now += 14;
            assert_eq!(slow.end(&mut world, WRITE), (status, None), "{create} {policy}");
            // Nor after a logout and another login.
            world.visit(&login, DESTROY);
            assert!(world.visit("", LOGIN).cookie().is_some());
            assert_eq!(slower.end(&mut world, WRITE), (status, None), "{create} {policy}");
        }
    }
}

const RENEWS: &[(&str, &str)] = &[("set-cookie", "PHPSESSID=its-own; Path=/")];

fn adopting(more: &[(&str, &str)]) -> World {
    let mut config = json!({"create": "eager", "upstream": {"cookie": "PHPSESSID"}});
    for (key, value) in more {
        config[*key] = json!(value);
    }
    World::new(config)
}

/// Upstreams that take no foreign ids renew whatever they are given, also for requests that are late.
#[test]
fn a_mere_renewal_takes_no_login_away() {
    // With the token from before the login.
    let mut world = adopting(&[]);
    let old = world.visit("", &[]).cookie().unwrap();
    assert!(world.visit(&old, LOGIN).cookie().is_some());
    world.now += 1;
    let late = world.visit(&old, RENEWS);
    assert_eq!((late.upstream("x-session-state"), late.cookie()), ("expired", None));

    // With the token of a session that has ended, beside a login with the same.
    let mut world = adopting(&[]);
    let first = world.visit("", &[]);
    let old = first.cookie().unwrap();
    world.destroy(first.upstream("x-session-id"));
    let slow = UnderWay::begin(&mut world, &request(Some(&old), None));
    assert!(world.visit(&old, LOGIN).cookie().is_some());
    assert_eq!(slow.end(&mut world, RENEWS), (200, None));

    // For an image of a first visit.
    let mut world = adopting(&[]);
    let image = UnderWay::begin(&mut world, &request(None, Some("image")));
    assert!(world.visit("", LOGIN).cookie().is_some());
    assert_eq!(image.end(&mut world, RENEWS), (200, None));
}

#[test]
fn a_mere_renewal_in_an_outage_costs_no_answer() {
    let mut world = adopting(&[("on_store_failure", "continue")]);
    world.gateway.state = GatewayState::Down;
    for answer in [&[], RENEWS] {
        assert_eq!(world.visit("", answer).status(), 200);
    }
}

#[test]
fn a_logout_with_a_late_token_is_counted_and_ends_the_other_sessions() {
    let mut world = World::new(json!({"create": "on_write"}));
    let user = world.visit("", LOGIN).cookie().unwrap();
    world.now += 1;
    let other = world.visit("", WRITE).cookie().unwrap();
    assert!(world.visit(&other, LOGIN).cookie().is_some());
    let logout = world.visit(&format!("{other}; {user}"), DESTROY);
    assert_eq!((logout.status(), logout.cookie()), (200, None));
    assert!(logout.counts.contains(&crate::counter::Counter::WriteRotated));
    assert_eq!(world.visit(&user, &[]).upstream("x-session-state"), "expired");
}
