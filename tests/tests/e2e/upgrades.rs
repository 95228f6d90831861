//! Replacing the filter, the gateway and the secrets while clients keep sending requests, as described in
//! `docs/deploy/upgrades.md`.

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::built;
use session_mesh_e2e::envoy::hot_restart::Generations;
use session_mesh_e2e::envoy::xds::{Dynamic, File, Files, Verdict};
use session_mesh_e2e::envoy::{Configuration, SECRET};
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::traffic::Traffic;
use session_mesh_e2e::upstream::Upstream;
use session_mesh_e2e::wait;

/// No copies of sessions: every request needs the gateway, so that none can go well by luck.
fn uncached() -> Value {
    json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}})
}

fn gateways(mesh: &mut Dynamic, ports: &[u16]) {
    assert_eq!(mesh.change(File::Endpoints, |files| files.gateways(ports)), Verdict::Taken);
}

#[test]
fn gateways_are_replaced_one_after_the_other_without_a_failed_request() {
    let (app, memcached) = (Upstream::start(), Memcached::start());
    let mut pair = [Gateway::start(&memcached.url()), Gateway::start(&memcached.url())];
    let ports = [pair[0].port(), pair[1].port()];
    let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
    files.plugin(uncached());
    files.gateways(&ports);
    let mut mesh = files.start();
    let traffic = Traffic::start(mesh.envoy.port());
    // Twice: there and back again.
    for leaving in [0, 1, 0, 1] {
        gateways(&mut mesh, &[ports[1 - leaving]]);
        wait::until("no client is connected to it", || (pair[leaving].connections() == 0).then_some(()));
        traffic.goes_on();
        pair[leaving].restart();
        gateways(&mut mesh, &ports);
        traffic.goes_on();
        wait::until("it is in use again", || (pair[leaving].connections() > 0).then_some(()));
    }
    traffic.end();
}

const EJECTIONS: &str = "cluster.session_gateway.outlier_detection.ejections_enforced_total";

/// An Envoy with two gateways, of which one has just crashed and was left out for so long.
fn one_of_two_left_out(app: &Upstream, gateways: [&mut Gateway; 2], so_long: &str) -> (Dynamic, Browser) {
    let [crashed, other] = gateways;
    let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
    files.plugin(uncached());
    files.gateways(&[crashed.port(), other.port()]);
    files.cluster(json!({"outlier_detection": {"interval": "0.5s", "base_ejection_time": so_long}}));
    let mesh = files.start();
    let mut browser = Browser::new(mesh.envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":0}"#));
    crashed.stop();
    wait::until("it is left out", || {
        assert_eq!(browser.get("/").seen().state(), "active");
        (mesh.envoy.statistic(EJECTIONS) == 1).then_some(())
    });
    (mesh, browser)
}

#[test]
fn a_gateway_that_crashed_is_left_out() {
    let (app, memcached) = (Upstream::start(), Memcached::start());
    let (mut first, mut second) = (Gateway::start(&memcached.url()), Gateway::start(&memcached.url()));
    let (mesh, _) = one_of_two_left_out(&app, [&mut first, &mut second], "60s");
    let traffic = Traffic::start(mesh.envoy.port());
    traffic.goes_on();
    traffic.end();
    assert_eq!(mesh.envoy.statistic(EJECTIONS), 1);
}

#[test]
fn a_gateway_that_crashed_is_used_again_once_it_is_back() {
    let (app, memcached) = (Upstream::start(), Memcached::start());
    let (mut first, mut second) = (Gateway::start(&memcached.url()), Gateway::start(&memcached.url()));
    let (_mesh, mut browser) = one_of_two_left_out(&app, [&mut first, &mut second], "0.5s");
    first.start_again();
    wait::until("it is in use again", || {
        assert_eq!(browser.get("/").seen().state(), "active");
        (first.connections() > 0).then_some(())
    });
}

#[test]
fn a_gateway_leaves_alone_what_a_newer_one_has_written_and_no_user_is_logged_out() {
    let memcached = Memcached::start();
    let gateway = Gateway::start(&memcached.url());
    let mesh = Mesh::configured(|envoy| envoy.plugin(uncached()).cluster("session_gateway", &[gateway.port()]));
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let (id, token) = (browser.get("/").seen().id(), browser.token());
    let key = format!("sm:s:{id}");
    let old = memcached.item(&key).unwrap().value;

    let newer_format = old.replacen("S1", "S2", 1);
    let newer_field = old.replacen('{', r#"{"zz":1,"#, 1);
    for newer in [newer_format, newer_field] {
        memcached.set(&key, &newer);
        for request in [Request::get("/"), Request::get("/").respond("x-session-patch", r#"{"n":1}"#)] {
            let answer = browser.send(request);
            assert_eq!((answer.status, answer.all("set-cookie").len()), (503, 0), "{newer}");
        }
        assert_eq!(memcached.item(&key).unwrap().value, newer, "it is as it was");
        assert_eq!(browser.token(), token);
    }
    // The newer gateway is back, or has written it in the old format again.
    memcached.set(&key, &old);
    assert_eq!(browser.get("/").seen().one("x-session-subject"), "alice");
}

#[test]
fn the_filter_is_upgraded_and_rolled_back_envoy_by_envoy() {
    let (app, gateway, folder) = (Upstream::start(), Gateway::start("memory:"), tempfile::tempdir().unwrap());
    let other = built::other_filter(folder.path());
    let start = |module: &std::path::Path| {
        let code = json!({"vm_config": {"code": {"local": {"filename": module.to_str().unwrap()}}}});
        let configuration = Configuration::read().cluster("session_gateway", &[gateway.port()]);
        configuration.cluster("app", &[app.port()]).wasm(code).start()
    };
    let (staying, mut leaving) = (start(built::filter()), start(built::filter()));
    let traffic = Traffic::start(staying.port());
    traffic.send_to(&[staying.port(), leaving.port()]);
    traffic.goes_on();
    for module in [other.as_path(), built::filter()] {
        traffic.send_to(&[staying.port()]);
        leaving = start(module);
        traffic.send_to(&[staying.port(), leaving.port()]);
        traffic.goes_on();
    }
    traffic.end();
}

#[test]
fn secrets_of_the_environment_are_replaced_by_hot_restarts_while_clients_go_on() {
    const NEXT: &str = "dGhlIG5leHQgc2VjcmV0IG9mIHRoZSBlbmQtdG8tZW5kIHRlc3Rz";
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let configuration = Configuration::read().cluster("session_gateway", &[gateway.port()]);
    let mut envoys = Generations::start(configuration.cluster("app", &[app.port()]));
    let traffic = Traffic::start(envoys.port());
    let mut browser = Browser::new(envoys.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let mut absent = browser.clone();
    assert_eq!(browser.get("/").all("set-cookie"), [""; 0]);

    envoys.next(&format!("{SECRET},{NEXT}"));
    traffic.goes_on();
    assert_eq!(browser.get("/").all("set-cookie"), [""; 0], "the old one signs");
    envoys.next(&format!("{NEXT},{SECRET}"));
    traffic.goes_on();
    assert_eq!(browser.get("/").all("set-cookie").len(), 1, "the new one signs");
    envoys.next(NEXT);
    traffic.goes_on();
    traffic.end();
    assert_eq!(browser.get("/").seen().one("x-session-subject"), "alice");
    assert_eq!(absent.get("/").seen().state(), "new", "the old secret is worth nothing any more");
}
