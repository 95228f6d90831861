//! Sites that share a gateway: an action on a subject of one realm does not affect a subject of the same name in
//! another.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use session_gateway::store::memcached::Transport;
use session_gateway::store::{Keyspace, Memcached as Client, Store as _};

use super::support::gateway::{Gateway, JSON, PATCH};
use super::support::memcached::Memcached;
use super::support::{alice, fresh_id, over_both_stores};

over_both_stores!(
    [],
    a_revocation_ends_the_sessions_of_its_realm_and_no_others,
    a_login_keeps_its_realm_until_another_one,
    no_other_name_is_taken_for_a_realms,
);

const SHOP: (&str, &str) = ("session-realm", "shop");
const FORUM: (&str, &str) = ("session-realm", "forum.example");
const ALICE: &str = r#"{"user":"alice"}"#;

/// A new session, opened with these headers besides.
async fn opened(gateway: &Gateway, realm: &[(&str, &str)], data: &str) -> String {
    let id = fresh_id();
    gateway.session("PUT", &id, &[&[JSON], realm].concat(), data).await.expect(StatusCode::CREATED);
    id
}

async fn patched(gateway: &Gateway, id: &str, realm: &[(&str, &str)], patch: &str) {
    gateway.session("PATCH", id, &[&[PATCH], realm].concat(), patch).await.expect(StatusCode::OK);
}

async fn revoke(gateway: &Gateway, realm: &[(&str, &str)]) {
    gateway.call("POST", "/v1/subjects/alice/revoke", realm, "").await.expect(StatusCode::NO_CONTENT);
}

