//! The API as described in `docs/gateway-api.md`, with both stores.

use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::json;

use super::support::gateway::{Gateway, JSON, PATCH, PATCHES};
use super::support::{fresh_id, over_both_stores};

over_both_stores!(
    [],
    a_session_from_creation_to_its_end,
    what_a_creation_may_ask_for,
    merging_creations,
    creations_that_rotate,
    patches,
    rotation,
    changes_with_a_token,
    a_change_under_the_same_name_is_made_once,
    a_session_is_ended_only_with_a_token_that_opens_it,
    a_session_that_was_logged_out_is_not_merged_into,
    logins,
    preconditions,
    touching,
    an_ended_token_is_no_use_of_the_session,
    head,
    sizes,
    numbers_and_texts_of_any_language,
    expiry,
);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// To the second, give or take the one that passes meanwhile, and memcached's clock.
#[track_caller]
fn assert_near(time: u64, expected: u64) {
    assert!(time.abs_diff(expected) <= 3, "{time} is not {expected}");
}

async fn numbers_and_texts_of_any_language(gateway: &Gateway) {
    let data = r#"{"a":12345678901234567890123,"b":0.10,"c":-1.5e+999,"d":"x\ufffd"}"#;
    let id = fresh_id();
    gateway.put(&id, &data.replace("fffd", "d83d")).await.expect(StatusCode::CREATED);
    gateway.patch(&id, r#"{"z":1}"#).await.expect(StatusCode::OK);
    gateway.patch(&id, r#"{"z":null}"#).await.expect(StatusCode::OK);
    assert_eq!(gateway.get(&id).await.body, data.as_bytes());

    for user in ["1.0", "1e0", "-0", r#""a\ud83d""#] {
        let body = format!(r#"{{"user":{user}}}"#);
        let refused = gateway.put(&fresh_id(), &body).await.expect(StatusCode::BAD_REQUEST);
        assert!(String::from_utf8_lossy(&refused.body).contains("the subject"), "{:?}", refused.body);
        gateway.patch(&id, &body).await.expect(StatusCode::BAD_REQUEST);
    }
    for user in ["12345678901234567890123", "12345678901234567890124"] {
        let id = fresh_id();
        gateway.put(&id, &format!(r#"{{"user":{user}}}"#)).await.expect(StatusCode::CREATED);
        assert_eq!(gateway.listed(user).await, [&*id]);
    }
}

async fn a_session_from_creation_to_its_end(gateway: &Gateway) {
    let id = fresh_id();
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    gateway.patch(&id, "{}").await.expect(StatusCode::NOT_FOUND);
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);

    let created = gateway.put(&id, r#"{"name":"ä😀","n":1}"#).await.expect(StatusCode::CREATED);
    assert_eq!(&created.body[..], br#"{"n":1,"name":"\u00e4\ud83d\ude00"}"#);
    assert_eq!(created.header("etag"), Some("\"1\""));
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("cache-control"), Some("no-store"));
    assert_eq!((created.number("session-min-version"), created.header("session-grace-until")), (1, None));
    assert_eq!((created.number("session-idle"), created.number("session-absolute")), (1800, 43_200));
    assert_near(created.number("session-created"), now());
    assert_near(created.number("session-expires"), now() + 1800);
    assert_eq!(created.header("session-subject"), None);

    let read = gateway.get(&id).await.expect(StatusCode::OK);
    assert_eq!(read.body, created.body);
    for name in ["etag", "session-created", "session-idle", "session-absolute", "session-min-version"] {
        assert_eq!(read.header(name), created.header(name), "{name}");
    }
    assert_near(read.number("session-expires"), now() + 1800);

    let again = gateway.put(&id, "{}").await.expect(StatusCode::CONFLICT);
    assert_eq!(again.header("session-created"), created.header("session-created"));

    let ended = gateway.session("DELETE", &id, &[], "").await.expect(StatusCode::NO_CONTENT);
    assert!(ended.body.is_empty());
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    gateway.patch(&id, "{}").await.expect(StatusCode::NOT_FOUND);
    let buried = gateway.put(&id, "{}").await.expect(StatusCode::CONFLICT);
    assert_eq!(buried.header("session-created"), None);
    let merging = gateway.session("PUT", &id, &[JSON, ("session-merge-within", "60")], "{}").await;
    merging.expect(StatusCode::CONFLICT);
    gateway.session("DELETE", &id, &[], "").await.expect(StatusCode::NO_CONTENT);
    let never = fresh_id();
    gateway.session("DELETE", &never, &[], "").await.expect(StatusCode::NO_CONTENT);
    gateway.put(&never, "{}").await.expect(StatusCode::CONFLICT);
}

async fn what_a_creation_may_ask_for(gateway: &Gateway) {
    let id = fresh_id();
    let headers = [
        ("content-type", "Application/JSON; charset=utf-8"),
        ("session-idle", "100"),
        ("session-absolute", "50"),
        ("session-subject-key", "wer"),
        ("session-upstream-cookie", "0A1B.node1"),
    ];
    let created = gateway.session("PUT", &id, &headers, r#"{"wer":"zoë & co/~"}"#).await.expect(StatusCode::CREATED);
    assert_eq!((created.number("session-idle"), created.number("session-absolute")), (100, 50));
    assert_near(created.number("session-expires"), now() + 50);
    assert_eq!(created.header("session-subject"), Some("zo%C3%AB%20%26%20co%2F~"));
    assert_eq!(created.header("session-upstream-cookie"), Some("0A1B.node1"));
    let read = gateway.get(&id).await.expect(StatusCode::OK);
    assert_eq!(read.header("session-subject"), created.header("session-subject"));
    assert_eq!(read.header("session-upstream-cookie"), Some("0A1B.node1"));
    let long = [JSON, ("session-idle", "3456000"), ("session-absolute", "34560000")];
    let long = gateway.session("PUT", &fresh_id(), &long, "{}").await.expect(StatusCode::CREATED);
    assert_near(long.number("session-expires"), now() + 40 * 86_400);
}

async fn merging_creations(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, r#"{"a":1,"b":1}"#).await.expect(StatusCode::CREATED);
    let merge = [JSON, ("session-merge-within", "60")];
    let merged = gateway.session("PUT", &id, &merge, r#"{"a":null,"c":1}"#).await.expect(StatusCode::OK);
    assert_eq!(merged.json(), json!({"b": 1, "c": 1}));
    assert_eq!(merged.header("etag"), Some("\"2\""));
    let login = gateway.session("PUT", &id, &merge, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    assert_eq!(login.number("session-min-version"), 3);
    let taken = gateway.session("PUT", &id, &merge, "{}").await.expect(StatusCode::CONFLICT);
    assert!(taken.header("session-created").is_some());
    let first = gateway.session("PUT", &fresh_id(), &merge, "{}").await;
    first.expect(StatusCode::CREATED);
}

async fn creations_that_rotate(gateway: &Gateway) {
    let merge = [JSON, ("session-merge-within", "60")];
    for query in ["?rotate", "?authenticated"] {
        // No other creation joins one.
        let id = fresh_id();
        let created = gateway.session("PUT", &format!("{id}{query}"), &merge, "{}").await.expect(StatusCode::CREATED);
        assert_eq!((created.header("etag"), created.number("session-min-version")), (Some("\"2\""), 2));
        for query in ["", query] {
            let joined = gateway.session("PUT", &format!("{id}{query}"), &merge, "{}").await;
            joined.expect(StatusCode::CONFLICT);
        }
        // A creation that joins spares no older token.
        let id = fresh_id();
        gateway.put(&id, r#"{"a":1}"#).await.expect(StatusCode::CREATED);
        let merged = gateway.session("PUT", &format!("{id}{query}"), &merge, "{}").await.expect(StatusCode::OK);
        assert_eq!((merged.number("session-min-version"), merged.number("session-grace-from")), (2, 2));
    }
    gateway.session("PUT", &format!("{}?touch", fresh_id()), &merge, "{}").await.expect(StatusCode::BAD_REQUEST);
}

async fn patches(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, r#"{"a":{"c":3}}"#).await.expect(StatusCode::CREATED);
    let one = gateway.patch(&id, r#"{"cart":{"n":2},"x":null}"#).await.expect(StatusCode::OK);
    assert_eq!(one.json(), json!({"a": {"c": 3}, "cart": {"n": 2}}));
    assert_eq!(one.header("etag"), Some("\"2\""));
    let many = r#"[{"a":1},{"a":{"b":2}},{"cart":null}]"#;
    let many = gateway.session("PATCH", &id, &[PATCHES], many).await.expect(StatusCode::OK);
    assert_eq!((many.json(), many.header("etag")), (json!({"a": {"b": 2}}), Some("\"3\"")));
    let none = gateway.session("PATCH", &id, &[PATCHES], "[]").await.expect(StatusCode::OK);
    assert_eq!(none.header("etag"), Some("\"4\""));
    let renewed = [PATCH, ("session-upstream-cookie", "new")];
    let renewed = gateway.session("PATCH", &id, &renewed, "{}").await.expect(StatusCode::OK);
    assert_eq!(renewed.header("session-upstream-cookie"), Some("new"));
    let kept = gateway.patch(&id, "{}").await.expect(StatusCode::OK);
    assert_eq!(kept.header("session-upstream-cookie"), Some("new"));
    assert_eq!(gateway.get(&id).await.body, kept.body);
}

async fn rotation(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
    let rotated = gateway.session("PATCH", &format!("{id}?rotate"), &[], "").await.expect(StatusCode::OK);
    assert_eq!((rotated.number("session-min-version"), rotated.number("session-grace-from")), (2, 1));
    assert_near(rotated.number("session-grace-until"), now() + 10);
    let long = [PATCH, ("session-rotation-grace", "100")];
    let again = gateway.session("PATCH", &format!("{id}?rotate="), &long, r#"{"n":2}"#).await.expect(StatusCode::OK);
    assert_eq!((again.number("session-min-version"), again.number("session-grace-from")), (3, 2));
    assert_near(again.number("session-grace-until"), now() + 100);
    assert_eq!(again.json(), json!({"n": 2}));
    let hard = [("session-rotation-grace", "0")];
    let hard = gateway.session("PATCH", &format!("{id}?rotate"), &hard, "").await.expect(StatusCode::OK);
    assert_eq!((hard.number("session-min-version"), hard.header("session-grace-until")), (4, None));
    let later = gateway.patch(&id, "{}").await.expect(StatusCode::OK);
    assert_eq!(later.number("session-min-version"), 4);
    assert_eq!(later.header("session-auth-time"), None);
    let login = gateway.patch(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    assert_near(login.number("session-auth-time"), now());
    let again = gateway.session("PATCH", &format!("{id}?authenticated"), &[], "").await.expect(StatusCode::OK);
    assert_near(again.number("session-auth-time"), now());
    assert_eq!(again.number("session-min-version"), again.number("session-grace-from") + 1);
    assert_eq!(gateway.get(&id).await.number("session-auth-time"), again.number("session-auth-time"));
}

async fn changes_with_a_token(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    gateway.session("PATCH", &format!("{id}?rotate"), &[], "").await.expect(StatusCode::OK);
    let patch = async |seen: &str, query: &str, body: &str| {
        gateway.session("PATCH", &format!("{id}{query}"), &[PATCH, ("session-seen-version", seen)], body).await
    };
    // Spared by the grace: good for a change, but not for a rotation or a login.
    patch("1", "", r#"{"n":1}"#).await.expect(StatusCode::OK);
    patch("1", "?rotate", "{}").await.expect(StatusCode::PRECONDITION_FAILED);
    patch("1", "", r#"{"user":"alice"}"#).await.expect(StatusCode::PRECONDITION_FAILED);
    patch("2", "", r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    // The login has ended them all.
    patch("3", "", r#"{"n":2}"#).await.expect(StatusCode::PRECONDITION_FAILED);
    patch("4", "", r#"{"n":3}"#).await.expect(StatusCode::OK);
    patch("x", "", "{}").await.expect(StatusCode::BAD_REQUEST);
    assert_eq!(gateway.get(&id).await.json(), json!({"n": 3, "user": "alice"}));
}

async fn logins(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let login = gateway.patch(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    assert_eq!(login.header("session-subject"), Some("alice"));
    assert_eq!(login.number("session-min-version"), 2);
    // No token has the grace: it starts at the new version.
    assert_eq!(login.number("session-grace-from"), 2);
    let same = gateway.patch(&id, r#"{"user":"alice","n":1}"#).await.expect(StatusCode::OK);
    assert_eq!(same.number("session-min-version"), 2);
    let other_key = [PATCH, ("session-subject-key", "who")];
    let other = gateway.session("PATCH", &id, &other_key, r#"{"who":42}"#).await.expect(StatusCode::OK);
    assert_eq!((other.header("session-subject"), other.number("session-min-version")), (Some("42"), 4));
    let logout = gateway.session("PATCH", &id, &other_key, r#"{"who":null}"#).await.expect(StatusCode::OK);
    assert_eq!((logout.header("session-subject"), logout.number("session-min-version")), (None, 5));
}

async fn preconditions(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let patch = async |tag: &str| gateway.session("PATCH", &id, &[PATCH, ("if-match", tag)], r#"{"n":1}"#).await;
    for other in ["\"2\"", "W/\"1\"", "\"abc\"", "\"2\", \"3\""] {
        patch(other).await.expect(StatusCode::PRECONDITION_FAILED);
    }
    patch("\"1\"").await.expect(StatusCode::OK);
    patch("\"1\", \"2\"").await.expect(StatusCode::OK);
    let any = patch("*").await.expect(StatusCode::OK);
    assert_eq!(any.header("etag"), Some("\"4\""));
    let delete = async |tag: &str| gateway.session("DELETE", &id, &[("if-match", tag)], "").await;
    delete("\"3\"").await.expect(StatusCode::PRECONDITION_FAILED);
    gateway.get(&id).await.expect(StatusCode::OK);
    delete("\"4\"").await.expect(StatusCode::NO_CONTENT);
    gateway.put(&id, "{}").await.expect(StatusCode::CONFLICT);
    patch("\"4\"").await.expect(StatusCode::NOT_FOUND);
    for bad in ["4", "\"4", "", "\"4\" x", "\"\"\""] {
        let bad = patch(bad).await.expect(StatusCode::BAD_REQUEST);
        assert!(bad.json()["detail"].as_str().unwrap().contains("if-match"), "{bad:?}");
    }
}

async fn touching(gateway: &Gateway) {
    let id = fresh_id();
    let idle = [JSON, ("session-idle", "1000"), ("session-absolute", "2000")];
    let created = gateway.session("PUT", &id, &idle, "{}").await.expect(StatusCode::CREATED);
    let first = created.number("session-expires");
    super::support::eventually("a second later", async || {
        gateway.get(&id).await.expect(StatusCode::OK).number("session-created") + 2 < now()
    })
    .await;
    let rare = [("session-touch-after", "500")];
    let rare = gateway.session("GET", &format!("{id}?touch"), &rare, "").await.expect(StatusCode::OK);
    assert!(rare.number("session-expires") <= first + 1, "extended too early");
    let touched = gateway.session("GET", &format!("{id}?touch"), &[], "").await.expect(StatusCode::OK);
    assert!(touched.number("session-expires") > first + 1);
    assert_eq!(touched.header("etag"), Some("\"1\""), "a use is not a change");
    // The answer did not wait for it.
    let promised = touched.number("session-expires");
    super::support::eventually("the extension", async || {
        gateway.get(&id).await.expect(StatusCode::OK).number("session-expires").abs_diff(promised) <= 1
    })
    .await;
    gateway.session("GET", &format!("{}?touch", fresh_id()), &[], "").await.expect(StatusCode::NOT_FOUND);
}

/// A client that still shows the token from before a login must not keep the session alive after it.
async fn an_ended_token_is_no_use_of_the_session(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    let login = gateway.patch(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::OK).number("session-expires");
    super::support::eventually("three seconds later", async || now() > login - 1800 + 3).await;
    let use_with = async |seen: &'static str| {
        let target = format!("{id}?touch");
        let read = gateway.session("GET", &target, &[("session-seen-version", seen)], "").await;
        assert_eq!(read.json(), json!({"user": "alice"}));
        read.number("session-expires")
    };
    assert!(use_with("1").await <= login + 1, "extended");
    assert!(use_with("2").await > login + 1);
    // A rotation spares the token that it replaces.
    gateway.session("PATCH", &format!("{id}?rotate"), &[], "").await.expect(StatusCode::OK);
    let rotation = gateway.get(&id).await.number("session-expires");
    super::support::eventually("three seconds later", async || now() > rotation - 1800 + 3).await;
    assert!(use_with("1").await <= rotation + 1, "extended");
    assert!(use_with("2").await > rotation + 1);
}

async fn head(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::CREATED);
    let read = gateway.get(&id).await.expect(StatusCode::OK);
    let head = gateway.session("HEAD", &id, &[], "").await.expect(StatusCode::OK);
    assert!(head.body.is_empty());
    for name in ["content-length", "content-type", "etag", "session-subject", "session-min-version"] {
        assert_eq!(head.header(name), read.header(name), "{name}");
    }
    let missing = gateway.session("HEAD", &fresh_id(), &[], "").await.expect(StatusCode::NOT_FOUND);
    assert!(missing.body.is_empty());
}

async fn sizes(gateway: &Gateway) {
    let id = fresh_id();
    let data = |bytes: usize| json!({ "x": "y".repeat(bytes - r#"{"x":""}"#.len()) }).to_string();
    gateway.put(&id, &data(65_537)).await.expect(StatusCode::PAYLOAD_TOO_LARGE);
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    gateway.put(&id, &data(65_536)).await.expect(StatusCode::CREATED);
    gateway.patch(&id, r#"{"more":1}"#).await.expect(StatusCode::PAYLOAD_TOO_LARGE);
    // Six characters for one of two bytes.
    gateway
        .put(&fresh_id(), &json!({ "x": "ä".repeat(20_000) }).to_string())
        .await
        .expect(StatusCode::PAYLOAD_TOO_LARGE);
    let whole = gateway.get(&id).await.expect(StatusCode::OK);
    assert_eq!(whole.body.len(), 65_536);
    gateway.patch(&id, r#"{"x":null}"#).await.expect(StatusCode::OK);
    gateway.put(&fresh_id(), &data(262_145)).await.expect(StatusCode::PAYLOAD_TOO_LARGE);
    let subject = json!({ "user": "x".repeat(513) }).to_string();
    gateway.put(&fresh_id(), &subject).await.expect(StatusCode::PAYLOAD_TOO_LARGE);
}

async fn expiry(gateway: &Gateway) {
    for timeouts in [[JSON, ("session-idle", "1")], [JSON, ("session-absolute", "1")]] {
        let id = fresh_id();
        gateway.session("PUT", &id, &timeouts, "{}").await.expect(StatusCode::CREATED);
        super::support::eventually("expiry", async || gateway.get(&id).await.status == 404).await;
        gateway.patch(&id, "{}").await.expect(StatusCode::NOT_FOUND);
    }
}

/// A logout that is late must not end the login that has replaced its token.
async fn a_session_is_ended_only_with_a_token_that_opens_it(gateway: &Gateway) {
    let with = |version: &'static str| [("session-seen-version", version)];
    let id = fresh_id();
    gateway.session("DELETE", &id, &with("1"), "").await.expect(StatusCode::NOT_FOUND);
    gateway.put(&id, "{}").await.expect(StatusCode::CREATED);
    gateway.patch(&id, r#"{"user":"alice"}"#).await.expect(StatusCode::OK);
    gateway.session("DELETE", &id, &with("1"), "").await.expect(StatusCode::PRECONDITION_FAILED);
    gateway.get(&id).await.expect(StatusCode::OK);
    // One that a rotation spares is still good for it.
    gateway.session("PATCH", &format!("{id}?rotate"), &[], "").await.expect(StatusCode::OK);
    gateway.session("DELETE", &id, &with("2"), "").await.expect(StatusCode::NO_CONTENT);
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
    gateway.session("DELETE", &id, &with("2"), "").await.expect(StatusCode::NOT_FOUND);
    gateway.session("DELETE", &id, &[], "").await.expect(StatusCode::NO_CONTENT);
}

async fn a_change_under_the_same_name_is_made_once(gateway: &Gateway) {
    let id = fresh_id();
    gateway.put(&id, r#"{"n":1}"#).await.expect(StatusCode::CREATED);
    let named = [PATCH, ("session-seen-version", "1"), ("session-write-id", "00000000000000aa")];
    for _ in 0..2 {
        let target = format!("{id}?rotate");
        let made = gateway.session("PATCH", &target, &named, r#"{"n":2}"#).await.expect(StatusCode::OK);
        assert_eq!((made.header("etag"), made.json()), (Some("\"2\""), json!({"n": 2})));
    }
    gateway.patch(&id, r#"{"n":3}"#).await.expect(StatusCode::OK);
    gateway.session("PATCH", &id, &[PATCH, ("session-write-id", "AA")], "{}").await.expect(StatusCode::BAD_REQUEST);
}

async fn a_session_that_was_logged_out_is_not_merged_into(gateway: &Gateway) {
    let id = gateway.logged_in("alice").await;
    gateway.patch(&id, r#"{"user":null}"#).await.expect(StatusCode::OK);
    let merge = [JSON, ("session-merge-within", "3600")];
    gateway.session("PUT", &id, &merge, "{}").await.expect(StatusCode::CONFLICT);
}
