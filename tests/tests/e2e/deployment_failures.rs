//! `docs/deploy/failures.md`: each failure is provoked, and produces the documented line.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use session_mesh_e2e::browser::Browser;
use session_mesh_e2e::built;
use session_mesh_e2e::envoy::Configuration;
use session_mesh_e2e::envoy::xds::{Dynamic, File, Files};
use session_mesh_e2e::gateway::{Gateway, TOKEN};
use session_mesh_e2e::http::Request;
use session_mesh_e2e::memcached::Memcached;
use session_mesh_e2e::ports;
use session_mesh_e2e::process::{self, Process};
use session_mesh_e2e::upstream::Upstream;
use session_mesh_e2e::wait;
use tempfile::TempDir;

const DOCUMENT: &str = include_str!("../../../docs/deploy/failures.md");

/// What a log or a page says by now, as long as the failure lasts.
type Evidence = Box<dyn Fn() -> String>;

/// One row of the document.
struct Row {
    failure: String,
    place: String,
    line: String,
}

/// The rows below a heading.
fn rows(heading: &str) -> Vec<Row> {
    let section = DOCUMENT.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("there is no heading {heading}"));
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| failure ");
    section.lines().filter(is_row).map(row).collect()
}

fn row(line: &str) -> Row {
    // In a cell, `|` is written `\|`.
    let line = line.replace(r"\|", "\0");
    let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\0', "|")).collect();
    let [failure, place, code, _cure] = &cells[..] else { panic!("{line} has four cells") };
    let inner = |fence: &str| code.strip_prefix(fence)?.strip_suffix(fence).map(str::to_owned);
    let line = inner("``").or_else(|| inner("`")).unwrap_or_else(|| panic!("{code} is not code"));
    Row { failure: failure.clone(), place: place.clone(), line }
}

/// Whether a log has such a line: what is between the placeholders `<…>`, in this order. Runs of spaces count as one:
/// protobuf puts them into its messages at random, so that no program relies on their text.
fn has_line(log: &str, pattern: &str) -> bool {
    let literals: Vec<&str> = pattern
        .split('<')
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split_once('>').map_or(part, |(_, literal)| literal) })
        .collect();
    log.lines().any(|line| {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = literals.iter().try_fold(line.as_str(), |rest, literal| Some(rest.split_once(literal)?.1));
        found.is_some()
    })
}

#[test]
fn a_line_is_found_by_what_is_between_its_placeholders() {
    assert!(has_line("x\nerror 12: no  such file: a.wasm", "error <n>: no such file: <path>.wasm"));
    assert!(!has_line("error 12: no such file\n: a.wasm", "error <n>: no such file: <path>.wasm"));
    assert!(!has_line("error: no such file", "error <n>: no such file"));
}

/// Has every failure of a section happen, and looks for its line. The document has no failure that is not run, and the
/// other way round.
fn every_documented_failure_gives_its_line(heading: &str, runs: &[(&str, &[&str], &dyn Fn() -> Evidence)]) {
    let rows = rows(heading);
    let mut shown = Vec::new();
    for (place, failures, run) in runs {
        let evidence = run();
        for failure in *failures {
            let row = rows.iter().find(|row| row.failure == *failure && row.place == *place);
            let row = row.unwrap_or_else(|| panic!("{heading}: no row for {failure} in {place}"));
            wait::until(&format!("{failure}: {place} says {:?}", row.line), || {
                has_line(&evidence(), &row.line).then_some(())
            });
            shown.push(*failure);
        }
    }
    let mut documented: Vec<&str> = rows.iter().map(|row| row.failure.as_str()).collect();
    documented.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, documented, "{heading}");
}

#[test]
fn every_section_of_the_document_is_run() {
    let sections = DOCUMENT.split("\n## ").skip(1).filter(|section| section.contains("\n| failure |"));
    let headings: Vec<&str> = sections.filter_map(|section| section.lines().next()).collect();
    let source = include_str!("deployment_failures.rs");
    for heading in &headings {
        assert!(source.contains(&format!("\n        \"{heading}\",\n")), "{heading}");
    }
    assert_eq!(headings.len(), 7, "{headings:?}");
}

