//! `envoy/xds/`: the filter, its cluster and the gateways change while clients keep sending requests.

use std::fs;
use std::thread;

use serde_json::{Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::built;
use session_mesh_e2e::envoy::SECRET;
use session_mesh_e2e::envoy::xds::{Dynamic, File, Files, Verdict};
use session_mesh_e2e::gateway::{Gateway, TOKEN};
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::traffic::Traffic;
use session_mesh_e2e::upstream::Upstream;
use session_mesh_e2e::wait;

/// No copies of sessions: every request needs the gateway, so that none can go well by luck.
fn uncached() -> Value {
    json!({"cache": {"ttl": "0s", "stale_if_error": "0s"}})
}

fn start(mut files: Files, app: &Upstream, gateways: &[u16]) -> Dynamic {
    files.plugin(uncached());
    files.gateways(gateways);
    files.bootstrap(|envoy| envoy.cluster("app", &[app.port()])).start()
}

#[test]
fn the_files_work_as_they_stand() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
    files.gateways(&[gateway.port()]);
    let mesh = files.start();
    let mut browser = Browser::new(mesh.envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

/// Changes something that can be seen; returns a browser that has seen it.
fn another_configuration_is_taken(mesh: &mut Dynamic, traffic: &Traffic) -> Browser {
    let expose = json!({"upstream": {"expose": {"user": "x-user"}}});
    assert_eq!(mesh.change(File::Filter, |files| files.plugin(expose)), Verdict::Taken);
    traffic.goes_on();
    let mut browser = Browser::new(mesh.envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    assert_eq!(browser.get("/").seen().one("x-user"), "alice");
    browser
}

#[test]
fn the_filter_changes_while_clients_go_on() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut mesh = start(Files::read(), &app, &[gateway.port()]);
    let traffic = Traffic::start(mesh.envoy.port());

    let mut browser = another_configuration_is_taken(&mut mesh, &traffic);

    // An upgrade is another module under another name, and going back is the old name again.
    let vms = || mesh.envoy.statistic("wasm.envoy.wasm.runtime.v8.created");
    let before = vms();
    let other = built::other_filter(mesh.files.folder());
    assert_eq!(mesh.change(File::Filter, |files| files.module(&other)), Verdict::Taken);
    traffic.goes_on();
    let vms = || mesh.envoy.statistic("wasm.envoy.wasm.runtime.v8.created");
    assert!(vms() > before, "the module is another one to Envoy");
    let upgraded = vms();
    assert_eq!(mesh.change(File::Filter, |files| files.module(built::filter())), Verdict::Taken);
    traffic.goes_on();
    assert!(mesh.envoy.statistic("wasm.envoy.wasm.runtime.v8.created") > upgraded);
    assert_eq!(browser.get("/").seen().one("x-user"), "alice");
    traffic.end();
    wait::until("the old modules are gone: one VM each for the base, the main thread and the worker", || {
        (mesh.envoy.statistic("wasm.envoy.wasm.runtime.v8.active") == 3).then_some(())
    });
}

/// Copies outlive a change of the configuration. They must not say more than they hold, nor under another name.
#[test]
fn copies_are_used_only_by_those_who_can_read_them() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut files = Files::read();
    files.plugin(json!({"cache": {"ttl": "10m"}, "upstream": {"expose": {"user": "x-user"}}}));
    files.gateways(&[gateway.port()]);
    let mut mesh = files.bootstrap(|envoy| envoy.cluster("app", &[app.port()])).start();
    let mut browser = Browser::new(mesh.envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice","plan":"free"}"#));
    assert_eq!(browser.get("/").seen().one("x-user"), "alice");
    let calls = gateway.calls();

    for (vm_id, header, look_ups, why) in [
        ("session-mesh", "x-plan", 1, "the copy holds another member"),
        ("session-mesh", "x-tariff", 1, "the same member under another name"),
        ("session-mesh-2", "x-plan", 2, "another vm_id begins with an empty cache"),
    ] {
        let change = |files: &mut Files| {
            files.set_plugin(json!({"upstream": {"expose": {"user": null, "plan": header}}}));
            files.wasm(json!({"vm_config": {"vm_id": vm_id}}));
        };
        assert_eq!(mesh.change(File::Filter, change), Verdict::Taken);
        let seen = wait::until("the new filter is in force", || {
            let seen = browser.get("/").seen();
            (!seen.all(header).is_empty()).then_some(seen)
        });
        assert_eq!((seen.one(header), seen.all("x-user").len()), ("free".to_owned(), 0), "{why}");
        assert_eq!(gateway.calls(), calls + look_ups, "{why}");
    }
}

/// The names in the table of what to alert on; `.other` stands for the name before it with another end.
fn alerts() -> Vec<String> {
    let document = include_str!("../../../docs/deploy/envoy.md");
    let table = document.split("\n| symptom | meaning |\n").nth(1).unwrap();
    let mut names: Vec<String> = Vec::new();
    for row in table.lines().take_while(|line| line.starts_with('|')).skip(1) {
        for code in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            let name = match code.strip_prefix('.') {
                Some(end) => format!("{}.{end}", names.last().unwrap().rsplit_once('.').unwrap().0),
                None => code.to_owned(),
            };
            names.push(name);
        }
    }
    names
}

#[test]
fn every_statistic_to_alert_on_exists() {
    let names = alerts();
    assert!(names.len() >= 8, "{names:?}");
    let mesh = Files::read().start();
    for name in names {
        mesh.envoy.statistic(&name);
    }
}

/// Requests that wait for a gateway which stands still, while something is changed under them: three of one session, of
/// which two wait for the lookup of the first, one of another, and the first write of a new one.
struct InFlight(Vec<Request>);

impl InFlight {
    const REQUESTS: usize = 5;
    /// The two lookups and the write.
    const CALLS: u64 = 3;

    fn new(port: u16) -> Self {
        let logged_in = |user: &str| {
            let mut browser = Browser::new(port);
            browser.send(Request::get("/").respond("x-session-patch", json!({"user": user}).to_string()));
            browser.with_cookies(Request::get("/"))
        };
        let (alice, bob) = (logged_in("alice"), logged_in("bob"));
        let write = Request::get("/").respond("x-session-patch", r#"{"n":1}"#);
        Self(vec![alice.clone(), alice.clone(), alice, bob, write])
    }

    /// Has `change` made while they wait for a gateway, which is behind `cluster`, and returns the statuses of their
    /// answers.
    fn during(
        &self,
        mesh: &mut Dynamic,
        (cluster, gateway): (&str, &mut Gateway),
        change: impl FnOnce(&mut Dynamic),
    ) -> [u16; Self::REQUESTS] {
        let port = mesh.envoy.port();
        gateway.process().pause();
        thread::scope(|scope| {
            let requests: Vec<_> = self.0.iter().map(|request| scope.spawn(|| request.send(port).status)).collect();
            mesh.envoy.until_active(Self::REQUESTS as u64);
            wait::until("the calls are under way", || {
                let calls = mesh.envoy.statistic(&format!("cluster.{cluster}.upstream_rq_active"));
                (calls == Self::CALLS).then_some(())
            });
            change(mesh);
            gateway.process().resume();
            let statuses: Vec<u16> = requests.into_iter().map(|request| request.join().unwrap()).collect();
            statuses.try_into().unwrap()
        })
    }
}

const CLUSTER: &str = "session_gateway";
const SERVED: [u16; InFlight::REQUESTS] = [200; InFlight::REQUESTS];

#[test]
fn requests_in_flight_survive_another_configuration_another_module_and_other_gateways() {
    let memcached = Memcached::start();
    let mut gateway = Gateway::start(&memcached.url());
    let mut second = Gateway::start(&memcached.url());
    let app = Upstream::start();
    let mut mesh = start(Files::read(), &app, &[gateway.port()]);
    let requests = InFlight::new(mesh.envoy.port());

    let configuration = |mesh: &mut Dynamic| {
        let patch = json!({"upstream": {"max_data_bytes": 4096}});
        assert_eq!(mesh.change(File::Filter, |files| files.plugin(patch)), Verdict::Taken);
    };
    assert_eq!(requests.during(&mut mesh, (CLUSTER, &mut gateway), configuration), SERVED, "another configuration");

    let other = built::other_filter(mesh.files.folder());
    let module = |mesh: &mut Dynamic| {
        assert_eq!(mesh.change(File::Filter, |files| files.module(&other)), Verdict::Taken);
    };
    assert_eq!(requests.during(&mut mesh, (CLUSTER, &mut gateway), module), SERVED, "another module");

    let port = second.port();
    let endpoints = |mesh: &mut Dynamic| {
        assert_eq!(mesh.change(File::Endpoints, |files| files.gateways(&[port])), Verdict::Taken);
    };
    assert_eq!(requests.during(&mut mesh, (CLUSTER, &mut gateway), endpoints), SERVED, "another gateway");
    gateway.stop();
    assert_eq!(requests.during(&mut mesh, (CLUSTER, &mut second), |_| {}), SERVED, "which it is");
}

#[test]
fn a_change_of_the_cluster_itself_ends_calls_in_flight_and_a_second_cluster_does_not() {
    const SECOND: &str = "session_gateway_b";
    let app = Upstream::start();
    let memcached = Memcached::start();
    let mut gateway = Gateway::start(&memcached.url());
    let mut mesh = start(Files::read(), &app, &[gateway.port()]);
    let requests = InFlight::new(mesh.envoy.port());

    let patch = json!({"circuit_breakers": {"thresholds": [{"max_connections": 2048}]}});
    let change = |mesh: &mut Dynamic| {
        assert_eq!(mesh.change(File::Clusters, |files| files.cluster(patch)), Verdict::Taken);
    };
    let statuses = requests.during(&mut mesh, (CLUSTER, &mut gateway), change);
    assert_eq!(statuses, [503; InFlight::REQUESTS], "Envoy ends them");
    let again = requests.0.first().unwrap().send(mesh.envoy.port());
    assert_eq!(again.seen().state(), "active", "but no user is logged out");

    // What the document says to do instead: a second cluster, then the filter, then the first one goes.
    let mut second = Gateway::start(&memcached.url());
    let port = second.port();
    assert_eq!(mesh.change(File::Clusters, |files| files.second_cluster(SECOND, port)), Verdict::Taken);
    wait::until("the second cluster is there", || {
        mesh.envoy.page("/clusters").contains(&format!("{SECOND}::")).then_some(())
    });
    let switch = |mesh: &mut Dynamic| {
        let patch = json!({"gateway": {"cluster": SECOND}});
        assert_eq!(mesh.change(File::Filter, |files| files.plugin(patch)), Verdict::Taken);
    };
    assert_eq!(requests.during(&mut mesh, (CLUSTER, &mut gateway), switch), SERVED);
    wait::until("no call is under way in the first cluster", || {
        (mesh.envoy.statistic("cluster.session_gateway.upstream_rq_active") == 0).then_some(())
    });
    assert_eq!(requests.during(&mut mesh, (SECOND, &mut second), |_| {}), SERVED);
    let first_goes = |mesh: &mut Dynamic| {
        assert_eq!(mesh.change(File::Clusters, Files::only_second_cluster), Verdict::Taken);
    };
    assert_eq!(requests.during(&mut mesh, (SECOND, &mut second), first_goes), SERVED);
}

#[test]
fn what_is_broken_is_rejected_and_what_was_there_goes_on() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut mesh = start(Files::read(), &app, &[gateway.port()]);
    let traffic = Traffic::start(mesh.envoy.port());
    let folder = mesh.files.folder().to_owned();
    let (garbage, missing) = (folder.join("garbage.wasm"), folder.join("missing.wasm"));
    fs::write(&garbage, fs::read(built::filter()).unwrap().get(..10_000).unwrap()).unwrap();

    let filter = mesh.files.content(File::Filter);
    let spoilt = |from: &str, to: &str| {
        assert!(filter.contains(from), "{from} in {filter}");
        filter.replace(from, to)
    };
    let module = built::filter().to_str().unwrap();
    let cases = [
        ("a key that does not exist", File::Filter, spoilt(r#""create":"#, r#""creat":"#)),
        ("half a module", File::Filter, spoilt(module, garbage.to_str().unwrap())),
        ("no module", File::Filter, spoilt(module, missing.to_str().unwrap())),
        ("another name", File::Filter, spoilt(r#""name":"session-mesh","typed"#, r#""name":"session","typed"#)),
        ("no filter", File::Filter, "resources: []".to_owned()),
        ("half a file", File::Filter, "resources: [{".to_owned()),
        ("nothing", File::Filter, String::new()),
        ("half a list of clusters", File::Clusters, "resources: [{".to_owned()),
        ("no endpoints", File::Endpoints, String::new()),
    ];
    let fails =
        |mesh: &Dynamic| mesh.envoy.statistic("extension_config_discovery.http_filter.session-mesh.config_fail");
    for (name, file, broken) in cases {
        let (sound, before) = (mesh.files.content(file), fails(&mesh));
        assert_eq!(mesh.change(file, |files| files.replace(file, &broken)), Verdict::Rejected, "{name}");
        assert_eq!(fails(&mesh) - before, u64::from(matches!(file, File::Filter)), "{name}");
        traffic.goes_on();
        assert_eq!(mesh.change(file, |files| files.replace(file, &sound)), Verdict::Taken, "{name}, repaired");
    }

    // A file that is gone changes nothing, and the next one is taken.
    mesh.files.remove(File::Filter);
    traffic.goes_on();
    another_configuration_is_taken(&mut mesh, &traffic);
    traffic.end();
}

#[test]
fn without_a_filter_nothing_is_let_through() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
    files.gateways(&[gateway.port()]);
    files.plugin(json!({"creat": "lazy"}));
    let mut mesh = files.start();
    let forged = Request::get("/").header("x-session-id", "forged");
    for _ in 0..5 {
        assert_eq!(forged.send(mesh.envoy.port()).status, 500);
    }
    assert_eq!(app.requests(), 0);

    assert_eq!(mesh.change(File::Filter, |files| files.plugin(json!({"creat": null}))), Verdict::Taken);
    wait::until("the filter is there", || (forged.send(mesh.envoy.port()).status == 200).then_some(()));
    assert_ne!(forged.send(mesh.envoy.port()).seen().id(), "forged");
}

/// Why the documents say to keep the module in a file. Should this test fail one day, then Envoy has got better.
#[test]
fn a_module_that_envoy_has_to_fetch_for_an_update_lets_requests_through_unfiltered() {
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut mesh = start(Files::read(), &app, &[gateway.port()]);
    let forged = Request::get("/").header("x-session-id", "forged");
    assert_ne!(forged.send(mesh.envoy.port()).seen().id(), "forged");
    let remote = json!({"vm_config": {"code": {"local": null, "remote": {
        "http_uri": {"uri": "http://files.test/session_mesh.wasm", "cluster": "app", "timeout": "1s"},
        "sha256": "0".repeat(64)
    }}}});
    assert_eq!(mesh.change(File::Filter, |files| files.wasm(remote)), Verdict::Taken);
    wait::until("requests pass unfiltered", || {
        (forged.send(mesh.envoy.port()).seen().all("x-session-id") == ["forged"]).then_some(())
    });
    assert_eq!(mesh.change(File::Filter, |files| files.module(built::filter())), Verdict::Taken);
}

#[test]
fn a_secret_in_the_filters_file_is_replaced_in_three_steps_while_clients_go_on() {
    const NEXT: &str = "dGhlIG5leHQgc2VjcmV0IG9mIHRoZSBlbmQtdG8tZW5kIHRlc3Rz";
    // Before 1.39 Envoy keeps a VM whose environment has changed, unless it gets another id.
    let keeps_vm = session_mesh_e2e::envoy::version() < [1, 39];
    let environment = |secrets: &str| {
        let mut config = json!({"vm_config": {"environment_variables": {
            "host_env_keys": null,
            "key_values": {"SESSION_SECRETS": secrets, "SESSION_GATEWAY_TOKEN": TOKEN}
        }}});
        if keeps_vm {
            config["vm_config"]["vm_id"] = format!("session-mesh-{secrets}").into();
        }
        config
    };
    let (app, gateway) = (Upstream::start(), Gateway::start("memory:"));
    let mut files = Files::read();
    files.wasm(environment(SECRET));
    let mut mesh = start(files, &app, &[gateway.port()]);
    let traffic = Traffic::start(mesh.envoy.port());
    let mut absent = Browser::new(mesh.envoy.port());
    absent.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let mut present = absent.clone();
    assert_eq!(present.get("/").all("set-cookie"), [""; 0]);

    for secrets in [format!("{SECRET},{NEXT}"), format!("{NEXT},{SECRET}")] {
        assert_eq!(mesh.change(File::Filter, |files| files.wasm(environment(&secrets))), Verdict::Taken);
        traffic.goes_on();
    }
    wait::until("the present client gets a new token", || {
        let answer = present.get("/");
        assert_eq!(answer.seen().state(), "active");
        (!answer.all("set-cookie").is_empty()).then_some(())
    });
    assert_eq!(mesh.change(File::Filter, |files| files.wasm(environment(NEXT))), Verdict::Taken);
    traffic.goes_on();
    traffic.end();
    assert_eq!(present.get("/").seen().one("x-session-subject"), "alice");
    assert_eq!(absent.get("/").seen().state(), "new", "the old secret is worth nothing any more");
}
