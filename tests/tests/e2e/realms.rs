//! Two sites, each with its own Envoy, on one gateway.

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;

const SHOP: Option<&str> = Some("shop.example");
const FORUM: Option<&str> = Some("forum");

fn site(gateway: &Gateway, realm: Option<&str>) -> Mesh {
    let plugin = json!({"realm": realm, "cache": {"ttl": "0s"}});
    Mesh::configured(|envoy| envoy.plugin(plugin).cluster("session_gateway", &[gateway.port()]))
}

fn logged_in(site: &Mesh) -> (Browser, String) {
    let mut browser = site.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let answer = browser.get("/");
    assert_eq!(answer.seen().one("x-session-subject"), "alice");
    let id = answer.seen().id();
    (browser, id)
}

fn of_alice(method: &str, what: &str, realm: Option<&str>) -> Request {
    let request = Request::new(method, &format!("/v1/subjects/alice/{what}"));
    match realm {
        Some(realm) => request.header("session-realm", realm),
        None => request,
    }
}

fn ids(gateway: &Gateway, realm: Option<&str>) -> Vec<Value> {
    let list = gateway.call(of_alice("GET", "sessions", realm)).json();
    list.as_array().unwrap().iter().map(|session| session["id"].clone()).collect()
}

#[test]
fn who_is_revoked_on_one_site_stays_logged_in_on_the_other() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let sites = [SHOP, FORUM, None].map(|realm| (realm, site(&gateway, realm)));
    let mut alices: Vec<_> = sites.iter().map(|(realm, site)| (*realm, logged_in(site))).collect();
    for (realm, (_, id)) in &alices {
        assert_eq!(ids(&gateway, *realm), [json!(id)]);
    }
    for revoked in [SHOP, None, FORUM] {
        assert_eq!(gateway.call(of_alice("POST", "revoke", revoked)).status, 204);
        alices.retain_mut(|(realm, (browser, _))| {
            let is_over = *realm == revoked;
            assert_eq!(browser.get("/").seen().state(), if is_over { "expired" } else { "active" }, "{realm:?}");
            !is_over
        });
    }
    assert!(alices.is_empty());
}

#[test]
fn a_site_gets_a_realm_and_no_user_is_logged_out() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let (before, after) = (site(&gateway, None), site(&gateway, SHOP));
    let (mut browser, id) = logged_in(&before);
    // The same secrets and the same cookie: the same site, under its new configuration.
    browser.go_to(after.envoy.port());
    for n in 1..=2 {
        let answer = browser.send(Request::get("/").respond("x-session-patch", format!(r#"{{"n":{n}}}"#)));
        assert_eq!((answer.seen().state(), answer.seen().id()), ("active".to_owned(), id.clone()));
    }
    assert_eq!((ids(&gateway, None), ids(&gateway, SHOP)), (vec![json!(id)], vec![]));
    browser.send(Request::get("/").respond("x-session-control", "authenticated"));
    assert_eq!(browser.get("/").seen().state(), "active");
    assert_eq!((ids(&gateway, None), ids(&gateway, SHOP)), (vec![], vec![json!(id)]));
}