const ENVOY: &str = "Envoy's log";
const ENVOY_DEBUG: &str = "Envoy's debug log";
const ACCESS: &str = "Envoy's access log";
const STATISTICS: &str = "Envoy's statistics";
const GATEWAY: &str = "gateway's log";
const METRICS: &str = "gateway's metrics";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What an Envoy says that does not start.
fn refused(configuration: &Configuration) -> Evidence {
    let folder = folder();
    let log = configuration.process(folder.path()).log_at_end();
    Box::new(move || log.clone())
}

fn module(path: &Path) -> Value {
    json!({"vm_config": {"code": {"local": {"filename": path.to_str().unwrap()}}}})
}

/// A file that starts like the filter's module.
fn damaged(folder: &Path) -> PathBuf {
    let path = folder.join("damaged.wasm");
    fs::write(&path, fs::read(built::filter()).unwrap().get(..10_000).unwrap()).unwrap();
    path
}

#[test]
fn envoy_does_not_start() {
    let environment = json!({"vm_config": {"environment_variables": {"host_env_keys": ["SESSION_SECRETS"]}}});
    let folder = folder();
    every_documented_failure_gives_its_line(
        "Envoy does not start",
        &[
            (ENVOY, &["the module's file is missing"], &|| {
                refused(&Configuration::read().wasm(module(Path::new("dist/nothing.wasm"))))
            }),
            (ENVOY, &["the module's file is damaged"], &|| {
                refused(&Configuration::read().wasm(module(&damaged(folder.path()))))
            }),
            (ENVOY, &["no secret"], &|| refused(&Configuration::read().secrets(""))),
            (ENVOY, &["a secret that is too short"], &|| refused(&Configuration::read().secrets("dG9vIHNob3J0"))),
            (ENVOY, &["a secret that is not base64"], &|| refused(&Configuration::read().secrets("no base64!"))),
            (ENVOY, &["the gateway's token is not passed to the filter"], &|| {
                refused(&Configuration::read().wasm(environment.clone()))
            }),
            (ENVOY, &["an unknown key"], &|| refused(&Configuration::read().plugin(json!({"cokie": {}})))),
            (ENVOY, &["xDS: Envoy has no node name"], &|| {
                refused(Files::read().bootstrap(Configuration::without_node).configuration())
            }),
            (ENVOY, &["xDS: the filter's file is missing"], &|| {
                let files = Files::read();
                files.remove(File::Filter);
                refused(files.configuration())
            }),
        ],
    );
}

/// The log of an Envoy on the files of `envoy/xds/`.
fn log_of(mesh: Dynamic) -> Evidence {
    watched(mesh, |mesh| mesh.envoy.log())
}

/// What an Envoy on the files of `envoy/xds/` says. The whole of it is kept: without its files, Envoy has more to say.
fn watched(mesh: Dynamic, look: impl Fn(&Dynamic) -> String + 'static) -> Evidence {
    Box::new(move || look(&mesh))
}

fn replaced(file: File, text: &str) -> Dynamic {
    let files = Files::read();
    files.replace(file, text);
    files.start()
}

#[test]
fn envoy_runs_without_the_filter() {
    every_documented_failure_gives_its_line(
        "Envoy runs without the filter",
        &[
            (ENVOY, &["xDS: the first filter is invalid"], &|| {
                let mut files = Files::read();
                files.plugin(json!({"cokie": {}}));
                log_of(files.start())
            }),
            (ENVOY, &["xDS: the first filter can't be read"], &|| log_of(replaced(File::Filter, "resources: [{"))),
        ],
    );
}

