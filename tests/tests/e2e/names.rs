//! No reading of headers' names, cookies' names and paths in real upstreams lets a client act as another one.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use session_mesh_e2e::envoy::Configuration;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::php::Php;
use session_mesh_e2e::ports;
use session_mesh_e2e::process::Process;
use session_mesh_e2e::tomcat::Tomcat;

/// Prints the variables and cookies that an application sees.
const SHOW: &str = "<?php
header('content-type: application/json');
$is_ours = fn($name) => str_starts_with($name, 'HTTP_X_SESSION_SUBJECT') || str_starts_with($name, 'HTTP_X_USER');
echo json_encode(['seen' => (object) array_filter($_SERVER, $is_ours, ARRAY_FILTER_USE_KEY), 'cookies' => (object) $_COOKIE]);
";

/// Spellings of one name that PHP or CGI can't tell apart.
fn spellings(name: &str) -> Vec<String> {
    let mut all: Vec<String> = ["-", "_", ".", "~", "!", "+", "'"].iter().map(|odd| name.replace('-', odd)).collect();
    all.push(name.replacen('-', ".", 1));
    all.push(name.to_uppercase());
    all
}

fn forged(path: &str) -> Request {
    let names = ["x-session-subject", "x-user"].into_iter().flat_map(spellings);
    names.fold(Request::get(path), |request, name| request.header(&name, "root"))
}

fn assert_no_user_is_root(envoy_port: u16, path: &str, what: &str) {
    let answer = forged(path).send(envoy_port);
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(!answer.text().contains("root"), "{what}: {}", answer.text());
}

