//! The upstream's own session cookie (`upstream.cookie`): which values it gets, and what changes to it mean.

use std::fmt::Write as _;

use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_assert_ne, prop_oneof, proptest};
use serde_json::json;

use super::*;
use crate::testing::{GatewayState, World, headers};

fn world() -> World {
    World::new(json!({
        "create": "eager",
        "upstream": {"cookie": "PHPSESSID"},
        "rules": [{"path_prefix": "/off/", "session": "off"}],
    }))
}

#[test]
fn an_off_path_gets_an_adopted_cookie_that_opens_nothing() {
    let mut world = world();
    let victim = world.visit("", &[]);
    let cookie = victim.cookie().expect("issued");
    let id = victim.upstream("x-session-id").to_owned();
    let mut seen = Vec::new();
    for cookies in [format!("PHPSESSID={id}"), format!("a=1; PHPSESSID={id}; {cookie}"), String::new()] {
        let request = headers(&[(":path", &format!("/off/x;jsessionid={id}")), ("cookie", &cookies)]);
        let answer = world.visit_with(request, &[("set-cookie", "PHPSESSID=other; Path=/")]);
        assert!(answer.client_all("set-cookie").is_empty());
        let sent: Vec<_> = answer.upstream_all("cookie").join("; ").split("; ").map(str::to_owned).collect();
        let own: Vec<_> = sent.iter().filter_map(|cookie| cookie.strip_prefix("PHPSESSID=")).collect();
        assert_eq!(own.len(), 1, "{sent:?}");
        assert!(own[0] != id && own[0].len() == 32, "{sent:?}");
        seen.push(own[0].to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each request has an id of its own");
}

/// What a browser is left with counts: a cookie of another path is another cookie, and one that can't be kept is none
/// that was deleted.
#[test]
fn a_cookie_that_is_still_set_is_not_deleted() {
    let long = format!("PHPSESSID={}; Path=/", "x".repeat(300));
    let deletion = ("set-cookie", "PHPSESSID=; Max-Age=0; Path=/");
    let kept: [&[(&str, &str)]; 4] = [
        &[("set-cookie", "PHPSESSID=new; Path=/"), ("set-cookie", "PHPSESSID=; Max-Age=0; Path=/old")],
        &[("set-cookie", "PHPSESSID=; Max-Age=0; Path=/; Domain=old.example"), ("set-cookie", "PHPSESSID=new; Path=/")],
        &[deletion, ("set-cookie", &long)],
        &[deletion, ("set-cookie", "PHPSESSID=new; path=/ ")],
    ];
    for lines in kept {
        let mut world = world();
        let cookie = world.visit("", &[]).cookie().unwrap();
        let seen = world.visit(&cookie, lines);
        let now = seen.cookie().unwrap_or(cookie);
        assert_eq!(world.visit(&now, &[]).upstream("x-session-state"), "active", "{lines:?}");
    }
    let mut world = world();
    let cookie = world.visit("", &[]).cookie().unwrap();
    let seen = world.visit(&cookie, &[("set-cookie", "PHPSESSID=new; Path=/"), deletion]);
    assert_eq!(seen.cookie().as_deref(), Some("sid="), "set and then deleted");
}

/// The token may be of a session that has ended; PHP or Tomcat may still have theirs under its id.
#[test]
fn an_outage_opens_no_upstream_session_and_ends_none() {
    let answers: [&[(&str, &str)]; 3] = [
        &[],
        &[("set-cookie", "PHPSESSID=renewed; Path=/")],
        &[("set-cookie", "PHPSESSID=deleted; Max-Age=0; Path=/")],
    ];
    for answer in answers {
        let mut world = World::new(json!({
            "create": "eager", "upstream": {"cookie": "PHPSESSID"}, "on_store_failure": "continue"
        }));
        let first = world.visit("", &[]);
        let (cookie, id) = (first.cookie().unwrap(), first.upstream("x-session-id").to_owned());
        world.gateway.state = GatewayState::Down;
        let outage = world.visit(&cookie, answer);
        assert_eq!((outage.upstream("x-session-state"), outage.status()), ("unavailable", 200), "{answer:?}");
        let sent = outage.upstream_all("cookie").concat();
        assert!(sent.starts_with("PHPSESSID=") && !sent.contains(&id), "{sent}");
        assert_eq!(outage.client_all("set-cookie"), [""; 0], "{answer:?}");
        world.gateway.state = GatewayState::Up;
        let after = world.visit(&cookie, &[]);
        assert_eq!(after.upstream("x-session-state"), "active", "{answer:?}");
        assert!(after.upstream_all("cookie").concat().contains(&id), "{answer:?}");
    }
}

#[test]
fn a_deleted_cookie_ends_the_session_and_wins_over_a_patch() {
    for deletion in ["PHPSESSID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0", "PHPSESSID=; Path=/"] {
        let mut world = world();
        let cookie = world.visit("", &[]).cookie().expect("issued");
        let logout = world.visit(&cookie, &[("set-cookie", deletion), ("x-session-patch", r#"{"user":"alice"}"#)]);
        assert_eq!(logout.client_all("set-cookie").len(), 1, "{deletion}");
        assert!(logout.client("set-cookie").starts_with("sid=;"), "{:?}", logout.client("set-cookie"));
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-state"), "expired", "{deletion}");
    }
}

/// A `Set-Cookie` line, and what a browser has of the cookie after it.
#[derive(Clone, Debug)]
struct Line {
    value: String,
    max_age: Option<i64>,
    /// Seconds from now, and which of the spellings.
    expires: Option<(i64, bool)>,
}

fn line() -> impl Strategy<Value = Line> {
    let max_age = proptest::option::of(prop_oneof![Just(0), -9..9_i64]);
    let expires = proptest::option::of((prop_oneof![Just(0), -90_000_000..90_000_000_i64], any::<bool>()));
    ("[a-z0-9]{0,3}", max_age, expires).prop_map(|(value, max_age, expires)| Line { value, max_age, expires })
}

/// The date this many seconds after 1970, counted day by day.
fn date(seconds: i64, is_old_style: bool) -> String {
    let (mut year, mut month, mut day) = (1970, 0, seconds / 86_400);
    let length = |year: i64, month: usize| {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month]
    };
    while day >= length(year, month) {
        day -= length(year, month);
        (year, month) = if month == 11 { (year + 1, 0) } else { (year, month + 1) };
    }
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (day, time) = (day + 1, format!("{hour:02}:{minute:02}:{second:02}"));
    if is_old_style { format!("{name} {day} {time} {year}") } else { format!("{day:02}-{name}-{year} {time} GMT") }
}

impl Line {
    fn text(&self, now: i64) -> String {
        let mut text = format!("PHPSESSID={}; path=/", self.value);
        if let Some((offset, is_old_style)) = self.expires {
            write!(text, "; expires={}", date(now + offset, is_old_style)).unwrap();
        }
        if let Some(max_age) = self.max_age {
            write!(text, "; Max-Age={max_age}").unwrap();
        }
        text + "; HttpOnly"
    }

    /// A browser's jar for this one cookie.
    fn keep(&self, jar: &mut Option<String>) {
        let left = self.max_age.or(self.expires.map(|(offset, _)| offset));
        *jar = (left.is_none_or(|left| left > 0) && !self.value.is_empty()).then(|| self.value.clone());
    }
}

proptest! {
    /// Whatever an upstream sets and deletes in one response: it gets next what a browser would send it.
    #[test]
    fn the_upstream_gets_what_a_browser_would_send_it(lines in proptest::collection::vec(line(), 1..4)) {
        let mut world = world();
        world.now = 1_784_111_696;
        let first = world.visit("", &[]);
        let cookie = first.cookie().expect("issued");
        let mut jar = None;
        let now = i64::try_from(world.now).unwrap();
        let texts: Vec<String> = lines.iter().map(|line| line.text(now)).collect();
        for line in &lines {
            line.keep(&mut jar);
        }
        let response: Vec<_> = texts.iter().map(|text| ("set-cookie", text.as_str())).collect();
        let answer = world.visit(&cookie, &response);
        let cookie = answer.cookie().expect("changed or taken away");
        let next = world.visit(&cookie, &[]);
        if let Some(id) = jar {
            prop_assert_eq!(next.upstream("cookie"), format!("PHPSESSID={id}"));
        } else {
            prop_assert_eq!(&cookie, "sid=");
            prop_assert_eq!(next.upstream("x-session-state"), "new");
            prop_assert_ne!(next.upstream("x-session-id"), first.upstream("x-session-id"));
        }
    }
}

#[test]
fn an_upstream_that_renews_with_each_request_is_heard_no_more_until_it_rests() {
    let mut world = world();
    let mut cookie = world.visit("", &[]).cookie().expect("issued");
    let mut warnings = 0;
    for n in 1..=12 {
        world.now += 2;
        let renewal = format!("PHPSESSID=renewed{n}; Path=/");
        let patch = format!(r#"{{"n":{n}}}"#);
        let seen = world.visit(&cookie, &[("set-cookie", &renewal), ("x-session-patch", &patch)]);
        let is_ignored = seen.counts.contains(&Counter::AdoptionRenewedAgain);
        assert_eq!(is_ignored, n > 4, "{n}");
        assert!(!seen.client_all("set-cookie").iter().any(|line| line.contains("PHPSESSID")));
        if let Some(warning) = &seen.effects.warning {
            assert!(warning.contains("upstream.cookie PHPSESSID"), "{warning}");
            warnings += 1;
        }
        cookie = seen.cookie().unwrap_or(cookie);
    }
    assert_eq!(warnings, 1);
    let calls = world.gateway.calls.len();
    let quiet = world.visit(&cookie, &[("set-cookie", "PHPSESSID=again; Path=/")]);
    assert_eq!(quiet.upstream("cookie"), "PHPSESSID=renewed4", "the last one that was kept");
    assert_eq!(quiet.upstream("x-session-data"), r#"{"n":12}"#, "patches are saved all the same");
    assert_eq!((quiet.cookie(), quiet.status()), (None, 200));
    assert!(!world.gateway.calls[calls..].iter().any(|call| call.starts_with("PATCH")), "{:?}", world.gateway.calls);

    world.now += 61;
    let login = world.visit(&cookie, &[("set-cookie", "PHPSESSID=later; Path=/")]);
    assert_eq!(world.visit(&login.cookie().expect("rotated"), &[]).upstream("cookie"), "PHPSESSID=later");
}

/// Requests that have come with this cookie, and wait for their upstream.
fn under_way(world: &mut World, cookie: &str, count: usize) -> Vec<Exchange> {
    let requests = (0..count).map(|_| {
        let mut exchange = Exchange::new(world.config.clone());
        let Step::LookUp { look_up, .. } = world.request(&mut exchange, &headers(&[("cookie", cookie)])) else {
            panic!("looked up")
        };
        let callout = look_up.callout(&world.config);
        assert!(matches!(world.answer(&mut exchange, &callout), Step::Forward { .. }));
        exchange
    });
    requests.collect()
}

/// The upstream's answer to one of them: the status of an answer in its place, and the cookie that it gets.
fn end(world: &mut World, exchange: &mut Exchange, response: &[(&str, &str)]) -> (Option<u16>, Option<String>) {
    let now = world.now();
    let mut step = exchange.response(&headers(response), &world.slots, || now);
    while let Step::Call(callout) = step {
        step = world.answer(exchange, &callout);
    }
    match step {
        Step::Deliver(edits) => {
            let issued = edits.iter().find_map(|edit| match edit {
                Edit::Add("set-cookie", line) => str::from_utf8(line).unwrap().split(';').next().map(str::to_owned),
                _ => None,
            });
            (None, issued)
        }
        Step::Reply(reply) => (Some(reply.status), None),
        step => panic!("{step:?}"),
    }
}

#[test]
fn parallel_renewals_are_delivered_whatever_became_of_them() {
    let mut world = world();
    let cookie = world.visit("", &[]).cookie().expect("issued");
    let mut last = cookie.clone();
    for (n, mut exchange) in under_way(&mut world, &cookie, 4).into_iter().enumerate() {
        let renewal = format!("PHPSESSID=renewed{n}; Path=/");
        let (failure, issued) = end(&mut world, &mut exchange, &[("set-cookie", &renewal)]);
        assert_eq!((failure, issued.is_some()), (None, n == 0), "only the first has a good token: {n}");
        last = issued.unwrap_or(last);
    }
    assert_eq!(world.visit(&last, &[]).upstream("x-session-state"), "active");
}

/// The renewals are lost but for the first; what the applications wrote is not.
#[test]
fn patches_beside_parallel_renewals_are_all_made() {
    let mut world = world();
    let cookie = world.visit("", &[]).cookie().expect("issued");
    let mut last = cookie.clone();
    for (n, mut exchange) in under_way(&mut world, &cookie, 4).into_iter().enumerate() {
        let (renewal, patch) = (format!("PHPSESSID=renewed{n}; Path=/"), format!(r#"{{"n{n}":{n}}}"#));
        let response = [("set-cookie", renewal.as_str()), ("x-session-patch", &patch)];
        let (failure, issued) = end(&mut world, &mut exchange, &response);
        assert_eq!((failure, issued.is_some()), (None, n == 0), "{n}");
        last = issued.unwrap_or(last);
    }
    let seen = world.visit(&last, &[]);
    assert_eq!(seen.upstream("x-session-data"), r#"{"n0":0,"n1":1,"n2":2,"n3":3}"#);
    assert_eq!(seen.upstream("cookie"), "PHPSESSID=renewed0");
}

/// What a token that is only spared must not do, and what may have been made already.
#[test]
fn a_late_renewal_is_given_up_for_nothing_but_a_patch() {
    let lost: &[(&str, &str)] = &[("x-session-patch", r#"{"n":1}"#), ("set-cookie", "PHPSESSID=late; Path=/")];
    let login = &[("x-session-patch", r#"{"user":"zoe"}"#), lost[1]];
    let rotation = &[lost[0], lost[1], ("x-session-control", "rotate")];
    for (response, lost_answers) in [(lost, 1), (login, 0), (rotation, 0)] {
        let mut world = world();
        let cookie = world.visit("", &[]).cookie().expect("issued");
        let mut late = under_way(&mut world, &cookie, 1).remove(0);
        let newer = world.visit(&cookie, &[("set-cookie", "PHPSESSID=first; Path=/")]).cookie().expect("rotated");
        world.gateway.lost_answers = lost_answers;
        assert_eq!(end(&mut world, &mut late, response), (Some(503), None), "{response:?}");
        let seen = world.visit(&newer, &[]);
        assert_eq!((seen.upstream("x-session-data"), seen.upstream("x-session-subject")), ("{}", ""));
    }
}