#[test]
fn envoy_goes_on_with_the_old_filter() {
    let updated = |change: &dyn Fn(&mut Files)| {
        let mut mesh = Files::read().start();
        change(&mut mesh.files);
        mesh
    };
    let another_key: &dyn Fn(&mut Files) = &|files| files.plugin(json!({"creat": "lazy"}));
    every_documented_failure_gives_its_line(
        "Envoy goes on with the old filter",
        &[
            (ENVOY, &["update: an unknown key", "update: Envoy's own line"], &|| log_of(updated(another_key))),
            (STATISTICS, &["update: a counter rises"], &|| {
                watched(updated(another_key), |mesh| mesh.envoy.page("/stats"))
            }),
            (ENVOY, &["update: the module's file is missing"], &|| {
                log_of(updated(&|files| files.module(Path::new("dist/nothing.wasm"))))
            }),
            (ENVOY, &["update: a different name"], &|| {
                log_of(updated(&|files| {
                    let named = |name| format!(r#""name":"{name}","typed_config""#);
                    let filter = files.content(File::Filter).replace(&named("session-mesh"), &named("sessions"));
                    files.replace(File::Filter, &filter);
                }))
            }),
            (ENVOY, &["update: a cluster with an unknown key"], &|| {
                log_of(updated(&|files| files.cluster(json!({"conect_timeout": "1s"}))))
            }),
        ],
    );
}

/// An Envoy that is asked for something that needs the gateway.
fn asked(configuration: Configuration) -> session_mesh_e2e::envoy::Envoy {
    let envoy = configuration.start();
    Request::get("/").respond("x-session-patch", r#"{"n":1}"#).send(envoy.port());
    envoy
}

/// A gateway with another token than Envoy's, and Envoy, which was asked for a session that exists.
fn gateway_with_another_token() -> (Process, u16) {
    const OTHER: &str = "another-token-0123456789";
    let app = Upstream::start();
    // A token for a session that is stored, from an installation where everything is right.
    let right = Gateway::start("memory:");
    let configured =
        |gateway: u16| Configuration::read().cluster("session_gateway", &[gateway]).cluster("app", &[app.port()]);
    let envoy = configured(right.port()).start();
    let mut browser = Browser::new(envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));

    let (port, admin_port) = (ports::free(), ports::free());
    let mut command = gateway(port, admin_port);
    command.env("SESSION_GATEWAY_TOKEN", OTHER);
    let mut process = Process::start("session-gateway", command, "It is part of this repository.");
    process.until(|| Request::get("/readyz").try_send(admin_port).filter(|answer| answer.status == 200));
    let envoy = configured(port).start();
    browser.go_to(envoy.port());
    assert_eq!(browser.get("/").status, 503);
    (process, admin_port)
}

#[test]
fn the_filter_cannot_reach_the_gateway() {
    let app = Upstream::start();
    let read = || Configuration::read().cluster("app", &[app.port()]);
    let folder = folder();
    every_documented_failure_gives_its_line(
        "The filter can't reach the gateway",
        &[
            (ENVOY, &["the cluster is missing"], &|| {
                let envoy = asked(read().without_cluster("session_gateway"));
                Box::new(move || envoy.log())
            }),
            (ENVOY, &["a waypoint without the cluster"], &|| {
                let cluster = "outbound|9100||session-gateway.session-mesh.svc.cluster.local";
                let envoy = asked(read().plugin(json!({"gateway": {"cluster": cluster}})));
                Box::new(move || envoy.log())
            }),
            (ENVOY, &["the cluster has no endpoint"], &|| {
                let envoy = asked(read().cluster("session_gateway", &[]));
                Box::new(move || envoy.log())
            }),
            (ACCESS, &["the gateway is not running"], &|| {
                let envoy = asked(read().cluster("session_gateway", &[ports::free()]));
                Box::new(move || envoy.log())
            }),
            (ENVOY_DEBUG, &["Envoy has no access to the gateway's unix socket"], &|| {
                let socket = folder.path().join("gateway.sock");
                let mut command = gateway(ports::free(), ports::free());
                command.arg(format!("--listen=unix:{}", socket.display())).arg("--unix-socket-mode=000");
                command.env("SESSION_GATEWAY_TOKEN", TOKEN);
                let gateway = Process::start("session-gateway", command, "It is part of this repository.");
                wait::until("the gateway listens", || gateway.log().contains("serving the admin port").then_some(()));
                let configuration = read().cluster_on_socket("session_gateway", &socket);
                let (port, admin_port) = (configuration.listener_port(), configuration.admin_port());
                let mut envoy = configuration.unprivileged_process(folder.path());
                envoy.until(|| Request::get("/ready").try_send(admin_port).filter(|answer| answer.status == 200));
                assert_eq!(Request::new("POST", "/logging?connection=debug").send(admin_port).status, 200);
                Request::get("/").respond("x-session-patch", r#"{"n":1}"#).send(port);
                Box::new(move || {
                    let _keep = &gateway;
                    envoy.log()
                })
            }),
            (GATEWAY, &["Envoy and the gateway have different tokens"], &|| {
                let (gateway, _) = gateway_with_another_token();
                Box::new(move || gateway.log())
            }),
            (METRICS, &["different tokens, as a metric"], &|| {
                let (gateway, admin_port) = gateway_with_another_token();
                Box::new(move || {
                    let _keep = &gateway;
                    Request::get("/metrics").send(admin_port).text()
                })
            }),
        ],
    );
}

/// The names of all that the filter calls and is called by: the words in its module that look like one.
fn capabilities() -> BTreeSet<String> {
    const WASI: [&str; 6] =
        ["clock_time_get", "environ_get", "environ_sizes_get", "fd_write", "proc_exit", "random_get"];
    let module = fs::read(built::filter()).unwrap();
    let words = module.split(|byte| !byte.is_ascii_lowercase() && *byte != b'_').map(String::from_utf8_lossy);
    words.filter(|word| word.starts_with("proxy_") || WASI.contains(&&**word)).map(Into::into).collect()
}

/// A filter that fails with each request, which ours has no way to do (WebAssembly Core Specification, section 5).
fn failing_module() -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id, u8::try_from(content.len()).unwrap()], content].concat();
    let export = |name: &str, kind: u8, index: u8| {
        [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), &[kind, index]].concat()
    };
    let exports = [
        vec![4],
        export("proxy_abi_version_0_2_1", 0, 0),
        export("proxy_on_memory_allocate", 0, 1),
        export("proxy_on_request_headers", 0, 2),
        export("memory", 2, 0),
    ];
    [
        b"\0asm\x01\0\0\0".to_vec(),
        // () -> (), (i32) -> i32, (i32, i32, i32) -> i32
        section(1, b"\x03\x60\0\0\x60\x01\x7f\x01\x7f\x60\x03\x7f\x7f\x7f\x01\x7f"),
        section(3, b"\x03\0\x01\x02"),
        section(5, b"\x01\0\x01"),
        section(7, &exports.concat()),
        // Nothing; 0; unreachable.
        section(10, b"\x03\x02\0\x0b\x04\0\x41\0\x0b\x03\0\0\x0b"),
    ]
    .concat()
}

