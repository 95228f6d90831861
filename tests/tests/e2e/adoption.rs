//! Upstreams with their own sessions (`upstream.cookie`): which of them can be adopted, and what their ids give access
//! to.

use std::thread;

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::django::Django;
use session_mesh_e2e::express::Express;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::php::Php;
use session_mesh_e2e::tomcat::{Application, Tomcat};
use session_mesh_e2e::wait;

use crate::tokens::Token;

fn adopting(cookie: &str, ports: &[u16]) -> Mesh {
    Mesh::configured(|envoy| {
        envoy
            .plugin(json!({
                "create": "eager",
                "upstream": {"cookie": cookie},
                "rules": [{"path_prefix": "/index.jsp", "session": "off"}],
            }))
            .cluster("app", ports)
    })
}

/// What PHP says of its session.
fn page(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The id of Tomcat's session on the page of the demo.
fn tomcats_id(response: &Response) -> String {
    let text = response.text();
    assert_eq!(response.status, 200, "{text}");
    let (_, rest) = text.split_once("id=\"session\">").unwrap();
    rest.split_once('<').unwrap().0.to_owned()
}

#[test]
fn an_off_path_of_tomcat_opens_no_session_by_the_id_in_its_url_or_cookie() {
    let tomcat = Tomcat::start("red").ready();
    let mesh = adopting("JSESSIONID", &[tomcat.port()]);
    let victim = tomcats_id(&mesh.browser().get("/"));
    let path = format!("/index.jsp;jsessionid={victim}");
    assert_eq!(tomcats_id(&Request::get(&path).send(tomcat.port())), victim, "Tomcat itself takes it");
    let port = mesh.envoy.port();
    let forged = [
        Request::get(&path),
        Request::get(&path).header("cookie", format!("JSESSIONID={victim}")),
        Request::get("/index.jsp").header("cookie", format!("a=1; JSESSIONID={victim}; jsessionid={victim}")),
    ];
    for request in forged {
        let answer = request.send(port);
        assert_ne!(tomcats_id(&answer), victim, "{request:?}");
        assert!(answer.all("set-cookie").is_empty(), "{answer:?}");
    }
}

#[test]
fn users_who_logged_out_of_php_share_no_session() {
    let php = Php::start(false);
    let mesh = adopting("PHPSESSID", &[php.port()]);
    let mut browsers = [mesh.browser(), mesh.browser()];
    let mut ids = Vec::new();
    for (browser, user) in browsers.iter_mut().zip(["alice", "bob"]) {
        browser.get(&format!("/login?user={user}"));
        assert_eq!(page(&browser.get("/"))["user"], user);
        let thief = browser.clone();
        let logout = browser.get("/logout");
        assert_eq!(page(&logout)["user"], user);
        assert!(logout.all("set-cookie").iter().all(|line| !line.starts_with("PHPSESSID")), "{logout:?}");
        assert_eq!(browser.token(), None, "our session ended with PHP's");
        // Neither the browser nor a copy of its old token has anything left.
        for mut visitor in [browser.clone(), thief] {
            let after = page(&visitor.get("/count"));
            assert_eq!((&after["user"], &after["count"]), (&Value::Null, &json!(1)), "{after}");
            ids.push(after["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(!ids.iter().any(|id| id == "deleted"), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has an upstream session of their own");
}

#[test]
fn an_outage_opens_no_session_of_php() {
    let php = Php::start(false);
    let mut mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(json!({
                "create": "eager",
                "upstream": {"cookie": "PHPSESSID"},
                "on_store_failure": "continue",
                "gateway": {"timeout": "1s"},
                "cache": {"ttl": "0s", "stale_if_error": "0s"},
            }))
            .cluster("app", &[php.port()])
    });
    let mut browser = mesh.browser();
    browser.get("/");
    browser.get("/login-without-renewal?user=alice");
    let before = page(&browser.get("/"));
    assert_eq!(before["user"], "alice");
    mesh.gateway.process().pause();
    // The session may have ended, of which PHP knows nothing.
    for path in ["/", "/login?user=mallory", "/logout"] {
        let during = browser.get(path);
        assert_ne!(page(&during)["id"], before["id"]);
        assert_ne!(page(&during)["user"], "alice");
        assert!(during.all("set-cookie").is_empty(), "{during:?}");
    }
    mesh.gateway.process().resume();
    let after = page(&browser.get("/"));
    assert_eq!((&after["user"], &after["id"]), (&before["user"], &before["id"]), "it was an outage, no logout");
}

/// Logs in and comes back `times` times; what PHP then has, and how often our token changed meanwhile.
fn revisit(browser: &mut Browser, login: &str, times: usize) -> (Value, usize) {
    browser.get("/");
    browser.get(login);
    let mut changes = 0;
    let mut last = Value::Null;
    for _ in 0..times {
        let before = browser.token();
        last = page(&browser.get("/count"));
        changes += usize::from(browser.token() != before);
    }
    (last, changes)
}

#[test]
fn php_that_is_not_strict_takes_our_id_and_may_renew_it() {
    let php = Php::start(false);
    let mesh = adopting("PHPSESSID", &[php.port()]);
    let mut browser = mesh.browser();
    let (page, changes) = revisit(&mut browser, "/login?user=alice", 5);
    assert_eq!((&page["user"], &page["count"], changes), (&json!("alice"), &json!(5), 0));
    let mut browser = mesh.browser();
    let (page, changes) = revisit(&mut browser, "/login-without-renewal?user=bob", 5);
    assert_eq!((&page["user"], &page["count"], changes), (&json!("bob"), &json!(5), 0));
}

/// What one upstream of the kind does for one browser, and two without a common store.
fn takes_no_foreign_ids(cookie: &str, pair: [u16; 2]) {
    let mesh = adopting(cookie, &pair[..1]);
    let mut browser = mesh.browser();
    browser.get("/count");
    let before = browser.token();
    for n in 2..6 {
        assert_eq!(page(&browser.get("/count"))["count"], json!(n), "it knows its own id, which is renewed once");
    }
    assert_eq!(browser.token(), before);
    assert_eq!(mesh.envoy.counter("adoption.renewed_again"), 0);

    let mesh = adopting(cookie, &pair);
    let mut browser = mesh.browser();
    for _ in 0..20 {
        page(&browser.get("/count"));
    }
    let before = browser.token();
    for _ in 0..6 {
        page(&browser.get("/count"));
    }
    assert_eq!(browser.token(), before, "no rotation storm");
    wait::until("the renewals are counted", || (mesh.envoy.counter("adoption.renewed_again") > 6).then_some(()));
    let line = format!("upstream.cookie {cookie}: the upstream renews its id with each request");
    assert_eq!(mesh.envoy.log().matches(&line).count(), 1);
}

/// What two upstreams of the kind do with a common store: one renewal, or none, and then one session.
fn share_one_store(cookie: &str, pair: [u16; 2], renewals: usize) {
    let mesh = adopting(cookie, &pair);
    let mut browser = mesh.browser();
    browser.get("/count");
    let mut tokens = vec![browser.token()];
    for n in 2..12 {
        assert_eq!(page(&browser.get("/count"))["count"], json!(n), "one counts where the other has stopped");
        tokens.push(browser.token());
    }
    tokens.dedup();
    // With `eager` the first token is made for the session as it is when the first response goes out.
    assert_eq!(tokens.len(), 1);
    let id = page(&browser.get("/count"))["id"].clone();
    assert_eq!(id == json!(Token::read(&browser.token().unwrap()).id), renewals == 0, "{id}");
    assert_eq!(mesh.envoy.counter("adoption.renewed_again"), 0);

    // A login renews the id for both.
    let before = browser.token();
    browser.get("/login?user=alice");
    assert_ne!(browser.token(), before);
    for n in 13..17 {
        let page = page(&browser.get("/count"));
        assert_eq!((&page["count"], &page["user"]), (&json!(n), &json!("alice")));
    }
}

#[test]
fn php_with_a_common_store_of_sessions_is_one_upstream() {
    for is_strict in [false, true] {
        let store = tempfile::tempdir().unwrap();
        let pair = [(); 2].map(|()| Php::start_with_store(is_strict, store.path()));
        share_one_store("PHPSESSID", pair.each_ref().map(Php::port), usize::from(is_strict));
    }
}

/// The attributes that `docs/upstreams.md` demands of a Tomcat that is adopted.
const ADOPTABLE: &str = r#"sessionCookiePath="/" validateClientProvidedNewSessionId="false""#;

/// A page of Tomcat's that counts, and logs in as Tomcat itself does.
const COUNT: &str = r#"<%@ page contentType="application/json" trimDirectiveWhitespaces="true" %><%
    String path = request.getRequestURI();
    if (path.equals("/login")) {
        request.changeSessionId();
        session.setAttribute("user", request.getParameter("user"));
    }
    Object before = session.getAttribute("count");
    int count = before == null ? 0 : (Integer) before;
    if (path.equals("/count")) {
        session.setAttribute("count", ++count);
    }
    Object user = session.getAttribute("user");
    String shown = user == null ? "null" : "\"" + user + "\"";
    out.print("{\"id\":\"" + session.getId() + "\",\"count\":" + count + ",\"user\":" + shown + "}");
%>"#;

/// Two Tomcats whose contexts have these attributes and elements.
fn tomcats(attributes: &str, elements: &str) -> [Tomcat; 2] {
    let application = Application { page: COUNT, attributes, elements, ..Application::default() };
    [(); 2].map(|()| Tomcat::serve(&application)).map(Tomcat::ready)
}

#[test]
fn tomcat_without_the_attributes_is_adopted_as_strict_php_is() {
    let pair = tomcats("", "");
    takes_no_foreign_ids("JSESSIONID", pair.each_ref().map(Tomcat::port));
}

#[test]
fn tomcats_with_a_common_store_of_sessions_are_one_upstream() {
    for (attributes, renewals) in [(ADOPTABLE, 0), ("", 1)] {
        let store = tempfile::tempdir().unwrap();
        let store = store.path().display();
        // Each request finds its session in the store, and leaves it there.
        let elements = format!(
            r#"<Valve className="org.apache.catalina.valves.PersistentValve"/>
            <Manager className="org.apache.catalina.session.PersistentManager">
                <Store className="org.apache.catalina.session.FileStore" directory="{store}"/>
            </Manager>"#
        );
        let pair = tomcats(attributes, &elements);
        share_one_store("JSESSIONID", pair.each_ref().map(Tomcat::port), renewals);
    }
}

#[test]
fn django_that_always_has_something_to_keep_is_adopted_as_strict_php_is() {
    let stores = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let pair = stores.each_ref().map(|store| Django::start(store.path()));
    takes_no_foreign_ids("sessionid", pair.each_ref().map(Django::port));
    let pair = [(); 2].map(|()| Django::start(stores[0].path()));
    share_one_store("sessionid", pair.each_ref().map(Django::port), 1);
}

/// It takes its cookie from visitors that it has nothing to keep for, which ends our session, too, and what others keep
/// in it.
#[test]
fn django_ends_the_sessions_of_visitors_it_has_nothing_to_keep_for() {
    let store = tempfile::tempdir().unwrap();
    let django = Django::start(store.path());
    let mesh = adopting("sessionid", &[django.port()]);
    let mut browser = mesh.browser();
    browser.send(Request::get("/other/").respond("x-session-patch", r#"{"n":1}"#));
    assert_eq!(browser.get("/other/").seen().data(), json!({"n": 1}));
    page(&browser.get("/"));
    assert_eq!(browser.token(), None);
    assert_eq!(browser.get("/other/").seen().data(), json!({}));
}

/// Parallel requests renew an id side by side: the renewals but for one are lost, the patches are not.
#[test]
fn patches_beside_parallel_renewals_are_all_saved() {
    let mesh = Mesh::with(json!({"create": "eager", "upstream": {"cookie": "PHPSESSID"}}));
    let mut first = mesh.browser();
    first.get("/");
    mesh.app.hold_until_together(3);
    let answers = thread::scope(|scope| {
        let requests: Vec<_> = (0..3)
            .map(|n| {
                let mut browser = first.clone();
                scope.spawn(move || {
                    let renewal = format!("PHPSESSID=renewed{n}; Path=/");
                    let patch = format!(r#"{{"n{n}":{n}}}"#);
                    let request = Request::get("/").respond("set-cookie", renewal).respond("x-session-patch", patch);
                    (browser.send(request).status, browser)
                })
            })
            .collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect::<Vec<_>>()
    });
    mesh.app.stop_holding();
    assert!(answers.iter().all(|(status, _)| *status == 200));
    let mut renewed =
        answers.into_iter().map(|(_, browser)| browser).filter(|browser| browser.token() != first.token());
    let mut winner = renewed.next().expect("one of them has renewed it");
    assert!(renewed.next().is_none(), "and no other");
    assert_eq!(winner.get("/").seen().data(), json!({"n0": 0, "n1": 1, "n2": 2}));
}

#[test]
fn php_in_strict_mode_can_be_adopted_if_all_share_its_store() {
    let pair = [Php::start(true), Php::start(true)];
    takes_no_foreign_ids("PHPSESSID", pair.each_ref().map(Php::port));
}

#[test]
fn express_session_can_be_adopted_if_all_share_its_store() {
    let pair = [Express::start(), Express::start()];
    takes_no_foreign_ids("connect.sid", pair.each_ref().map(Express::port));
}
