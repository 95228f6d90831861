//! The manifests for Istio and Envoy Gateway: tests with the Envoy that each results in.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use session_mesh_e2e::built;
use session_mesh_e2e::envoy::SECRET;
use session_mesh_e2e::gateway::TOKEN;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::manifest::istio::{Proxy, Role};
use session_mesh_e2e::manifest::{Backends, Manifests, Setup, envoy_gateway};
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::ports;
use session_mesh_e2e::process::Process;
use session_mesh_e2e::upstream::Upstream;

const INGRESS_GATEWAY: &str = "istio/overlays/ingress-gateway";
const SIDECARS: &str = "istio/overlays/sidecars";
const WAYPOINT: &str = "istio/overlays/waypoint";
const ENVOY_FILTER: &str = "istio/overlays/envoyfilter";
const UNIX_SOCKET: &str = "istio/overlays/unix-socket";
const ENVOY_GATEWAY: &str = "gateway-api";

/// The ingress gateway that the manifests themselves deploy.
fn ingress(manifests: &Manifests) -> Proxy {
    let deployment = manifests.one("Deployment", "session-ingress");
    let labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
    Proxy::new("istio-ingress", labels, Role::Gateway)
}

fn sidecar() -> Proxy {
    Proxy::new("applications", json!({"app": "red", "session-mesh": "enabled"}), Role::SidecarInbound)
}

fn waypoint() -> Proxy {
    Proxy::new("applications", json!({}), Role::Waypoint("session-waypoint"))
}

fn start(manifests: &Manifests, proxy: &Proxy) -> Setup {
    Setup::start(|backends, discovered| proxy.configuration(manifests, backends, discovered.path()))
}

fn start_ingress(manifests: &Manifests) -> Setup {
    start(manifests, &ingress(manifests))
}

fn patch(value: &str) -> Request {
    Request::get("/").respond("x-session-patch", value)
}

