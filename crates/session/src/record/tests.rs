//! Tests of the record, among them against a model that keeps sets of good tokens by hand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: UnixSeconds = UnixSeconds::new(1_700_000_000);

fn write_at(now: UnixSeconds) -> Write {
    Write { now, id: WriteId::from_random([7; 8]), max_data_bytes: 65_536 }
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("an object, not {other}"),
    }
}

fn new_session(data: Value) -> NewSession {
    NewSession {
        data: object(data),
        timeouts: Timeouts { idle: Seconds::new(1800), absolute: Seconds::new(43200) },
        subject_key: "user".to_owned(),
        realm: None,
        upstream_cookie: None,
        rotation: Rotation::None,
    }
}

fn created(data: Value) -> Session {
    Session::create(new_session(data), write_at(NOW)).unwrap()
}

fn patch(patches: &[Value]) -> Change {
    Change {
        patches: patches.iter().cloned().map(object).collect(),
        subject_key: "user".to_owned(),
        ..Change::default()
    }
}

fn rotation(grace: u64) -> Change {
    Change { rotation: Rotation::Asked, grace: Seconds::new(grace), ..patch(&[]) }
}

#[test]
fn a_number_is_a_subject_as_it_is_written_or_not_at_all() {
    let with = |number: &str| {
        let data = merge_patch::parse_object(format!(r#"{{"user":{number}}}"#).as_bytes()).unwrap();
        Session::create(NewSession { data, ..new_session(json!({})) }, write_at(NOW))
    };
    for number in ["0", "1", "-7", "12345678901234567890123", "12345678901234567890124", "9007199254740993"] {
        assert_eq!(with(number).unwrap().subject(), Some(number));
    }
    for number in ["1.0", "1e0", "1E2", "-0", "0.5", "-1.5e-3", "1e400"] {
        assert!(matches!(with(number), Err(ChangeError::SubjectAmbiguous(_))), "{number}");
    }
}

#[test]
fn who_is_logged_in_changes_only_when_it_is_written() {
    let login = created(json!({"user": "alice", "uid": 7.5, "odd": "\u{fffd}"}));
    for key in ["uid", "odd", "missing", "user"] {
        let change = |patches: &[Value]| Change { subject_key: key.to_owned(), ..patch(patches) };
        let changed = login.change(change(&[json!({"n": 1})]), write_at(NOW)).unwrap();
        assert_eq!((changed.subject(), changed.min_version()), (Some("alice"), Version::FIRST), "{key}");
        let changed = login.change(change(&[json!({key: "bob"})]), write_at(NOW)).unwrap();
        assert_eq!((changed.subject(), changed.min_version()), (Some("bob"), Version::new(2)), "{key}");
        // Also by what was there, or was not.
        let there = changed.change(patch(&[json!({"user": "alice"})]), write_at(NOW)).unwrap();
        let again = there.change(change(&[json!({key: "bob"})]), write_at(NOW)).unwrap();
        assert_eq!(again.subject(), Some("bob"), "{key}");
        let out = login.change(change(&[json!({key: null})]), write_at(NOW)).unwrap();
        assert_eq!((out.subject(), out.min_version()), (None, Version::new(2)), "{key}");
    }
    for unclear in [json!({"user": 1.5}), json!({"user": "\u{fffd}"})] {
        let refused = login.change(patch(&[unclear]), write_at(NOW));
        assert!(matches!(refused, Err(ChangeError::SubjectAmbiguous(_))));
    }
    // Under another key it was no login.
    let anonymous = NewSession { subject_key: "usr".to_owned(), ..new_session(json!({"user": "alice"})) };
    let anonymous = Session::create(anonymous, write_at(NOW)).unwrap();
    assert_eq!(anonymous.subject(), None);
    let login = anonymous.change(patch(&[json!({"user": "alice"})]), write_at(NOW)).unwrap();
    assert_eq!(login.subject(), Some("alice"));
}

#[test]
fn no_write_joins_a_session_that_begins_with_a_rotation() {
    for rotation in [Rotation::Asked, Rotation::Authenticated] {
        let session = Session::create(NewSession { rotation, ..new_session(json!({"n": 1})) }, write_at(NOW)).unwrap();
        assert!(!session.may_merge(Seconds::new(10), NOW));
        assert!(!accepts(&session, 1, NOW) && accepts(&session, 2, NOW));
        assert_eq!(Stored::decode(&session.encode()), Ok(Stored::Session(session)));
    }
}

#[test]
fn unreadable_text_is_no_subject() {
    let with = |text: &str| {
        let data = merge_patch::parse_object(format!(r#"{{"user":"{text}"}}"#).as_bytes()).unwrap();
        Session::create(NewSession { data, ..new_session(json!({})) }, write_at(NOW))
    };
    for text in [r"a\ud83d", r"a\ud83e", r"\ufffd", r"\udc00b"] {
        assert!(matches!(with(text), Err(ChangeError::SubjectAmbiguous(_))), "{text}");
    }
    assert_eq!(with(r"a\ud83d\ude00").unwrap().subject(), Some("a\u{1f600}"));
}

proptest! {
    /// Numbers stay as they were written, digit by digit, whatever else is patched and however often.
    #[test]
    fn numbers_survive_patches_of_other_members(
        numbers in proptest::collection::vec("-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", 1..5),
        writes in 1..4_usize,
    ) {
        let members: Vec<_> = numbers.iter().enumerate().map(|(i, number)| format!(r#""n{i}":{number}"#)).collect();
        let text = format!("{{{},\"nested\":[{{{}}}]}}", members.join(","), members.join(","));
        let data = merge_patch::parse_object(text.as_bytes()).unwrap();
        let mut session = Session::create(NewSession { data, ..new_session(json!({})) }, write_at(NOW)).unwrap();
        for _ in 0..writes {
            session = session.change(patch(&[json!({"other": {"m": 1}})]), write_at(NOW)).unwrap();
        }
        let stored = session.data().as_str();
        for member in members {
            // Exponents are written in one way; their value is what was given.
            let member = member.replace('E', "e").replace("e+", "e").replace('e', "e+").replace("e+-", "e-");
            prop_assert_eq!(stored.matches(&member).count(), 2, "{} in {}", member, stored);
        }
    }
}

/// What the filter does with a token of `version`.
fn accepts(session: &Session, version: u32, now: UnixSeconds) -> bool {
    session.standing(Version::new(version), Seconds::new(3600), now).is_open()
}

#[test]
fn several_patches_are_one_change() {
    let session = created(json!({"a": {"c": 3}}));
    let changed = session.change(patch(&[json!({"a": 1}), json!({"a": {"b": 2}})]), write_at(NOW));
    let changed = changed.unwrap();
    assert_eq!(changed.version(), Version::new(2));
    assert_eq!(changed.data().as_str(), r#"{"a":{"b":2}}"#);
    assert_eq!(changed.min_version(), Version::FIRST);
}

#[test]
fn a_login_ends_older_tokens_at_once() {
    let rotated = created(json!({})).change(rotation(10), write_at(NOW)).unwrap();
    assert!(accepts(&rotated, 1, NOW));
    let login = Change { grace: Seconds::new(10), ..patch(&[json!({"user": "alice"})]) };
    let login = rotated.change(login, write_at(NOW)).unwrap();
    assert_eq!(login.subject(), Some("alice"));
    assert_eq!(login.grace(), Some(Grace { from: login.version(), until: NOW.plus(Seconds::new(10)) }));
    assert!((1..=2).all(|version| !accepts(&login, version, NOW)));
    assert!(accepts(&login, 3, NOW));
}

#[test]
fn a_change_is_made_with_a_token_that_is_still_good() {
    let with = |seen: u32, change: Change| Change { seen: Some(Version::new(seen)), ..change };
    let write = || patch(&[json!({"n": 1})]);
    let login = || patch(&[json!({"user": "alice"})]);
    let rotated = created(json!({})).change(with(1, rotation(10)), write_at(NOW)).unwrap();
    let later = NOW.plus(Seconds::new(10));
    for (seen, change, now, is_made) in [
        (2, write(), NOW, true),
        (2, rotation(10), NOW, true),
        (2, login(), later, true),
        (1, write(), NOW, true),
        (1, write(), later, false),
        (1, rotation(10), NOW, false),
        (1, login(), NOW, false),
    ] {
        let changed = rotated.change(with(seen, change.clone()), write_at(now));
        assert_eq!(changed.is_ok(), is_made, "{seen} {}", change.patches.len());
    }
    let logged_in = rotated.change(with(2, login()), write_at(NOW)).unwrap();
    assert_eq!(logged_in.change(with(2, write()), write_at(NOW)).err(), Some(ChangeError::TokenEnded));
}

#[test]
fn a_later_grace_does_not_open_the_session_to_tokens_from_before_a_login() {
    let login = created(json!({})).change(patch(&[json!({"user": 1})]), write_at(NOW));
    let rotated = login.unwrap().change(rotation(10), write_at(NOW)).unwrap();
    assert!(accepts(&rotated, 2, NOW), "in flight during the rotation");
    assert!(!accepts(&rotated, 1, NOW), "from before the login");
    assert!(!accepts(&rotated, 2, NOW.plus(Seconds::new(10))), "the grace is over");
}

#[test]
fn subjects() {
    let subject = |value: Value| created(json!({ "user": value })).subject().map(str::to_owned);
    assert_eq!(subject(json!("alice")).as_deref(), Some("alice"));
    assert_eq!(subject(json!(42)).as_deref(), Some("42"));
    for anonymous in [json!(""), json!(null), json!(true), json!([1]), json!({"id": 1})] {
        assert_eq!(subject(anonymous.clone()), None, "{anonymous}");
    }
    let long = json!({"user": "x".repeat(MAX_SUBJECT_BYTES + 1)});
    assert_eq!(Session::create(new_session(long), write_at(NOW)).err(), Some(ChangeError::SubjectTooLong));
}

#[test]
fn the_time_of_the_login_changes_only_with_a_login() {
    let at = |seconds| NOW.plus(Seconds::new(seconds));
    assert_eq!(created(json!({})).auth_time(), None);
    let alice = created(json!({"user": "alice"}));
    assert_eq!(alice.auth_time(), Some(NOW));
    let after = |change| alice.change(change, write_at(at(9))).unwrap().auth_time();
    let authenticated = || Change { rotation: Rotation::Authenticated, ..patch(&[]) };
    assert_eq!(after(patch(&[json!({"n": 1, "user": "alice"})])), Some(NOW));
    assert_eq!(after(rotation(10)), Some(NOW));
    assert_eq!(after(authenticated()), Some(at(9)));
    assert_eq!(after(patch(&[json!({"user": "bob"})])), Some(at(9)));
    assert_eq!(after(patch(&[json!({"user": null})])), None);
    let anonymous = created(json!({})).change(authenticated(), write_at(NOW)).unwrap();
    assert_eq!((anonymous.auth_time(), anonymous.min_version()), (None, Version::new(2)), "only a rotation");
    let again = alice.change(Change { grace: Seconds::new(10), ..authenticated() }, write_at(NOW)).unwrap();
    assert!(accepts(&again, 1, NOW) && !accepts(&again, 1, at(10)));
    assert_eq!(Stored::decode(&Stored::Session(again.clone()).encode()), Ok(Stored::Session(again)));
}

#[test]
fn a_binding_lasts_as_long_as_the_subject() {
    let epoch = Epoch::new(5);
    assert_eq!(created(json!({})).enlisted_in(epoch).epoch(), None, "there is no record to be enlisted in");
    let alice = created(json!({"user": "alice"})).enlisted_in(epoch);
    let after = |value| alice.change(patch(&[value]), write_at(NOW)).unwrap().epoch();
    assert_eq!(after(json!({"n": 1})), Some(epoch));
    assert_eq!(after(json!({"user": "bob"})), None);
    assert_eq!(after(json!({"user": null})), None);
}

#[test]
fn merging_is_for_young_anonymous_sessions() {
    let anonymous = created(json!({"cart": 1}));
    let after = |seconds| NOW.plus(Seconds::new(seconds));
    assert!(anonymous.may_merge(Seconds::new(5), after(5)));
    assert!(!anonymous.may_merge(Seconds::new(5), after(6)));
    let before = |seconds| UnixSeconds::new(NOW.get() - seconds);
    assert!(anonymous.may_merge(Seconds::new(0), before(60)), "another machine's clock is behind");
    assert!(!anonymous.may_merge(Seconds::new(0), before(61)), "the clock was set back");
    assert!(!created(json!({"user": "alice"})).may_merge(Seconds::new(5), NOW));
}

#[test]
fn data_is_bounded_as_ascii() {
    let limit = |max_data_bytes| Write { max_data_bytes, ..write_at(NOW) };
    let text = r#"{"name":"\u00e4\ud83d\ude00"}"#;
    let data = json!({"name": "ä😀"});
    assert_eq!(created(data.clone()).data().as_str(), text);
    assert!(Session::create(new_session(data.clone()), limit(text.len())).is_ok());
    let refused = Session::create(new_session(data), limit(text.len() - 1)).err();
    assert_eq!(refused, Some(ChangeError::DataTooLarge { bytes: text.len(), limit: text.len() - 1 }));
}

#[test]
fn the_version_never_wraps() {
    let bytes = created(json!({})).encode();
    let text = String::from_utf8(bytes).unwrap();
    let last = text.replace(r#""v":1,"#, &format!(r#""v":{},"#, u32::MAX));
    let Ok(Stored::Session(session)) = Stored::decode(last.as_bytes()) else {
        panic!("{last}");
    };
    let changed = session.change(patch(&[]), write_at(NOW)).unwrap();
    assert_eq!(changed.version(), Version::new(u32::MAX));
}

#[test]
fn the_format_stays_readable() {
    let stored = "S1{\"v\":4,\"m\":3,\"g\":[2,1700000010],\"c\":1700000000,\"i\":1800,\"a\":43200,\
                  \"s\":\"alice\",\"l\":1700000007,\"e\":42,\"u\":\"abc\",\"w\":506381209866536711,\"n\":16}\n{\"user\":\"alice\"}";
    let Ok(Stored::Session(session)) = Stored::decode(stored.as_bytes()) else {
        panic!("unreadable");
    };
    assert_eq!(session.subject(), Some("alice"));
    assert_eq!(session.epoch(), Some(Epoch::new(42)));
    assert_eq!(session.auth_time(), Some(NOW.plus(Seconds::new(7))));
    assert_eq!(session.upstream_cookie(), Some("abc"));
    assert_eq!(session.grace().map(|grace| grace.until), Some(NOW.plus(Seconds::new(10))));
    assert_eq!(session.encode(), stored.as_bytes());
    let tombstone = Stored::Tombstone(Tombstone { ended: NOW });
    assert_eq!(tombstone.encode(), b"T1{\"e\":1700000000}");
    assert_eq!(Stored::decode(b"T1{\"e\":1700000000}"), Ok(tombstone));
}

#[test]
fn damaged_values_are_told_apart() {
    let whole = created(json!({"a": 1})).encode();
    let text = String::from_utf8(whole.clone()).unwrap();
    for (bytes, error) in [
        (String::new(), DecodeError::Format),
        ("S".to_owned(), DecodeError::Format),
        (text.replace("S1", "S2"), DecodeError::Format),
        (text.replace("\"v\":1", "\"v\":0"), DecodeError::Head),
        (text.replace("\"m\":1", "\"m\":2"), DecodeError::Head),
        (text.replace("\"m\":1", "\"m\":1,\"later\":1"), DecodeError::Head),
        (text.replace("\"w\":", "\"e\":1,\"w\":"), DecodeError::Head),
        (text.replace("\"w\":", "\"l\":1,\"w\":"), DecodeError::Head),
        (text.replace("\"w\":", "\"s\":\"alice\",\"w\":"), DecodeError::Head),
        (text.replace('\n', ""), DecodeError::Head),
        (text.replace("{\"a\":1}", "{\"a\":1"), DecodeError::Data),
        (text.replace("{\"a\":1}", "[\"a\",1]"), DecodeError::Data),
    ] {
        assert_eq!(Stored::decode(bytes.as_bytes()), Err(error), "{bytes}");
    }
    for end in 0..whole.len() {
        assert!(Stored::decode(&whole[..end]).is_err(), "cut at {end}");
    }
    let unparsable = text.replace("{\"a\":1}", "{\"a\",1}");
    let Ok(Stored::Session(session)) = Stored::decode(unparsable.as_bytes()) else {
        panic!("looked at too closely");
    };
    let changed = session.change(patch(&[]), write_at(NOW));
    assert_eq!(changed.err(), Some(ChangeError::Stored(DecodeError::Data)));
}

#[test]
fn debug_shows_no_data() {
    let session = created(json!({"user": "alice", "secret": "hunter2"}));
    let shown = format!("{session:?} {:?}", session.data());
    assert!(!shown.contains("alice") && !shown.contains("hunter2"), "{shown}");
}

/// One step of a session's life, for the model.
#[derive(Clone, Debug)]
enum Step {
    Set(&'static str, Option<u8>),
    Rotate(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        ("[ab]", proptest::option::of(0..3u8))
            .prop_map(|(key, value)| Step::Set(if key == "a" { "user" } else { "n" }, value)),
        (0..20u64).prop_map(Step::Rotate),
        (0..15u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The naive model keeps for every version ever given out until when it is good.
    #[test]
    fn tokens_are_good_exactly_as_long_as_the_model_says(steps in proptest::collection::vec(step(), 0..30)) {
        let mut session = created(json!({}));
        let mut now = NOW;
        let mut data = BTreeMap::new();
        let mut good_until: Vec<u64> = vec![u64::MAX];
        for step in steps {
            let end_all = |good_until: &mut Vec<u64>, at: u64| {
                for until in good_until.iter_mut() {
                    // A token that was spared already keeps no end: only the latest generation is spared.
                    *until = if *until == u64::MAX { at } else { 0 };
                }
            };
            let change = match step {
                Step::Wait(seconds) => {
                    now = now.plus(Seconds::new(seconds));
                    continue;
                }
                Step::Set(key, value) => {
                    let before = data.get("user").copied();
                    match value {
                        Some(value) => data.insert(key, value),
                        None => data.remove(key),
                    };
                    if data.get("user").copied() != before {
                        end_all(&mut good_until, 0);
                    }
                    patch(&[json!({ key: value })])
                }
                Step::Rotate(grace) => {
                    end_all(&mut good_until, now.get() + grace);
                    rotation(grace)
                }
            };
            session = session.change(change, write_at(now)).unwrap();
            good_until.push(u64::MAX);
            prop_assert_eq!(session.version().get() as usize, good_until.len());
            let Ok(Stored::Session(read_back)) = Stored::decode(&session.encode()) else { panic!("unreadable") };
            prop_assert_eq!(&read_back, &session);
            for probe in [now, now.plus(Seconds::new(7)), now.plus(Seconds::new(30))] {
                for (version, until) in (1u32..).zip(&good_until) {
                    prop_assert_eq!(accepts(&session, version, probe), probe.get() < *until, "version {}", version);
                }
            }
        }
        prop_assert_eq!(session.data().parse().unwrap(), object(json!(data)));
    }

    #[test]
    fn lifetimes(idle in 1..5000u64, absolute in 1..5000u64, age in 0..10_000u64, remaining in 0..5000u64, after in 0..100u64) {
        let mut new = new_session(json!({}));
        new.timeouts = Timeouts { idle: Seconds::new(idle), absolute: Seconds::new(absolute) };
        let session = Session::create(new, write_at(NOW)).unwrap();
        let now = NOW.plus(Seconds::new(age));
        let expected = if age >= absolute { None } else { Some(idle.min(absolute - age)) };
        prop_assert_eq!(session.lifetime_left(now).map(Seconds::get), expected);
        let extension = session.extension(Seconds::new(remaining), Seconds::new(after), now);
        let due = expected.filter(|lifetime| *lifetime > remaining && *lifetime >= remaining + after);
        prop_assert_eq!(extension.map(Seconds::get), due);
    }

    #[test]
    fn data_is_visible_ascii_and_means_the_same(text in any::<String>(), key in "[\\x00-\\x7f]{0,8}") {
        let object = object(json!({ key: text }));
        let data = Data::from_object(&object);
        prop_assert!(data.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}", data.as_str());
        prop_assert_eq!(data.parse(), Ok(object));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in prop_oneof![Just(&b"S1"[..]), Just(&b"T1"[..]), Just(&b""[..])]) {
        let mut value = kind.to_vec();
        value.extend(bytes);
        let _ = Stored::decode(&value);
    }
}

fn shop() -> Realm {
    "shop".parse().unwrap()
}

#[test]
fn a_realm_is_in_the_record_only_where_there_is_one() {
    let at = |realm: Option<Realm>, data: Value| {
        Session::create(NewSession { realm, ..new_session(data) }, write_at(NOW)).unwrap()
    };
    let bytes = |session: Session| String::from_utf8(session.encode()).unwrap();
    // What gateways wrote before there were realms, and still write.
    let before = "S1{\"v\":1,\"m\":1,\"c\":1700000000,\"i\":1800,\"a\":43200,\"s\":\"alice\",\"l\":1700000000,\
                  \"w\":506381209866536711,\"n\":16}\n{\"user\":\"alice\"}";
    let alice = json!({"user": "alice"});
    assert_eq!(bytes(at(None, alice.clone())), before);
    assert_eq!(Stored::decode(before.as_bytes()), Ok(Stored::Session(at(None, alice.clone()))));
    // Without a subject there is no login in any realm.
    assert_eq!(at(Some(shop()), json!({})), at(None, json!({})));
    let shop = at(Some(shop()), alice);
    assert_eq!(bytes(shop.clone()), before.replace("\"l\"", "\"r\":\"shop\",\"l\""));
    assert_eq!(Stored::decode(&shop.encode()), Ok(Stored::Session(shop.clone())));
    for damaged in [
        bytes(shop.clone()).replace("shop", ""),
        bytes(shop.clone()).replace("shop", "s/p"),
        bytes(shop).replace("\"s\":\"alice\",", "").replace("\"l\":1700000000,", ""),
    ] {
        assert_eq!(Stored::decode(damaged.as_bytes()), Err(DecodeError::Head), "{damaged}");
    }
}

#[test]
fn only_a_login_changes_the_realm() {
    let in_shop = |change: Change| Change { realm: Some(shop()), grace: Seconds::new(10), ..change };
    let alice = created(json!({"user": "alice"})).enlisted_in(Epoch::new(1));
    let name =
        |session: &Session| session.principal().and_then(|it| it.realm.as_ref()).map(|it| it.as_str().to_owned());
    for change in [patch(&[json!({"n": 1})]), rotation(10)] {
        let after = alice.change(in_shop(change), write_at(NOW)).unwrap();
        assert_eq!((name(&after), after.epoch()), (None, alice.epoch()));
    }
    let authenticated = Change { rotation: Rotation::Authenticated, ..patch(&[]) };
    for change in [patch(&[json!({"user": "alice"})]), patch(&[json!({"user": "bob"})]), authenticated] {
        let later = NOW.plus(Seconds::new(5));
        let after = alice.change(in_shop(change), write_at(later)).unwrap();
        assert_eq!((name(&after).as_deref(), after.epoch(), after.auth_time()), (Some("shop"), None, Some(later)));
        // As another user's login: no older token opens what comes after it.
        assert_eq!((after.min_version(), after.grace().unwrap().from), (after.version(), after.version()));
    }
    let out = alice.change(in_shop(patch(&[json!({"user": null})])), write_at(NOW)).unwrap();
    assert_eq!(out.principal(), None);
}
