//! How sessions time out: unused for long enough, or simply old enough.

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::wait;

const DAY: i64 = 24 * 60 * 60;

fn on(gateway: &Gateway, plugin: Value) -> Mesh {
    Mesh::configured(|envoy| envoy.plugin(plugin).cluster("session_gateway", &[gateway.port()]))
}

fn stored(mesh: &Mesh) -> (Browser, String) {
    let mut browser = mesh.browser();
    let id = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#)).seen().id();
    assert_eq!(browser.get("/").seen().state(), "active");
    (browser, id)
}

fn ends_when_unused(gateway: &Gateway) {
    let mesh = on(
        gateway,
        json!({"timeouts": {"idle": "3s", "touch_after": "1s", "rotation_grace": "1s"}, "cache": {"ttl": "1s"}}),
    );
    let (mut browser, id) = stored(&mesh);
    // Looked at without `?touch`, which is no use of it.
    wait::until("it was not used for three seconds", || gateway.data(&id).is_none().then_some(()));
    let answer = browser.get("/");
    assert_eq!((answer.seen().state(), answer.seen().data()), ("expired".to_owned(), json!({})));
    assert_ne!(answer.seen().id(), id);
    assert_eq!(answer.all("set-cookie").len(), 1);
    // A write with the new cookie begins a session of its own.
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":2}"#));
    assert_eq!((gateway.data(&id), browser.get("/").seen().data()), (None, json!({"n": 2})));
}

#[test]
fn an_unused_session_ends_in_memory() {
    ends_when_unused(&Gateway::start("memory:"));
}

#[test]
fn an_unused_session_ends_in_memcached() {
    let memcached = Memcached::start();
    ends_when_unused(&Gateway::start(&memcached.url()));
}

fn ends_though_it_is_used(gateway: &Gateway) {
    let mesh = on(
        gateway,
        json!({
            "timeouts": {"idle": "3s", "absolute": "5s", "touch_after": "0s", "rotation_grace": "1s"},
            "cache": {"ttl": "1s"},
        }),
    );
    let (mut browser, id) = stored(&mesh);
    let field = |name: &str| -> Option<u64> {
        let answer = gateway.call(Request::get(&format!("/v1/sessions/{id}")));
        answer.header(name).map(|time| time.parse().unwrap())
    };
    let created = field("session-created").unwrap();
    let mut last = created;
    wait::until("the session is five seconds old", || {
        last = field("session-expires").unwrap_or(last).max(last);
        (browser.get("/").seen().state() == "expired").then_some(())
    });
    // Being used has put it off, but not past the absolute timeout, give or take the second that memcached counts in.
    assert!(last > created + 3 && last <= created + 6, "{created} {last}");
    assert_eq!(gateway.data(&id), None);
}

#[test]
fn a_session_in_use_ends_with_its_absolute_timeout_in_memory() {
    ends_though_it_is_used(&Gateway::start("memory:"));
}

#[test]
fn a_session_in_use_ends_with_its_absolute_timeout_in_memcached() {
    let memcached = Memcached::start();
    ends_though_it_is_used(&Gateway::start(&memcached.url()));
}

#[test]
fn a_use_extends_the_time_to_live_once_touch_after_is_over() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let timeouts =
        |touch_after: &str| json!({"timeouts": {"idle": "60s", "touch_after": touch_after}, "cache": {"ttl": "0s"}});
    let (eager, patient) = (on(&gateway, timeouts("1s")), on(&gateway, timeouts("50s")));
    let (mut browser, id) = stored(&eager);
    let ttl = || memcached.item(&format!("sm:s:{id}")).unwrap().ttl;
    wait::until("some of its time has passed", || (ttl() <= 57).then_some(()));
    let late = browser.with_cookies(Request::get("/")).send(patient.envoy.port());
    assert_eq!(late.seen().state(), "active");
    assert!(ttl() <= 57, "it was extended before touch_after");
    assert_eq!(browser.get("/").seen().state(), "active");
    assert!(ttl() >= 58, "it was not extended");
}

#[test]
fn a_session_may_live_for_months() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    // memcached takes a number over 30 days for a date.
    let mesh = on(&gateway, json!({"timeouts": {"idle": "60d", "absolute": "90d"}, "cache": {"ttl": "0s"}}));
    let (mut browser, id) = stored(&mesh);
    let ttl = memcached.item(&format!("sm:s:{id}")).unwrap().ttl;
    // Its clock may be a second behind the gateway's, which names the end.
    assert!((60 * DAY - 60..=60 * DAY + 1).contains(&ttl), "{ttl}");
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}
