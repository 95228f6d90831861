//! A rule for a path applies to every spelling of it, whether Envoy normalizes paths or not.

use serde_json::{Value, json};
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::http::{Request, Response};
use session_mesh_e2e::mesh::Mesh;

/// All of them are `/account/x` to some upstream.
const SPELLINGS: [&str; 33] = [
    "/account/x",
    "/account",
    "/account/",
    "/account?x",
    "/account#x",
    "//account/x",
    "/account//x",
    "///account/x",
    "/./account/x",
    "/x/../account/x",
    "/x/..//account/x",
    "/../account/x",
    "/%61ccount/x",
    "/%2561ccount/x",
    "/account%2fx",
    "/account%2Fx",
    "/account%252fx",
    "/%2faccount/x",
    "/x/%2e%2e/account/x",
    "/x/%2E./account/x",
    "/x/%252e%252e/account/x",
    "/x/..%2faccount/x",
    "/ACCOUNT/x",
    "/Account/x",
    "/account;v=1/x",
    "/account;/x",
    "/x/..;/account/x",
    "/x/..;v=1/account/x",
    "/account;x=%2f../x",
    "/account%5cx",
    "/account\\x",
    "/%61ccount;%2f..%2f..%2fpublic/x",
    "/account%2f..%2fx",
];

/// Below `/account/` to some upstream, and to others not; Envoy settles it where it normalizes.
const AMBIGUOUS: [&str; 2] = ["/account/../x", "/account/%2e%2e/x"];

/// The same behind a prefix whose rule is `off`.
const OUT_OF_THE_OPEN: [&str; 8] = [
    "/static/../account/x",
    "/static/%2e%2e/account/x",
    "/static/..%2faccount/x",
    "/static/..%252faccount/x",
    "/static/..;/account/x",
    "/static/..\\account/x",
    "/static/x/../../account/x",
    "/static/%2e%2e%5caccount/x",
];

/// None of them is below `/account/`.
const OTHERS: [&str; 6] = ["/", "/accounting", "/x/account/x", "/accoun/t", "/x?/account/x", "/account./x"];

fn rules(redirect: Option<&str>) -> Value {
    json!({"rules": [
        {"path_prefix": "/account/", "session": "required", "redirect": redirect},
        {"path_prefix": "/static/", "session": "off"},
    ]})
}

fn with(plugin: Value, is_normalized: bool) -> Mesh {
    Mesh::configured(|envoy| {
        let envoy = envoy.plugin(plugin);
        if is_normalized { envoy } else { envoy.manager(json!({"normalize_path": false, "merge_slashes": false})) }
    })
}

/// Sends a request target as it is. Without `connection: close`, with which Envoy takes a second to close after an
/// answer of its own.
fn ask(mesh: &Mesh, method: &str, target: &str) -> Response {
    let mut connection = Connection::open(mesh.envoy.port());
    connection.send(format!("{method} {target} HTTP/1.1\r\nhost: e2e.test\r\n\r\n"));
    connection.response().unwrap_or_else(|| panic!("{target} got no answer"))
}

#[test]
fn no_spelling_gets_past_a_login_with_envoy_as_in_the_file() {
    no_spelling_gets_past_a_login(true);
}

#[test]
fn no_spelling_gets_past_a_login_with_an_envoy_that_normalizes_nothing() {
    no_spelling_gets_past_a_login(false);
}

fn no_spelling_gets_past_a_login(is_normalized: bool) {
    let mesh = with(rules(None), is_normalized);
    for target in SPELLINGS.iter().chain(&OUT_OF_THE_OPEN) {
        let answer = ask(&mesh, "GET", target);
        // Envoy itself refuses some of them, such as a fragment.
        assert!(matches!(answer.status, 400 | 401), "{target}: {} {}", answer.status, answer.text());
    }
    assert_eq!(mesh.app.requests(), 0);
    for target in AMBIGUOUS {
        let answer = ask(&mesh, "GET", target);
        if is_normalized {
            assert!(answer.text().starts_with("GET /x HTTP/1.1\r\n"), "{target}: {} {}", answer.status, answer.text());
        } else {
            assert_eq!(answer.status, 401, "{target}");
        }
    }
    let before = mesh.app.requests();
    for target in OTHERS {
        assert_eq!(ask(&mesh, "GET", target).status, 200, "{target}");
    }
    assert_eq!(mesh.app.requests(), before + OTHERS.len());
    assert_eq!(ask(&mesh, "GET", "/static/x").seen().all("x-session-id"), [""; 0]);
}

#[test]
fn the_way_back_from_the_login_stays_on_this_site() {
    const ATTEMPTS: [&str; 12] = [
        "/account/x",
        "/account/x?next=//evil.example",
        "//evil.example/../account/x",
        "//evil.example/..;/account/x",
        "///evil.example/%2e%2e/account/x",
        "/\\evil.example/../account/x",
        "/account//evil.example",
        "/account/\\evil.example",
        "/account/%0d%0aset-cookie:%20a=b",
        "/account/%2f%2fevil.example",
        "/account/;//evil.example",
        "http://evil.example/account/x",
    ];
    for is_normalized in [true, false] {
        let mesh = with(rules(Some("/login")), is_normalized);
        for target in ATTEMPTS {
            let answer = ask(&mesh, "GET", target);
            assert_eq!(answer.status, 302, "{target}");
            assert_eq!(answer.all("set-cookie"), [""; 0], "{target}");
            let location = answer.header("location").unwrap();
            let back = location.strip_prefix("/login?return_to=").unwrap_or_else(|| panic!("{target}: {location}"));
            assert!(back.starts_with('/') && !back.starts_with("//"), "{target}: {location}");
            // Only these need no decoding, so the login page can't be given more parameters than this one.
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
            assert!(back.bytes().all(is_plain), "{target}: {location}");
            assert!(!back.to_ascii_lowercase().starts_with("/%5c"), "{target}: {location}");
        }
        let target = ask(&mesh, "GET", "/account/x?a=1&b=2").header("location").unwrap();
        assert_eq!(target, "/login?return_to=/account/x%3Fa%3D1%26b%3D2");
    }
}

#[test]
fn only_navigation_is_sent_to_the_login() {
    let mesh = with(rules(Some("/login")), true);
    assert_eq!(Request::new("HEAD", "/account/").send(mesh.envoy.port()).status, 302);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(&mesh, method, "/account/");
        assert_eq!((answer.status, answer.all("location")), (401, vec![]), "{method}");
        assert!(answer.header("www-authenticate").is_some(), "RFC 9110 section 15.5.2 demands it");
        assert_eq!(answer.header("cache-control").unwrap(), "no-store");
    }
    assert_eq!(mesh.app.requests(), 0);
    let elsewhere = with(rules(Some("https://login.example.com/?app=1")), true);
    let location = ask(&elsewhere, "GET", "/account/x").header("location").unwrap();
    assert_eq!(location, "https://login.example.com/?app=1&return_to=/account/x");
}