/// A user who is logged in and forges names sees their own, and nothing of the forged ones.
fn assert_alice_is_alice(mesh: &Mesh, path: &str, off: &str, shown: &[&str]) {
    let mut browser = mesh.browser();
    browser.send(Request::get("/other/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let port = mesh.envoy.port();
    let answer = browser.with_cookies(forged(path)).send(port).text();
    assert!(!answer.contains("root"), "{answer}");
    for shown in shown {
        assert!(answer.contains(shown), "{shown}: {answer}");
    }
    assert_eq!(answer.matches("alice").count(), shown.len(), "and no other spelling of them: {answer}");
    let answer = browser.with_cookies(forged(off)).send(port).text();
    assert!(!answer.contains("root") && !answer.contains("alice"), "{answer}");
}

fn plugin() -> Value {
    json!({
        "upstream": {"expose": {"user": "x_user"}},
        "rules": [{"path_prefix": "/off/", "session": "off"}]
    })
}

#[test]
fn no_spelling_of_a_header_reaches_php() {
    let php = Php::serve(SHOW, false);
    let direct = forged("/").send(php.port()).text();
    assert!(direct.contains("root"), "PHP alone is fooled: {direct}");
    let mesh = Mesh::configured(|envoy| envoy.plugin(plugin()).cluster("app", &[php.port()]));
    for path in ["/", "/off/x"] {
        assert_no_user_is_root(mesh.envoy.port(), path, path);
    }
    let shown = [r#""HTTP_X_SESSION_SUBJECT":"alice""#, r#""HTTP_X_USER":"alice""#];
    assert_alice_is_alice(&mesh, "/", "/off/x", &shown);
}

#[test]
fn no_spelling_of_a_header_reaches_a_cgi_program() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports::free();
    fs::create_dir(folder.path().join("off")).unwrap();
    for script in ["env.sh", "off/env.sh"] {
        fs::write(
            folder.path().join(script),
            "printf 'Content-Type: text/plain\\r\\n\\r\\n'; env | grep -e HTTP_X_SESSION_SUBJECT -e HTTP_X_USER || true\n",
        )
        .unwrap();
    }
    let configuration = folder.path().join("lighttpd.conf");
    let text = format!(
        "server.document-root = \"{}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
         server.modules = (\"mod_cgi\")\ncgi.assign = (\".sh\" => \"/bin/sh\")\n",
        folder.path().display()
    );
    fs::write(&configuration, text).unwrap();
    let program = if fs::exists("/usr/sbin/lighttpd").unwrap() { "/usr/sbin/lighttpd" } else { "lighttpd" };
    let mut command = Command::new(program);
    command.arg("-D").arg("-f").arg(&configuration);
    let mut lighttpd = Process::start("lighttpd", command, "./test.sh installs it.");
    lighttpd.until(|| Request::get("/env.sh").try_send(port).filter(|answer| answer.status == 200));
    let direct = forged("/env.sh").send(port).text();
    assert!(direct.contains("root"), "a CGI program alone is fooled: {direct}");
    let mesh = Mesh::configured(|envoy| envoy.plugin(plugin()).cluster("app", &[port]));
    for path in ["/env.sh", "/off/env.sh"] {
        assert_no_user_is_root(mesh.envoy.port(), path, path);
    }
    let shown = ["HTTP_X_SESSION_SUBJECT=alice\n", "HTTP_X_USER=alice\n"];
    assert_alice_is_alice(&mesh, "/env.sh", "/off/env.sh", &shown);
}

#[test]
fn php_takes_no_cookie_of_the_client_for_the_adopted_one() {
    let php = Php::serve(SHOW, false);
    let plugin = json!({"create": "eager", "upstream": {"cookie": "ci_session"}});
    let mesh = Mesh::configured(|envoy| envoy.plugin(plugin).cluster("app", &[php.port()]));
    for name in ["ci_session", "ci.session", "ci session", "ci[session", "ci_session[x]", "ci%5fsession", " ci.session"]
    {
        let cookie = format!("{name}=victim; a=1");
        let shown: Value = Request::get("/").header("cookie", cookie).send(mesh.envoy.port()).json();
        let seen = shown.pointer("/cookies/ci_session").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(seen.len(), 32, "{name}: {shown}");
        assert!(!shown.to_string().contains("victim"), "{name}: {shown}");
        assert_eq!(shown.pointer("/cookies/a"), Some(&json!("1")), "{name}");
    }
}

/// Tomcat drops a parameter before it decodes, so what is behind it never takes a segment along.
#[test]
fn no_parameter_gets_past_a_login_on_tomcat() {
    let tomcat = Tomcat::start("red").ready();
    let gateway = Gateway::start("memory:");
    let target = "/%69ndex.jsp;%2f..%2f..%2fpublic";
    assert_eq!(Request::get(target).send(tomcat.port()).status, 200, "Tomcat reads /index.jsp");
    for is_normalized in [false, true] {
        let envoy = Configuration::read()
            .manager(json!({"normalize_path": is_normalized, "merge_slashes": is_normalized}))
            .plugin(json!({"rules": [{"path_prefix": "/index.jsp", "session": "required"}]}))
            .cluster("session_gateway", &[gateway.port()])
            .cluster("app", &[tomcat.port()])
            .start();
        for target in [target, "/index.jsp;%2f..%2f..%2f..%2fp/", "/%2569ndex.jsp;x"] {
            assert_eq!(Request::get(target).send(envoy.port()).status, 401, "{target}");
        }
    }
}

/// What parses its path as a URL takes what follows `//` for a host.
#[test]
fn no_host_in_a_path_gets_past_a_login_on_node() {
    const SCRIPT: &str = "require('http').createServer((request, response) => \
        response.end(new URL(request.url, 'http://app.example').pathname)).listen(process.argv[1], '127.0.0.1');";
    let port = ports::free();
    let mut command = Command::new("node");
    command.args(["-e", SCRIPT, &port.to_string()]);
    let mut node = Process::start("node", command, "./test.sh installs it.");
    node.until(|| Request::get("/").try_send(port));
    let gateway = Gateway::start("memory:");
    for is_normalized in [false, true] {
        let envoy = Configuration::read()
            .manager(json!({"normalize_path": is_normalized, "merge_slashes": false}))
            .plugin(json!({"rules": [{"path_prefix": "/account/", "session": "required"}]}))
            .cluster("session_gateway", &[gateway.port()])
            .cluster("app", &[port])
            .start();
        for target in ["//x/account/y", "//x:80/account/y", "//a@x/account/y", "/\\x/account/y", "//x/b/../account/y"] {
            assert_eq!(Request::get(target).send(port).text(), "/account/y", "Node reads {target}");
            assert_eq!(Request::get(target).send(envoy.port()).status, 401, "{target}");
        }
        assert_eq!(Request::get("/x/account/y").send(envoy.port()).text(), "/x/account/y");
    }
}

/// Where the filter is switched off, nothing is removed: the route itself has to, or a rule does it.
#[test]
fn the_recipes_for_routes_without_the_filter_hold() {
    const NAMES: [&str; 3] = ["x-session-subject", "x-original-url", "x-rewrite-url"];
    let route = |removed: &[&str]| {
        json!({
            "match": {"prefix": "/bare/"},
            "route": {"cluster": "app"},
            "request_headers_to_remove": removed,
            "typed_per_filter_config": {"session-mesh": {
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true
            }}
        })
    };
    let send = |mesh: &Mesh, path: &str| {
        let request = NAMES.into_iter().fold(Request::get(path), |request, name| request.header(name, "root"));
        let seen = request.send(mesh.envoy.port()).seen();
        NAMES.map(|name| seen.all(name).concat())
    };
    let open = Mesh::configured(|envoy| envoy.routes(vec![route(&[])]));
    assert_eq!(send(&open, "/bare/x"), ["root"; 3], "the documented hole");
    let closed = Mesh::configured(|envoy| envoy.routes(vec![route(&NAMES)]));
    assert_eq!(send(&closed, "/bare/x"), [""; 3]);
    let ruled = Mesh::with(json!({"rules": [{"path_prefix": "/bare/", "session": "off"}]}));
    assert_eq!(send(&ruled, "/bare/x")[0], "");
}

/// Rules look at the path alone, where the filter is on, too. What an upstream may read beside it is for the route to
/// take out.
#[test]
fn the_recipe_for_upstreams_that_take_their_path_from_a_header_holds() {
    const NAMES: [&str; 2] = ["x-original-url", "x-rewrite-url"];
    let rules = json!({"rules": [{"path_prefix": "/account/", "session": "required"}]});
    let send = |mesh: &Mesh, name: &str| {
        assert_eq!(Request::get("/account/x").header(name, "/x").send(mesh.envoy.port()).status, 401);
        Request::get("/x").header(name, "/account/x").send(mesh.envoy.port()).seen().all(name)
    };
    let open = Mesh::with(rules.clone());
    let removing = json!({"request_headers_to_remove": NAMES});
    let closed = Mesh::configured(|envoy| envoy.plugin(rules).manager(json!({"route_config": removing})));
    for name in NAMES {
        assert_eq!(send(&open, name), ["/account/x"], "the documented hole");
        assert_eq!(send(&closed, name), [""; 0]);
    }
}
