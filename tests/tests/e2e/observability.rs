//! What an operator sees: counters, their labels, the access log, and no secret anywhere.

use std::process::Command;

use serde_json::json;
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::built;
use session_mesh_e2e::envoy::SECRET;
use session_mesh_e2e::gateway::TOKEN;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::ports;
use session_mesh_e2e::process::Process;
use session_mesh_e2e::wait;

#[test]
fn requests_lookups_writes_and_cookies_are_counted_and_labelled() {
    let mesh = Mesh::with(json!({
        "cache": {"ttl": "10m"},
        "rules": [{"path_prefix": "/static/", "session": "off"}, {"path_prefix": "/pay/", "session": "strict"}],
    }));
    let mut browser = mesh.browser();
    browser.get("/");
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    browser.get("/");
    browser.get("/pay/");
    browser.get("/static/a.css");
    Request::get("/").header("cookie", format!("{SESSION_COOKIE}=forged")).send(mesh.envoy.port());
    browser.send(Request::get("/").respond("x-session-patch", "{"));
    browser.send(Request::get("/").respond("x-session-control", "destroy"));
    let expected = [
        ("requests.new", 2),
        ("requests.active", 5),
        ("requests.off", 1),
        ("cache.hit", 3),
        ("cache.miss", 1),
        ("lookups.found", 1),
        ("writes.created", 1),
        ("writes.destroyed", 1),
        ("writes_failed.invalid", 1),
        ("tokens_rejected.malformed", 1),
        ("cookies.issued", 3),
        ("cookies.cleared", 1),
    ];
    for (name, count) in expected {
        mesh.envoy.until_counted(name, count);
        assert_eq!(mesh.envoy.counter(name), count, "{name}");
    }
    let prometheus = mesh.envoy.page("/stats/prometheus?filter=session_mesh");
    for (name, count) in expected {
        let (group, value) = name.split_once('.').unwrap();
        let label = match group {
            "requests" => "session_state",
            "tokens_rejected" | "writes_failed" => "session_reason",
            _ => "session_result",
        };
        let line = format!("session_mesh_{group}{{{label}=\"{value}\"}} {count}");
        assert!(prometheus.lines().any(|found| found.ends_with(&line)), "{line} in\n{prometheus}");
    }
    // The write, the strict lookup and the logout. Envoy merges its histograms every five seconds.
    wait::until("three callouts are in the histogram", || {
        let page = mesh.envoy.page("/stats/prometheus?filter=callout_ms");
        page.lines().any(|line| line.contains("callout_ms_count") && line.ends_with(" 3")).then_some(())
    });
}

#[test]
fn the_access_log_names_the_session_the_upstream_saw() {
    let mesh = Mesh::with(json!({"rules": [{"path_prefix": "/static/", "session": "off"}]}));
    let mut browser = mesh.browser();
    let anonymous = browser.send(Request::get("/first")).seen().id();
    browser.send(Request::get("/second").respond("x-session-patch", r#"{"n":1}"#));
    let stored = browser.get("/third").seen().id();
    browser.get("/static/x");
    for (path, session) in [
        ("/first", format!("session={anonymous} new")),
        ("/second", format!("session={anonymous} active")),
        ("/third", format!("session={stored} active")),
        ("/static/x", "session=- -".to_owned()),
    ] {
        wait::until(&format!("{path} is logged"), || {
            mesh.envoy
                .log()
                .lines()
                .any(|line| line.contains(&format!(" {path} ")) && line.ends_with(&session))
                .then_some(())
        });
    }
}

#[test]
fn no_secret_is_logged_however_much_is() {
    let folder = tempfile::tempdir().unwrap();
    let (port, admin_port) = (ports::free(), ports::free());
    let mut command = Command::new(built::gateway());
    command
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--admin-listen=127.0.0.1:{admin_port}"))
        .args(["--store=memory:", "--log-level=trace"])
        .env("SESSION_GATEWAY_TOKEN", TOKEN)
        .current_dir(folder.path());
    let mut gateway = Process::start("session-gateway", command, "It is part of this repository.");
    gateway.until(|| Request::get("/readyz").try_send(admin_port).filter(|answer| answer.status == 200));
    let mesh =
        Mesh::configured(|envoy| envoy.plugin(json!({"cache": {"ttl": "0s"}})).cluster("session_gateway", &[port]));
    // Envoy's own code logs whole requests at this level, so only the filter's part is turned up.
    mesh.envoy.log_everything_of("wasm");

    let mut browser = mesh.browser();
    let mut tokens = Vec::new();
    for instruction in [
        None,
        Some(("x-session-patch", r#"{"password":"hunter2"}"#)),
        Some(("x-session-control", "rotate")),
        Some(("x-session-patch", "{")),
        Some(("x-session-control", "destroy")),
    ] {
        let request = Request::get("/").header("authorization", "Bearer of-the-client");
        let request = instruction.into_iter().fold(request, |request, (name, value)| request.respond(name, value));
        browser.send(request);
        tokens.extend(browser.token());
    }
    let forged = format!("{}forged", tokens[1]);
    Request::get("/").header("cookie", format!("{SESSION_COOKIE}={forged}")).send(mesh.envoy.port());
    let wrong =
        Request::get(&format!("/v1/sessions/{}", "0".repeat(32))).header("authorization", "Bearer a-wrong-token");
    assert_eq!(wrong.send(port).status, 401);

    assert_eq!(tokens.len(), 4);
    let logs = [("Envoy", mesh.envoy.log()), ("the gateway", gateway.log())];
    assert!(logs.iter().all(|(_, log)| !log.is_empty()));
    let secrets = [SECRET, TOKEN, "a-wrong-token", "hunter2", "of-the-client"];
    for (who, log) in &logs {
        for secret in tokens.iter().map(String::as_str).chain(secrets) {
            assert!(!log.contains(secret), "{who} logs {secret}");
        }
    }
    let pages =
        [mesh.envoy.page("/stats"), mesh.envoy.page("/config_dump"), Request::get("/metrics").send(admin_port).text()];
    for page in &pages {
        for secret in tokens.iter().map(String::as_str).chain(secrets) {
            assert!(!page.contains(secret), "{secret} in a page of the admin port");
        }
    }
}

/// An operator who has the access log print `Cookie` finds no token in it, whatever the filter did with the request.
#[test]
fn no_token_is_in_an_access_log_that_prints_cookies() {
    let log = json!([{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": "logged %RESPONSE_CODE% [%REQ(COOKIE)%]\n"}}
        }
    }]);
    let rules = json!([
        {"path_prefix": "/account/", "session": "required"},
        {"path_prefix": "/page/", "session": "required", "redirect": "/login"}
    ]);
    let mut mesh = Mesh::configured(|envoy| {
        envoy.manager(json!({"access_log": log})).plugin(json!({"rules": rules, "cache": {"ttl": "0s"}}))
    });
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let token = browser.token().unwrap();
    browser.set("theme", "dark");
    for (path, status) in [("/", 200), ("/account/", 401), ("/page/", 302)] {
        assert_eq!(browser.get(path).status, status, "{path}");
    }
    mesh.gateway.stop();
    assert_eq!(browser.get("/").status, 503);
    let log = wait::until("all are logged", || {
        let log = mesh.envoy.log();
        (log.matches("logged ").count() >= 5).then_some(log)
    });
    assert!(!log.contains(&token));
    for status in [200, 401, 302, 503] {
        assert!(log.contains(&format!("logged {status} [theme=dark]")), "{status}: {log}");
    }
}
