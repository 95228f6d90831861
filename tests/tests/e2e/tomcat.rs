//! The classic setup: two stock Tomcats, every refresh on the other one, one session.

use serde_json::json;
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::envoy::{Configuration, Envoy};
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Response;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::tomcat::Tomcat;

use crate::tokens::Token;

struct Classic {
    memcached: Memcached,
    gateway: Gateway,
    tomcats: [Tomcat; 2],
    envoy: Envoy,
}

impl Classic {
    fn start() -> Self {
        let tomcats = ["red", "blue"].map(Tomcat::start);
        let memcached = Memcached::start();
        let gateway = Gateway::start(&memcached.url());
        let tomcats = tomcats.map(Tomcat::ready);
        let envoy = Configuration::read()
            .plugin(json!({"create": "eager", "upstream": {"cookie": "JSESSIONID"}}))
            .cluster("session_gateway", &[gateway.port()])
            .cluster("app", &tomcats.each_ref().map(Tomcat::port))
            .start();
        Self { memcached, gateway, tomcats, envoy }
    }
}

/// The page of the classic setup, as far as the test looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    colour: String,
    session: String,
    user: String,
}

impl Page {
    fn read(response: &Response) -> Self {
        let text = response.text();
        assert_eq!(response.status, 200, "{text}");
        let between = |start: &str, end: &str| {
            let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{start} in {text}"));
            rest.split_once(end).unwrap().0.to_owned()
        };
        Self {
            colour: between("<body class=\"", "\""),
            session: between("id=\"session\">", "<"),
            user: between("id=\"user\">", "<"),
        }
    }
}

#[test]
fn twenty_refreshes_turn_red_and_blue_and_show_one_id() {
    let classic = Classic::start();
    let mut browser = Browser::new(classic.envoy.port());
    let first = browser.get("/");
    let cookies = first.all("set-cookie");
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    let id = Token::read(&browser.token().unwrap()).id;
    let mut pages = vec![Page::read(&first)];
    for _ in 1..20 {
        let refresh = browser.get("/");
        assert_eq!(refresh.all("set-cookie"), [""; 0]);
        pages.push(Page::read(&refresh));
    }
    assert!(pages.iter().all(|page| page.session == id), "{pages:?}");
    assert!(pages.windows(2).all(|pair| pair[0].colour != pair[1].colour), "{pages:?}");

    let item = classic.memcached.item(&format!("sm:s:{id}")).expect("the session is in memcached");
    assert!((1790..=1800).contains(&item.ttl), "{item:?}");
}

#[test]
fn the_id_survives_a_restart_of_each_part() {
    let mut classic = Classic::start();
    let mut browser = Browser::new(classic.envoy.port());
    let id = Page::read(&browser.get("/")).session;
    let assert_kept = |browser: &mut Browser, what: &str| {
        for _ in 0..4 {
            let refresh = browser.get("/");
            assert_eq!(refresh.all("set-cookie"), [""; 0], "after a restart of {what}");
            assert_eq!(Page::read(&refresh).session, id, "after a restart of {what}");
        }
    };
    assert_kept(&mut browser, "nothing");
    classic.tomcats[0].restart();
    assert_kept(&mut browser, "the red Tomcat");
    classic.tomcats[1].restart();
    assert_kept(&mut browser, "the blue Tomcat");
    classic.gateway.restart();
    assert_kept(&mut browser, "the gateway");
    classic.gateway.stop();
    classic.gateway.start_again();
    assert_kept(&mut browser, "the gateway after a crash");
    classic.envoy.restart();
    assert_kept(&mut browser, "Envoy");
}

#[test]
fn a_login_that_renews_tomcats_id_rotates_the_session_everywhere() {
    let classic = Classic::start();
    let mut browser = Browser::new(classic.envoy.port());
    let before = Page::read(&browser.get("/"));
    let id = Token::read(&browser.token().unwrap()).id;
    let attacker = browser.clone();

    let login = browser.get("/login.jsp");
    assert_eq!(login.status, 302);
    assert!(login.all("set-cookie").iter().all(|cookie| !cookie.starts_with("JSESSIONID")), "{login:?}");
    let token = Token::read(&browser.token().unwrap());
    assert_eq!((token.id, token.version), (id, 2), "the token is another, the session is the same");

    let after: Vec<Page> = (0..4).map(|_| Page::read(&browser.get("/"))).collect();
    assert_ne!(after[0].session, before.session);
    for page in &after {
        assert_eq!((page.session.as_str(), page.user.as_str()), (after[0].session.as_str(), "alice"));
    }
    assert!(after.windows(2).all(|pair| pair[0].colour != pair[1].colour), "{after:?}");

    // A client that knew the token from before the login sees nothing of it.
    let planted = Page::read(&attacker.clone().get("/"));
    assert_eq!(planted.user, "not logged in");
    assert!(planted.session != after[0].session && planted.session != before.session, "{planted:?}");
}