/// An Envoy that answers 503 because of its filter, and where its admin pages are.
fn failing(wasm: Value, folder: &Path) -> (Process, u16, impl Fn() + use<>) {
    let configuration = Configuration::read().wasm(wasm);
    let (port, admin_port) = (configuration.listener_port(), configuration.admin_port());
    let mut envoy = configuration.process(folder);
    envoy.until(|| Request::get("/ready").try_send(admin_port).filter(|answer| answer.status == 200));
    let ask = move || assert_eq!(Request::get("/").send(port).status / 100, 5);
    ask();
    (envoy, admin_port, ask)
}

#[test]
fn the_filter_fails() {
    let folder = folder();
    every_documented_failure_gives_its_line(
        "The filter fails",
        &[
            (ENVOY, &["a host call is forbidden"], &|| {
                let mut allowed = capabilities();
                assert!(allowed.remove("proxy_get_header_map_pairs"), "{allowed:?}");
                let allowed: Map<String, Value> = allowed.into_iter().map(|name| (name, json!({}))).collect();
                let restriction = json!({"capability_restriction_config": {"allowed_capabilities": allowed}});
                let (envoy, _, _) = failing(restriction, folder.path());
                Box::new(move || envoy.log())
            }),
            (STATISTICS, &["a filter that was reloaded"], &|| {
                let path = folder.path().join("failing.wasm");
                fs::write(&path, failing_module()).unwrap();
                let (envoy, admin_port, ask) = failing(module(&path), folder.path());
                Box::new(move || {
                    let _keep = &envoy;
                    // A request that finds the VM dead has it loaded again, if that was not just done.
                    ask();
                    Request::get("/stats").send(admin_port).text()
                })
            }),
            (ENVOY, &["a module from the network"], &|| {
                let app = Upstream::start();
                let mut files = Files::read().bootstrap(|envoy| envoy.cluster("app", &[app.port()]));
                files.wasm(json!({"vm_config": {"code": {"local": null, "remote": {
                    "http_uri": {"uri": "http://files.test/session_mesh.wasm", "cluster": "app", "timeout": "1s"},
                    "sha256": "0".repeat(64)
                }}}}));
                log_of(files.start())
            }),
        ],
    );
}