/// What every proxy of every control plane has to do.
fn drive(setup: &mut Setup) {
    // One session over two applications, and none that a client made up.
    let mut browser = setup.browser();
    let forged = "0".repeat(32);
    let first = browser.send(Request::get("/").header("x-session-id", &forged));
    assert_eq!((first.status, first.seen().state(), first.all("set-cookie").len()), (200, "new".to_owned(), 1));
    let id = first.seen().id();
    assert_ne!(id, forged);
    assert_eq!(browser.get("/").seen().id(), id);
    assert_eq!(setup.applications.each_ref().map(Upstream::requests), [1, 1]);

    // What one application writes, the other reads with the next request.
    assert_eq!(browser.send(patch(r#"{"cart":{"n":1}}"#)).status, 200);
    let second = browser.get("/").seen();
    assert_eq!((second.state(), second.version(), second.data()), ("active".to_owned(), 1, json!({"cart": {"n": 1}})));
    assert_eq!(setup.applications.each_ref().map(Upstream::requests), [2, 2]);
    assert_eq!(setup.gateway.data(&second.id()), Some(json!({"cart": {"n": 1}})));
    setup.envoy.until_counted("writes.created", 1);

    // Without a gateway nothing pretends to be saved, and no user is logged out.
    let token = browser.token();
    setup.gateway.stop();
    let refused = browser.send(patch(r#"{"cart":{"n":2}}"#));
    assert_eq!((refused.status, refused.header("x-session-error").unwrap().as_str()), (503, "store-unavailable"));
    assert_eq!((refused.all("set-cookie").len(), browser.token()), (0, token));
    let anonymous = setup.browser().get("/");
    assert_eq!((anonymous.status, anonymous.seen().state()), (200, "new".to_owned()));
}

/// The stream idle timeout of a running Envoy's connection manager.
fn stream_idle_timeout(setup: &Setup) -> String {
    let page: Value = serde_json::from_str(&setup.envoy.page("/config_dump")).unwrap();
    let text = page.to_string();
    let (_, rest) = text.split_once(r#""stream_idle_timeout":""#).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// Istio lets a request be idle for ever; the manifests don't.
fn drive_istio(mut setup: Setup) {
    assert_eq!(stream_idle_timeout(&setup), "60s");
    drive(&mut setup);
}

#[test]
fn a_wasm_plugin_on_an_ingress_gateway() {
    drive_istio(start_ingress(&Manifests::render(INGRESS_GATEWAY).patient()));
}

#[test]
fn a_wasm_plugin_on_sidecars() {
    drive_istio(start(&Manifests::render(SIDECARS).patient(), &sidecar()));
}

#[test]
fn a_wasm_plugin_on_a_waypoint() {
    drive_istio(start(&Manifests::render(WAYPOINT).patient(), &waypoint()));
}

#[test]
fn an_envoy_filter_with_a_cluster_of_its_own() {
    drive_istio(start_ingress(&Manifests::render(ENVOY_FILTER).patient()));
}

#[test]
fn a_gateway_on_a_unix_socket() {
    drive_istio(start_ingress(&Manifests::render(UNIX_SOCKET).patient()));
}

#[test]
fn an_envoy_extension_policy() {
    let manifests = Manifests::render(ENVOY_GATEWAY).patient();
    let mut setup = Setup::start(|backends, _| envoy_gateway::configuration(&manifests, "session-mesh", backends));
    // What the second EnvoyPatchPolicy is for.
    assert!(setup.envoy.page("/config_dump").contains(r#""failure_policy": "FAIL_RELOAD""#));
    drive(&mut setup);
}

#[test]
fn a_plugins_configuration_may_come_as_a_struct_or_as_text() {
    // Istio sends a WasmPlugin's as a string of JSON, and an EnvoyFilter's as it is written. Both are driven above;
    // this is each of them the other way round, whatever a version does.
    let filter = Manifests::render(ENVOY_FILTER).patient().change("EnvoyFilter", |filter| {
        for patch in filter["spec"]["configPatches"].as_array_mut().unwrap() {
            if let Some(configuration) = patch.pointer_mut("/patch/value/typed_config/config/configuration") {
                assert_eq!(configuration["@type"], "type.googleapis.com/google.protobuf.Struct");
                let text = configuration["value"].to_string();
                *configuration = json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text});
            }
        }
    });
    let plugin = Manifests::render(INGRESS_GATEWAY).patient();
    let as_struct = ingress(&plugin).with_struct_configuration();
    for setup in [start_ingress(&filter), start(&plugin, &as_struct)] {
        assert_eq!(setup.browser().get("/").seen().state(), "new");
    }
}

#[test]
fn an_authorization_policy_sees_the_sessions_headers_and_none_that_a_client_made_up() {
    let active = json!({"permissions": [{"any": true}], "principals": [
        {"header": {"name": "x-session-state", "string_match": {"exact": "active"}}},
    ]});
    let rbac = json!({"name": "envoy.filters.http.rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"active": active}},
    }});
    let manifests = Manifests::render(INGRESS_GATEWAY).patient();
    let setup = start(&manifests, &ingress(&manifests).with_authorization(rbac));
    let mut browser = setup.browser();
    let forged = patch(r#"{"n":1}"#).header("x-session-state", "active");
    assert_eq!(browser.send(forged).seen().state(), "new");
    assert_eq!(browser.get("/").status, 403);
}

#[test]
fn without_its_secrets_the_filter_lets_nothing_through() {
    let manifests = Manifests::render(INGRESS_GATEWAY).change("WasmPlugin", |plugin| {
        plugin["spec"]["vmConfig"]["env"].as_array_mut().unwrap().retain(|entry| entry["name"] != "SESSION_SECRETS");
    });
    let setup = start_ingress(&manifests);
    let answer = setup.browser().get("/");
    assert_eq!((answer.status, answer.body.len()), (500, 0));
    assert_eq!(setup.applications.each_ref().map(Upstream::requests), [0, 0]);

    // Envoy Gateway's listener is one piece: all of it is refused.
    let manifests = Manifests::render(ENVOY_GATEWAY).change("EnvoyExtensionPolicy", |policy| {
        policy["spec"]["wasm"][0]["env"]["hostKeys"] = json!(["SESSION_GATEWAY_TOKEN"]);
    });
    let backends = Backends { gateway: ports::free(), socket: "unused".into(), applications: [ports::free(); 2] };
    let refused = envoy_gateway::configuration(&manifests, "session-mesh", &backends).validate().unwrap_err();
    assert!(refused.contains("SESSION_SECRETS"), "{refused}");
}

/// Another team's plugin, in the same proxy.
fn plugin(name: &str, priority: i32, image: &str, config: &Value) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": "istio-ingress"},
        "spec": {
            "selector": {"matchLabels": {"istio": "session-ingress"}},
            "url": format!("oci://registry.example.com/session-mesh/{image}:0.1.0"),
            "phase": "AUTHN",
            "priority": priority,
            "vmConfig": {"env": [
                {"name": "SESSION_SECRETS", "valueFrom": "HOST"},
                {"name": "SESSION_GATEWAY_TOKEN", "valueFrom": "HOST"},
            ]},
            "pluginConfig": config,
        },
    })
}

#[test]
fn plugins_that_share_a_vm_id_do_not_share_sessions() {
    // Istio sets no vm_id, so all plugins of a proxy share their shared data. Here are another project's filter, and
    // this one a second time, in front of the first, with another cookie. Both have one slot for their copies: the
    // same.
    let cache = json!({"slots": 1});
    let second = plugin(
        "second",
        200,
        "filter",
        &json!({
            "gateway": {"cluster": "outbound|9100||session-gateway.session-mesh.svc.cluster.local"},
            "cookie": {"name": "second"},
            "cache": cache,
            "upstream": {"expose": {"n": "x-second-n"}},
        }),
    );
    let manifests =
        Manifests::render(INGRESS_GATEWAY).with(plugin("noop", 300, "noop-filter", &json!({"any": "thing"})));
    let alone = manifests
        .clone()
        .change("WasmPlugin", |first| first["spec"]["selector"] = json!({"matchLabels": {"no": "pod"}}));
    let alone = start_ingress(&alone.with(second.clone()).patient());
    let both = manifests.change("WasmPlugin", |first| first["spec"]["pluginConfig"]["cache"] = cache.clone());
    let both = both.with(second).patient();
    let both = Setup::start(|backends, discovered| {
        let backends = Backends { gateway: alone.gateway.port(), ..backends.clone() };
        ingress(&both).configuration(&both, &backends, discovered.path())
    });

    let mut browser = alone.browser();
    browser.send(patch(r#"{"n":2}"#));
    browser.go_to(both.envoy.port());
    // Of two, the one next to the application has the last word in headers, and the first on a patch.
    browser.send(patch(r#"{"n":1}"#));
    for _ in 0..4 {
        let seen = browser.get("/").seen();
        assert_eq!((seen.data(), seen.one("x-second-n")), (json!({"n": 1}), "2".to_owned()));
    }
    let configuration = both.envoy.page("/config_dump");
    assert!(configuration.contains("noop_filter.wasm") && !configuration.contains("vm_id"));
}

/// The manifests without what sets an idle timeout.
fn without_idle_timeout(manifests: Manifests) -> Manifests {
    manifests.change("EnvoyFilter", |filter| {
        let patches = filter["spec"]["configPatches"].as_array_mut().unwrap();
        patches.retain(|patch| patch["applyTo"] != "NETWORK_FILTER");
    })
}

#[test]
fn a_gateway_that_hangs_is_bounded_by_the_callouts_timeout_even_without_an_idle_timeout() {
    let manifests = without_idle_timeout(Manifests::render(SIDECARS)).change("WasmPlugin", |plugin| {
        plugin["spec"]["pluginConfig"]["cache"] = json!({"ttl": "0s"});
        plugin["spec"]["pluginConfig"]["gateway"]["timeout"] = "1s".into();
    });
    let mut setup = start(&manifests, &sidecar());
    assert_eq!(stream_idle_timeout(&setup), "0s");
    // The DestinationRule's.
    assert!(setup.envoy.page("/config_dump").contains(r#""connect_timeout": "0.100s""#));
    let mut browser = setup.browser();
    assert_eq!(browser.send(patch(r#"{"n":1}"#)).status, 200);
    setup.gateway.process().pause();
    let denied = browser.get("/");
    assert_eq!((denied.status, denied.all("set-cookie").len()), (503, 0));
    setup.gateway.process().resume();
    assert_eq!(browser.get("/").seen().data(), json!({"n": 1}));
}

#[test]
fn a_waypoint_does_not_know_the_gateway_unless_it_is_asked_for() {
    let manifests = Manifests::render(WAYPOINT).patient().change("EnvoyFilter", |filter| {
        filter["metadata"]["annotations"].take();
    });
    let setup = start(&manifests, &waypoint());
    let answer = setup.browser().send(patch(r#"{"n":1}"#));
    assert_eq!((answer.status, answer.header("x-session-error").unwrap().as_str()), (503, "store-unavailable"));
}

#[test]
fn a_plugin_for_other_proxies_leaves_this_one_alone() {
    // A selector that names no pod, a match for the other direction, a selector on a waypoint: all are silently
    // nothing.
    let misses: [(&str, Proxy, fn(&mut Value)); 3] = [
        (SIDECARS, sidecar(), |spec| spec["selector"]["matchLabels"]["session-mesh"] = "enable".into()),
        (SIDECARS, sidecar(), |spec| spec["match"][0]["mode"] = "CLIENT".into()),
        (WAYPOINT, waypoint(), |spec| spec["targetRefs"] = spec["selector"].take()),
    ];
    for (folder, proxy, change) in misses {
        let manifests = Manifests::render(folder).change("WasmPlugin", |plugin| change(&mut plugin["spec"]));
        let answer = start(&manifests, &proxy).browser().get("/");
        assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
        assert_eq!(answer.seen().all("x-session-id"), [""; 0]);
    }
}

/// Which namespace the proxies of an overlay take their secrets from.
const SECRETS: [(&str, &str); 6] = [
    (INGRESS_GATEWAY, "istio-ingress"),
    (SIDECARS, "applications"),
    (WAYPOINT, "applications"),
    (ENVOY_FILTER, "istio-ingress"),
    (UNIX_SOCKET, "istio-ingress"),
    (ENVOY_GATEWAY, "envoy-gateway-system"),
];

#[test]
fn the_secrets_are_those_that_the_tests_envoys_and_gateways_have() {
    for (folder, namespace) in SECRETS {
        let manifests = Manifests::render(folder);
        let mut data: Vec<(String, String)> = manifests
            .all("Secret")
            .filter(|secret| secret["metadata"]["namespace"] == namespace)
            .flat_map(|secret| secret["data"].as_object().unwrap())
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        data.sort();
        let encoded = |key: &str, value: &str| (key.to_owned(), STANDARD.encode(value));
        assert_eq!(data, [encoded("SESSION_GATEWAY_TOKEN", TOKEN), encoded("SESSION_SECRETS", SECRET)], "{folder}");
    }
}

/// A container's arguments.
fn arguments<'a>(manifests: &'a Manifests, kind: &'a str, name: &'a str, containers: &str) -> Vec<&'a str> {
    let pod = &manifests.one(kind, name)["spec"]["template"]["spec"];
    let container = pod[containers].as_array().unwrap().iter().find(|container| container["name"] != "istio-proxy");
    container.unwrap()["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect()
}

#[test]
fn the_containers_start_with_their_arguments() {
    let manifests = Manifests::render(INGRESS_GATEWAY);
    let (port, other_port) = (ports::free(), ports::free());
    let node = |port: u16| {
        let arguments = arguments(&manifests, "StatefulSet", "memcached", "containers");
        let mut command = Command::new("memcached");
        command.args(arguments).args(["--user=root", "--listen=127.0.0.1"]).arg(format!("--port={port}"));
        let mut process = Process::start("memcached", command, "./test.sh installs it.");
        process.until(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        process
    };
    let _nodes = [node(port), node(other_port)];
    let folder = tempfile::tempdir().unwrap();
    let sidecars = Manifests::render(UNIX_SOCKET);
    for arguments in [
        arguments(&manifests, "Deployment", "session-gateway", "containers"),
        arguments(&sidecars, "Deployment", "session-ingress", "initContainers"),
    ] {
        let (api, admin) = (ports::free(), ports::free());
        let mut command = Command::new(built::gateway());
        for argument in arguments {
            command.arg(
                argument
                    .replace("0.0.0.0:9100", &format!("127.0.0.1:{api}"))
                    .replace("0.0.0.0:9101", &format!("127.0.0.1:{admin}"))
                    .replace("/run/session-mesh", folder.path().to_str().unwrap())
                    .replace("memcached-0.memcached.session-mesh.svc.cluster.local:11211", &format!("127.0.0.1:{port}"))
                    .replace(
                        "memcached-1.memcached.session-mesh.svc.cluster.local:11211",
                        &format!("127.0.0.1:{other_port}"),
                    ),
            );
        }
        command.env("SESSION_GATEWAY_TOKEN", TOKEN);
        let mut gateway = Process::start("session-gateway", command, "It is part of this repository.");
        // Its probe, and then: both nodes are there.
        gateway.until(|| Request::get("/healthz").try_send(admin).filter(|answer| answer.status == 200));
        assert_eq!(Request::get("/readyz").send(admin).text(), "ready\n");
        gateway.terminate();
    }
}

#[test]
fn one_memcached_that_is_away_does_not_fail_the_gateways_probe() {
    let (here, mut gone) = (Memcached::start(), Memcached::start());
    let store = format!("{},{}", here.url(), gone.url().trim_start_matches("memcached://"));
    let (api, admin) = (ports::free(), ports::free());
    let mut command = Command::new(built::gateway());
    command
        .args([
            format!("--listen=127.0.0.1:{api}"),
            format!("--admin-listen=127.0.0.1:{admin}"),
            format!("--store={store}"),
        ])
        .env("SESSION_GATEWAY_TOKEN", TOKEN);
    let mut gateway = Process::start("session-gateway", command, "It is part of this repository.");
    gateway.until(|| Request::get("/readyz").try_send(admin).filter(|answer| answer.status == 200));
    gone.stop();
    let manifests = Manifests::render(INGRESS_GATEWAY);
    let container = &manifests.one("Deployment", "session-gateway")["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(Request::get(path).send(admin).status, 200, "{probe}");
    }
}
