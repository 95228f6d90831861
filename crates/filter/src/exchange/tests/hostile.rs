//! Hostile and meaningless input.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{World, borrowed, headers};
use session::gateway_api as api;

#[test]
fn clients_set_none_of_our_headers() {
    let mut world = World::new(json!({}));
    let request = headers(&[
        ("x-session-id", "evil"),
        ("x-session-id", "evil too"),
        ("x_session_id", "evil"),
        ("x-session_subject", "root"),
        ("x-session-patch", "{}"),
        ("x-session-anything", "evil"),
    ]);
    let seen = world.visit_with(request, &[]);
    assert_eq!(seen.upstream_all("x-session-id").len(), 1);
    assert_ne!(seen.upstream("x-session-id"), "evil");
    for name in ["x_session_id", "x-session_subject", "x-session-patch", "x-session-anything"] {
        assert_eq!(seen.upstream_all(name), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn no_bad_token_costs_a_callout() {
    let mut world = World::new(json!({}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    world.gateway.calls.clear();
    let token = cookie.strip_prefix("sid=").unwrap();
    for index in 0..token.len() {
        let mut damaged = token.as_bytes().to_vec();
        damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
        let seen = world.visit(&format!("sid={}", String::from_utf8(damaged).unwrap()), &[]);
        assert_eq!(seen.upstream("x-session-state"), "new", "byte {index}");
        assert!(seen.cookie().is_some());
    }
    for bad in ["sid=", "sid", &cookie[..20], &format!("{cookie}x"), "sid=\"\"", &"sid=x; ".repeat(2000)] {
        assert_eq!(world.visit(bad, &[]).upstream("x-session-state"), "new");
    }
    assert_eq!(world.gateway.calls, Vec::<String>::new());
}

#[test]
fn answers_without_marker_or_id_say_nothing_about_the_session() {
    let mut world = World::new(json!({}));
    let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().expect("issued");
    let mut exchange = Exchange::new(world.config.clone());
    let Step::LookUp { look_up, .. } = world.request(&mut exchange, &headers(&[("cookie", &cookie)])) else { panic!() };
    let (id, other) = (look_up.id.to_string(), SessionId::from_bytes([0xee; 16]).to_string());
    let good: &[(&str, &str)] = &[
        (":status", "200"),
        (api::MARKER, "1"),
        (api::SESSION_ID, &id),
        ("etag", "\"1\""),
        (api::MIN_VERSION, "1"),
        (api::CREATED, "1"),
        (api::EXPIRES, "9"),
    ];
    let without = |name: &str| good.iter().filter(|(n, _)| *n != name).copied().collect::<Vec<_>>();
    let rows: Vec<(Vec<(&str, &str)>, &[u8])> = vec![
        (vec![], b""),
        (vec![(":status", "404")], b""),
        (vec![(":status", "404"), (api::SESSION_ID, &id)], b""),
        (vec![(":status", "404"), (api::MARKER, "2"), (api::SESSION_ID, &id)], b""),
        (vec![(":status", "404"), (api::MARKER, "1")], b""),
        (vec![(":status", "404"), (api::MARKER, "1"), (api::SESSION_ID, &other)], b""),
        (vec![(":status", "404"), (api::MARKER, "1"), (api::SESSION_ID, &id), (api::SESSION_ID, &other)], b""),
        (vec![(":status", "401"), (api::MARKER, "1")], b""),
        (vec![(":status", "500"), (api::MARKER, "1")], b""),
        (without(api::MARKER), b"{}"),
        (without(api::SESSION_ID), b"{}"),
        (without("etag"), b"{}"),
        (without(api::MIN_VERSION), b"{}"),
        (without(api::CREATED), b"{}"),
        (without(api::EXPIRES), b"{}"),
        (without(":status"), b"{}"),
        (good.to_vec(), b""),
        (good.to_vec(), b"[]"),
        (good.to_vec(), b"{\"a\":\"\r\nx-evil: 1\"}"),
        (good.to_vec(), "{\"a\":\"ü\"}".as_bytes()),
        (good.to_vec(), b"{\xff}"),
    ];
    for (answer, body) in rows {
        let mut exchange = Exchange::new(world.config.clone());
        let step = world.request(&mut exchange, &headers(&[("cookie", &cookie)]));
        assert!(matches!(step, Step::LookUp { .. }));
        let step = exchange.answer(
            Answer::Received { headers: &borrowed(&headers(&answer)), body },
            &world.slots,
            world.now(),
        );
        let Step::Reply(reply) = step else { panic!("{answer:?} {step:?}") };
        assert_eq!(reply.status, 503, "{answer:?}");
    }
}

#[test]
fn a_local_reply_of_another_filter_passes() {
    let world = World::new(json!({}));
    let mut exchange = Exchange::new(world.config.clone());
    assert_eq!(
        exchange.response(&headers(&[("set-cookie", "a=1")]), &world.slots, || world.now()),
        Step::Deliver(Vec::new())
    );
}

#[test]
fn a_request_that_envoy_redirects_itself_does_not_cost_the_client_its_cookie() {
    for create in ["lazy", "eager", "on_write"] {
        let mut world = World::new(json!({"create": create}));
        let again = headers(&[(":path", "/new"), ("x-envoy-original-url", "http://a/old"), ("x-session-id", "1")]);
        let seen = world.visit_with(again, &[]);
        assert_eq!((seen.upstream("x-session-state"), seen.client_all("set-cookie").len()), ("new", 0), "{create}");
    }
}

#[test]
fn a_late_answer_is_ignored() {
    let mut world = World::new(json!({}));
    let mut exchange = Exchange::new(world.config.clone());
    world.run(&mut exchange, Vec::new(), &[]);
    assert_eq!(exchange.answer(Answer::NotSent, &world.slots, world.now()), Step::Hold);
}

/// Any header list: names that mean something to us, and values of any bytes.
fn any_headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        Just("cookie"),
        Just("set-cookie"),
        Just("cache-control"),
        Just("x-session-patch"),
        Just("x-session-control"),
        Just("x-session-id"),
        Just(":status"),
        Just("etag"),
        Just(api::MARKER),
        Just(api::SESSION_ID),
        Just(api::MIN_VERSION),
        Just(api::CREATED),
    ];
    let value = prop_oneof![
        any::<Vec<u8>>(),
        "(sid=)?[A-Za-z0-9_-]{0,60}".prop_map(String::into_bytes),
        "(1|200|201|404|409|\"1\"|destroy|rotate|\\{\\}|\\{\"user\":\"a\"\\})".prop_map(String::into_bytes),
    ];
    proptest::collection::vec((name.prop_map(str::to_owned), value), 0..8)
}

#[derive(Clone, Debug)]
enum Event {
    Request(Vec<(String, Vec<u8>)>, bool),
    Answer(Vec<(String, Vec<u8>)>, Vec<u8>),
    NotSent,
    Response(Vec<(String, Vec<u8>)>),
    Touched(Vec<(String, Vec<u8>)>),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any_headers(), any::<bool>()).prop_map(|(headers, valid)| Event::Request(headers, valid)),
        (any_headers(), prop_oneof![Just(b"{}".to_vec()), any::<Vec<u8>>()])
            .prop_map(|(headers, body)| Event::Answer(headers, body)),
        Just(Event::NotSent),
        any_headers().prop_map(Event::Response),
        any_headers().prop_map(Event::Touched),
    ]
}

/// What a gateway answers to some other call, or to none.
fn another_sessions_answer() -> impl Strategy<Value = (Vec<(String, Vec<u8>)>, Vec<u8>)> {
    let status = prop_oneof![
        Just("200"),
        Just("201"),
        Just("204"),
        Just("400"),
        Just("403"),
        Just("404"),
        Just("409"),
        Just("412"),
        Just("413"),
    ];
    let id = prop_oneof![
        Just(None),
        any::<[u8; 16]>().prop_map(|bytes| Some(SessionId::from_bytes(bytes).to_string().into_bytes())),
        any::<Vec<u8>>().prop_map(Some),
    ];
    let body = prop_oneof![Just(b"{}".to_vec()), Just(br#"{"user":"mallory"}"#.to_vec())];
    (status, id, 1_u32..9, body).prop_map(|(status, id, version, body)| {
        let mut answer = headers(&[
            (":status", status),
            (api::MARKER, "1"),
            ("etag", &format!("\"{version}\"")),
            (api::MIN_VERSION, "1"),
            (api::CREATED, "1"),
            (api::EXPIRES, "99999999999"),
            (api::SUBJECT, "mallory"),
        ]);
        answer.extend(id.map(|id| (api::SESSION_ID.to_owned(), id)));
        (answer, body)
    })
}

proptest! {
    /// A proxy that rewrites paths, a cache that mixes answers: to each kind of call, an answer about another session
    /// or about none is the same as no answer.
    #[test]
    fn an_answer_about_another_session_is_no_answer(
        policies in (prop_oneof![Just("deny"), Just("continue")], prop_oneof![Just("fail"), Just("deliver")]),
        create in prop_oneof![Just("lazy"), Just("eager")],
        response in prop_oneof![
            Just(vec![]),
            Just(vec![("x-session-patch", r#"{"user":"alice"}"#)]),
            Just(vec![("x-session-control", "rotate")]),
            Just(vec![("x-session-control", "destroy")]),
        ],
        has_token: bool,
        looks_up: bool,
        (answer, body) in another_sessions_answer(),
    ) {
        let configuration = json!({"create": create, "on_store_failure": policies.0, "on_write_failure": policies.1});
        let run = |foreign: Option<(&[(String, Vec<u8>)], &[u8])>| {
            let mut world = World::new(configuration.clone());
            let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().unwrap();
            let mut request = headers(&[(":method", "GET"), (":path", "/")]);
            if has_token {
                request.push(("cookie".into(), cookie.into_bytes()));
            }
            let (mut exchange, mut steps) = (Exchange::new(world.config.clone()), Vec::new());
            let mut step = world.request(&mut exchange, &request);
            loop {
                let (callout, is_look_up) = match &step {
                    Step::LookUp { look_up, .. } => (Some(look_up.callout(&world.config)), true),
                    Step::Call(callout) | Step::Forward { callout: Some(callout), .. } => (Some(callout.clone()), false),
                    _ => (None, false),
                };
                let is_forward = matches!(step, Step::Forward { .. });
                let is_last = matches!(step, Step::Deliver(_) | Step::Reply(_) | Step::Hold);
                steps.push(step);
                if is_last {
                    return steps;
                }
                step = match (callout, foreign) {
                    (Some(callout), _) if is_look_up && !looks_up => world.answer(&mut exchange, &callout),
                    (Some(_), Some((headers, body))) => {
                        exchange.answer(Answer::Received { headers: &borrowed(headers), body }, &world.slots, world.now())
                    }
                    (Some(_), None) => {
                        let timeout = headers(&[(":status", "504")]);
                        let answer = Answer::Received { headers: &borrowed(&timeout), body: b"" };
                        exchange.answer(answer, &world.slots, world.now())
                    }
                    (None, _) => Step::Hold,
                };
                if is_forward {
                    step = exchange.response(&headers(&response), &world.slots, || world.now());
                }
            }
        };
        prop_assert_eq!(run(Some((&answer, &body))), run(None));
    }

    /// Events in any order, with any content: no panic, and nothing that could split a header.
    #[test]
    fn any_sequence_of_events_is_survived(
        create in prop_oneof![Just("lazy"), Just("eager"), Just("on_write")],
        policy in prop_oneof![Just("fail"), Just("deliver")],
        events in proptest::collection::vec(any_event(), 0..8),
    ) {
        let mut world = World::new(json!({"create": create, "on_write_failure": policy}));
        let cookie = world.visit("", &[("x-session-patch", r#"{"n":1}"#)]).cookie().unwrap_or_default();
        let mut exchange = Exchange::new(world.config.clone());
        for event in events {
            let step = match event {
                Event::Request(mut headers, valid) => {
                    if valid {
                        headers.push(("cookie".into(), cookie.clone().into_bytes()));
                    }
                                world.request(&mut exchange, &headers)
                }
                Event::Answer(headers, body) => {
                    exchange.answer(Answer::Received { headers: &borrowed(&headers), body: &body }, &world.slots, world.now())
                }
                Event::NotSent => exchange.answer(Answer::NotSent, &world.slots, world.now()),
                Event::Response(headers) => exchange.response(&headers, &world.slots, || world.now()),
                Event::Touched(headers) => {
                    let answer = Answer::Received { headers: &borrowed(&headers), body: b"{}" };
                    exchange.touched(answer, world.now(), world.now());
                    prop_assert!(exchange.in_use().is_some() || exchange.due_touch(world.now()).is_none());
                    Step::Hold
                }
            };
            let edits = match step {
                Step::Forward { edits, .. } => edits
                    .into_iter()
                    // What is left of the client's own cookies goes on as it came.
                    .filter(|edit| !matches!(edit, Edit::Set(name, _) if name == "cookie"))
                    .filter(|edit| !matches!(edit, Edit::Add("cookie", _)))
                    .collect(),
                Step::Deliver(edits) => edits
                    .into_iter()
                    // So does what is left of the upstream's.
                    .filter(|edit| !matches!(edit, Edit::Set(name, _) if name == "set-cookie" || name == "cache-control"))
                    .filter(|edit| !matches!(edit, Edit::Add("set-cookie", value) if !value.starts_with(b"sid=")))
                    .collect(),
                Step::Reply(reply) => {
                    reply.headers.into_iter().map(|(name, value)| Edit::Set(name, value)).collect()
                }
                Step::Call(_) | Step::LookUp { .. } | Step::Hold => Vec::new(),
            };
            for edit in edits {
                if let Edit::Set(_, value) | Edit::Add(_, value) = &edit {
                    prop_assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)), "{:?}", edit);
                }
            }
        }
    }
}