/// A gateway that is not yet told its token.
fn gateway(port: u16, admin_port: u16) -> Command {
    let mut command = Command::new(built::gateway());
    command.env("SESSION_GATEWAY_LISTEN", format!("127.0.0.1:{port}"));
    command.env("SESSION_GATEWAY_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}"));
    command.env_remove("SESSION_GATEWAY_TOKEN");
    command
}

/// What a gateway says that does not start.
fn gateway_refused(command: Command) -> Evidence {
    let log = Process::start("session-gateway", command, "It is part of this repository.").log_at_end();
    Box::new(move || log.clone())
}

#[test]
fn the_gateway_does_not_start() {
    let folder = folder();
    let with = |arguments: &[&str]| {
        let mut command = gateway(ports::free(), ports::free());
        command.args(arguments);
        command
    };
    let with_token = |arguments: &[&str]| {
        let mut command = with(arguments);
        command.env("SESSION_GATEWAY_TOKEN", TOKEN);
        command
    };
    let file = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, TOKEN).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        format!("--token-file={}", path.display())
    };
    every_documented_failure_gives_its_line(
        "The gateway does not start",
        &[
            (GATEWAY, &["no token"], &|| gateway_refused(with(&[]))),
            (GATEWAY, &["a token that is too short"], &|| {
                let mut command = with(&[]);
                command.env("SESSION_GATEWAY_TOKEN", "short");
                gateway_refused(command)
            }),
            (GATEWAY, &["the token's file is missing"], &|| gateway_refused(with(&["--token-file=/nothing/token"]))),
            (GATEWAY, &["the token's file is unreadable"], &|| {
                gateway_refused(process::unprivileged(&with(&[&file("token", 0o000)])))
            }),
            (GATEWAY, &["the port is taken"], &|| {
                let port = ports::free();
                let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
                gateway_refused(with_token(&[&format!("--listen=127.0.0.1:{port}")]))
            }),
            (GATEWAY, &["the socket's folder is not writable"], &|| {
                let closed = folder.path().join("closed");
                fs::create_dir(&closed).unwrap();
                fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
                let socket = format!("--listen=unix:{}", closed.join("gateway.sock").display());
                gateway_refused(process::unprivileged(&with_token(&[&socket])))
            }),
            (GATEWAY, &["another gateway has the socket"], &|| {
                let other = Gateway::start("memory:");
                gateway_refused(with_token(&[&format!("--listen=unix:{}", other.socket().display())]))
            }),
            (GATEWAY, &["an invalid store"], &|| gateway_refused(with_token(&["--store=redis://cache"]))),
        ],
    );
}

#[test]
fn the_gateway_cannot_use_memcached() {
    const ID: &str = "00000000000000000000000000000000";
    // Ready it will not be, so it is asked at once.
    let asked = |store: &str, status: u16| -> Evidence {
        let (port, admin_port) = (ports::free(), ports::free());
        let mut command = gateway(port, admin_port);
        command.arg(format!("--store={store}")).env("SESSION_GATEWAY_TOKEN", TOKEN);
        let mut process = Process::start("session-gateway", command, "It is part of this repository.");
        process.until(|| Request::get("/healthz").try_send(admin_port).filter(|answer| answer.status == 200));
        let call = Request::get(&format!("/v1/sessions/{ID}")).header("authorization", format!("Bearer {TOKEN}"));
        assert_eq!(call.send(port).status, status);
        Box::new(move || process.log())
    };
    every_documented_failure_gives_its_line(
        "The gateway can't use memcached",
        &[
            (GATEWAY, &["memcached is not running"], &|| {
                asked(&format!("memcached://127.0.0.1:{}", ports::free()), 503)
            }),
            (GATEWAY, &["memcached's name does not resolve"], &|| asked("memcached://cache.invalid:11211", 503)),
            (GATEWAY, &["a record of a newer gateway"], &|| {
                let memcached = Memcached::start();
                memcached.set(&format!("sm:s:{ID}"), "S2{}");
                asked(&memcached.url(), 500)
            }),
        ],
    );
}
