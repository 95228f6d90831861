//! Behaviour towards browsers, scripts and caches, and the languages in which patches are written.

use proptest::prelude::*;
use serde_json::json;

use crate::edit::GrpcStatus;
use crate::testing::{GatewayState, Visit, World, headers};

const PREFLIGHT: [(&str, &str); 3] =
    [(":method", "OPTIONS"), ("origin", "https://app.example"), ("access-control-request-method", "PUT")];

fn preflight(world: &mut World, more: &[(&str, &str)], response: &[(&str, &str)]) -> Visit {
    world.visit_with(headers(&[&PREFLIGHT[..], more].concat()), response)
}

#[test]
fn a_preflight_passes_and_has_no_session() {
    for create in ["lazy", "eager", "on_write"] {
        let mut world =
            World::new(json!({"create": create, "rules": [{"path_prefix": "/api/", "session": "required"}]}));
        let reserved = [(":path", "/api/x"), ("x-session-subject", "root")];
        let seen = preflight(&mut world, &reserved, &[("x-session-patch", r#"{"n":1}"#)]);
        assert!(seen.was_forwarded());
        for name in ["x-session-id", "x-session-subject", "x-session-state"] {
            assert_eq!(seen.upstream_all(name), Vec::<&str>::new(), "{name}");
        }
        assert_eq!(seen.client_all("set-cookie"), Vec::<&str>::new());
        assert_eq!(seen.client_all("x-session-patch"), Vec::<&str>::new());
        assert_eq!(world.gateway.calls, Vec::<String>::new());
    }
}

#[test]
fn what_is_no_preflight_does_not_pass_for_one() {
    let mut world = World::new(json!({"rules": [{"path_prefix": "/api/", "session": "required"}]}));
    for (without, (name, _)) in PREFLIGHT.iter().enumerate() {
        let mut request = PREFLIGHT.to_vec();
        request.remove(without);
        request.push((":path", "/api/x"));
        let seen = world.visit_with(headers(&request), &[]);
        assert!(!seen.was_forwarded() && seen.status() == 401, "without {name}");
    }
    // What browsers never send with one: credentials, content.
    for more in
        [("cookie", "a=1"), ("authorization", "Basic YTpi"), ("content-length", "2"), ("transfer-encoding", "chunked")]
    {
        let seen = preflight(&mut world, &[(":path", "/api/x"), more], &[]);
        assert_eq!((seen.was_forwarded(), seen.status()), (false, 401), "{more:?}");
    }
    assert!(preflight(&mut world, &[(":path", "/api/x"), ("content-length", "0")], &[]).was_forwarded());
    let put = [(":method", "PUT"), PREFLIGHT[1], PREFLIGHT[2], (":path", "/api/x")];
    assert!(!world.visit_with(headers(&put), &[]).was_forwarded());
}

#[test]
fn a_script_can_read_why_its_write_was_not_saved() {
    let cors = [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-credentials", "true"),
        ("vary", "origin"),
        ("vary", "accept"),
        ("x-secret", "1"),
    ];
    let failures: [(GatewayState, (&str, &str), u16); 3] = [
        (GatewayState::Down, ("x-session-patch", r#"{"n":1}"#), 503),
        (GatewayState::Up, ("x-session-patch", "nonsense"), 502),
        (GatewayState::Unreachable, ("x-session-control", "rotate"), 503),
    ];
    for (gateway, write, status) in failures {
        let mut world = World::new(json!({}));
        world.gateway.state = gateway;
        let seen = world.visit("", &[&cors[..], &[write]].concat());
        assert_eq!(seen.status(), status);
        assert_eq!(seen.client("access-control-allow-origin"), "https://app.example");
        assert_eq!(seen.client("access-control-allow-credentials"), "true");
        assert_eq!(seen.client_all("vary"), ["origin", "accept"]);
        assert_eq!(seen.client_all("x-secret"), Vec::<&str>::new());
    }
}

#[test]
fn a_script_can_read_why_its_session_could_not_be_stored() {
    let mut world = World::new(json!({"create": "eager", "on_store_failure": "deny"}));
    world.gateway.state = GatewayState::Down;
    let seen = world.visit("", &[("access-control-allow-origin", "https://app.example"), ("vary", "origin")]);
    assert_eq!(seen.status(), 503);
    assert_eq!((seen.client("access-control-allow-origin"), seen.client("vary")), ("https://app.example", "origin"));
}

#[test]
fn a_grpc_client_tries_again_only_what_another_try_may_help() {
    let status = |gateway, write: (&str, &str)| {
        let mut world = World::new(json!({}));
        world.gateway.state = gateway;
        world.visit("", &[write]).reply.expect("refused").grpc_status
    };
    let large = format!(r#"{{"n":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(status(GatewayState::Up, ("x-session-patch", "nonsense")), GrpcStatus::Internal);
    assert_eq!(status(GatewayState::Up, ("x-session-patch", &large)), GrpcStatus::Internal);
    assert_eq!(status(GatewayState::Down, ("x-session-patch", "{}")), GrpcStatus::Unavailable);
    let mut world = World::new(json!({"rules": [{"path_prefix": "/", "session": "required"}]}));
    assert_eq!(world.visit("", &[]).reply.expect("refused").grpc_status, GrpcStatus::Unauthenticated);
}

#[test]
fn a_cookie_keeps_caches_of_all_kinds_away() {
    let mut world = World::new(json!({}));
    let response = [("cache-control", "must-understand, no-store"), ("cdn-cache-control", "max-age=60")];
    let seen = world.visit("", &response);
    assert_eq!(seen.client("cache-control"), "must-understand, no-store, private");
    assert_eq!(seen.client("cdn-cache-control"), "no-store");
    // Without a cookie there is nothing to protect.
    let again = world.visit(&seen.cookie().expect("issued"), &response);
    assert_eq!(again.client("cdn-cache-control"), "max-age=60");
}

#[test]
fn patches_are_understood_as_languages_write_them() {
    let rows: &[(&[u8], &str)] = &[
        (b"[]", "{}"),
        (br#"{"n":"x\ud83d"}"#, r#"{"n":"x\ufffd"}"#),
        (b"{\"n\":\"Jos\xe9\"}", r#"{"n":"Jos\u00e9"}"#),
        ("{\"n\":\"José\"}".as_bytes(), r#"{"n":"Jos\u00e9"}"#),
        (br#"{"n":12345678901234567890123,"d":0.10}"#, r#"{"d":0.10,"n":12345678901234567890123}"#),
    ];
    for (patch, data) in rows {
        let mut world = World::new(json!({}));
        let cookie = world.visit_bytes("", patch).cookie().expect("issued");
        let cookie = world.visit(&cookie, &[("x-session-patch", r#"{"z":1}"#)]).cookie().expect("issued");
        let cookie = world.visit(&cookie, &[("x-session-patch", r#"{"z":null}"#)]).cookie().expect("issued");
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-data"), *data, "{}", patch.escape_ascii());
    }
}

#[test]
fn no_login_by_a_guess_or_by_a_number_with_two_spellings() {
    let latin = "José".chars().map(|letter| u8::try_from(letter).unwrap()).collect::<Vec<_>>();
    let user = |name: &[u8]| [br#"{"user":""#, name, br#""}"#].concat();
    let refused: Vec<Vec<u8>> = vec![
        user("José".as_bytes()),
        user(&latin),
        user(br"a\ud83d"),
        br#"{"user":1.0}"#.to_vec(),
        br#"{"user":1e2}"#.to_vec(),
    ];
    for patch in refused {
        let seen = World::new(json!({})).visit_bytes("", &patch);
        assert_eq!((seen.status(), seen.client("x-session-error")), (502, "invalid-patch"), "{}", patch.escape_ascii());
    }
    let good: &[(&[u8], &str)] = &[
        (br#"{"user":"Jos\u00e9"}"#, "Jos%C3%A9"),
        ("{\"user\":\"jose\",\"name\":\"José\"}".as_bytes(), "jose"),
        (br#"{"user":12345678901234567890123}"#, "12345678901234567890123"),
        (br#"{"user":12345678901234567890124}"#, "12345678901234567890124"),
    ];
    for (patch, subject) in good {
        let mut world = World::new(json!({}));
        let cookie = world.visit_bytes("", patch).cookie().expect("issued");
        assert_eq!(world.visit(&cookie, &[]).upstream("x-session-subject"), *subject);
    }
}

#[test]
fn a_rule_for_a_host_is_found_by_the_authority() {
    let mut world = World::new(json!({
        "rules": [{"path_prefix": "/", "hosts": ["admin.example"], "session": "required"}]
    }));
    for (authority, is_open) in [("www.example", true), ("admin.example", false), ("Admin.Example.:8443", false)] {
        let seen = world.visit_with(headers(&[(":authority", authority), (":path", "/")]), &[]);
        assert_eq!(seen.was_forwarded(), is_open, "{authority}");
    }
}

proptest! {
    /// The subject is the text that the upstream meant, in whichever of the two encodings it wrote it, or there is
    /// none.
    #[test]
    fn no_encoding_makes_another_user(name in "[a-zé\u{80}-\u{ff}]{1,6}", is_latin: bool) {
        let bytes: Vec<u8> = if is_latin {
            name.chars().map(|letter| u8::try_from(letter).unwrap()).collect()
        } else {
            name.clone().into_bytes()
        };
        let mut world = World::new(json!({}));
        let seen = world.visit_bytes("", &[br#"{"user":""#, bytes.as_slice(), br#""}"#].concat());
        if seen.status() == 200 {
            let next = world.visit(&seen.cookie().expect("issued"), &[]);
            prop_assert_eq!(next.upstream("x-session-subject"), name);
        }
    }
}