async fn listed(gateway: &Gateway, realm: &[(&str, &str)]) -> Vec<String> {
    let list = gateway.call("GET", "/v1/subjects/alice/sessions", realm, "").await.expect(StatusCode::OK).json();
    list.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

async fn a_revocation_ends_the_sessions_of_its_realm_and_no_others(gateway: &Gateway) {
    let realms: [&[(&str, &str)]; 3] = [&[], &[SHOP], &[FORUM]];
    for revoked in realms {
        let mut sessions = Vec::new();
        for realm in realms {
            // One that begins with a login, and one that a login comes to.
            let (at_once, later) = (opened(gateway, realm, ALICE).await, opened(gateway, realm, "{}").await);
            patched(gateway, &later, realm, ALICE).await;
            assert_eq!(listed(gateway, realm).await, [at_once.as_str(), &later]);
            sessions.push((realm, [at_once, later]));
        }
        revoke(gateway, revoked).await;
        for (realm, ids) in &sessions {
            let expected = if *realm == revoked { StatusCode::NOT_FOUND } else { StatusCode::OK };
            for id in ids {
                gateway.get(id).await.expect(expected);
            }
        }
        for realm in realms {
            revoke(gateway, realm).await;
            assert!(listed(gateway, realm).await.is_empty());
        }
        for (_, ids) in &sessions {
            for id in ids {
                gateway.get(id).await.expect(StatusCode::NOT_FOUND);
            }
        }
    }
}

async fn a_login_keeps_its_realm_until_another_one(gateway: &Gateway) {
    // From before the site had a realm: its writes are no logins.
    let id = opened(gateway, &[], ALICE).await;
    patched(gateway, &id, &[SHOP], r#"{"n":1}"#).await;
    assert_eq!((listed(gateway, &[]).await, listed(gateway, &[SHOP]).await), (vec![id.clone()], vec![]));
    revoke(gateway, &[SHOP]).await;
    let before = gateway.get(&id).await.expect(StatusCode::OK);
    assert_eq!(before.header("session-min-version"), Some("1"));
    // A login is in the realm of the caller that reports it, and ends older tokens like any other.
    patched(gateway, &id, &[SHOP], ALICE).await;
    assert_eq!((listed(gateway, &[]).await, listed(gateway, &[SHOP]).await), (vec![], vec![id.clone()]));
    let after = gateway.get(&id).await.expect(StatusCode::OK);
    assert_eq!(after.header("session-min-version"), Some("3"));
    revoke(gateway, &[]).await;
    gateway.get(&id).await.expect(StatusCode::OK);
    revoke(gateway, &[SHOP]).await;
    gateway.get(&id).await.expect(StatusCode::NOT_FOUND);
}

async fn no_other_name_is_taken_for_a_realms(gateway: &Gateway) {
    let id = opened(gateway, &[SHOP], ALICE).await;
    for (subject, realm) in [("palice", "sho"), ("shopalice", ""), ("lice", "shopa"), ("alice", "SHOP"), ("alice", "")]
    {
        let realm: &[_] = if realm.is_empty() { &[] } else { &[("session-realm", realm)] };
        let path = format!("/v1/subjects/{subject}/revoke");
        gateway.call("POST", &path, realm, "").await.expect(StatusCode::NO_CONTENT);
    }
    gateway.get(&id).await.expect(StatusCode::OK);
    for bad in ["", " ", "a b", "a/b", "a:b", "\u{e9}", &"r".repeat(65)] {
        let realm = ("session-realm", bad);
        gateway.call("POST", "/v1/subjects/alice/revoke", &[realm], "").await.expect(StatusCode::BAD_REQUEST);
        gateway.call("GET", "/v1/subjects/alice/sessions", &[realm], "").await.expect(StatusCode::BAD_REQUEST);
        gateway.session("PUT", &fresh_id(), &[JSON, realm], ALICE).await.expect(StatusCode::BAD_REQUEST);
        gateway.session("PATCH", &id, &[PATCH, realm], "{}").await.expect(StatusCode::BAD_REQUEST);
    }
    let twice = [SHOP, FORUM];
    gateway.call("POST", "/v1/subjects/alice/revoke", &twice, "").await.expect(StatusCode::BAD_REQUEST);
    gateway.get(&id).await.expect(StatusCode::OK);
}

/// Gateways and sessions that know no realms go on as they were.
#[tokio::test]
async fn without_a_realm_nothing_is_stored_differently() {
    let memcached = Memcached::start();
    let store = memcached.url() + "?exchange_timeout=10s&connect_timeout=10s";
    let gateway = Gateway::start_with(&store, &["--store-timeout", "20s"]);
    let (plain, shop) = (opened(&gateway, &[], ALICE).await, opened(&gateway, &[SHOP], ALICE).await);
    let patient = Duration::from_secs(10);
    let transport = Transport { connect_timeout: patient, exchange_timeout: patient, ..Transport::default() };
    let client = Client::new(&memcached.node(), transport);
    let keyspace = Keyspace::new("sm:").unwrap();
    let value = async |id: &str| {
        let entry = client.get(&keyspace.session(id.parse().unwrap())).await.unwrap().unwrap();
        String::from_utf8(entry.value).unwrap()
    };
    assert!(!value(&plain).await.contains("\"r\""), "{}", value(&plain).await);
    assert!(value(&shop).await.contains(r#""s":"alice","r":"shop","#), "{}", value(&shop).await);
    let mut keys = [alice(), alice()];
    keys[1].realm = Some("shop".parse().unwrap());
    let keys = keys.map(|principal| keyspace.subject(&principal));
    // The SHA-256 of "alice"; that of 0000000000000004, "shop" and "alice".
    assert_eq!(keys[0].as_str(), "sm:u:K9gGyX8OAK8aH8Myj6djqSaXI8jbj6xPk69x2xhtbpA");
    assert_eq!(keys[1].as_str(), "sm:r:oYnxSuzDGbdjp-cLmrlwDr10jpdkEksblGidsXQMHj0");
    for key in keys {
        assert!(client.get(&key).await.unwrap().is_some(), "{key:?}");
    }
    assert_eq!(gateway.get(&shop).await.expect(StatusCode::OK).json(), json!({"user": "alice"}));
}
