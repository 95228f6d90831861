//! Trailers say nothing about a session: names that the sender may not use are removed in both directions.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use session_mesh_e2e::browser::SESSION_COOKIE;
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::http2::{self, Echo};
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::scripted::Scripted;
use session_mesh_e2e::wait;

const PATIENT: &str = "20s";

/// What the client's trailers ask the upstream to say in its own, beside what they say themselves.
const TRAILERS: [&str; 10] = [
    "x-session-subject",
    "x_session_data",
    "x-user",
    "x_user",
    "cookie",
    "x-checksum",
    "respond-x-session-patch",
    "respond-x-session-error",
    "respond-set-cookie",
    "respond-x-digest",
];

fn speaks(options: &Value) -> Value {
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": options,
    }}})
}

fn plugin() -> Value {
    json!({
        "upstream": {"expose": {"user": "x-user"}},
        "rules": [
            {"path_prefix": "/other/off/", "session": "off"},
            {"path_prefix": "/other/strict/", "session": "strict"},
        ],
    })
}

/// Sends a request with all of these trailers. The names of those that the upstream saw, and of its own that the client
/// saw.
fn exchange(port: u16, path: &str, cookie: Option<&str>) -> (Vec<String>, Vec<String>) {
    http2::run(async {
        let mut client = http2::connect(port).await;
        let mut request = http::Request::post(format!("http://e2e.test{path}"));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let (response, mut out) = client.send_request(request.body(()).unwrap(), false).unwrap();
        out.send_data(Bytes::from_static(b"body"), false).unwrap();
        let value = HeaderValue::from_static("root");
        let trailers = TRAILERS.map(|name| (HeaderName::from_static(name), value.clone()));
        out.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let (_, trailers) = http2::rest(response.into_body()).await;
        let trailers = trailers.unwrap();
        let seen = trailers.get_all("seen").iter().map(|name| name.to_str().unwrap().to_owned());
        let told = trailers.keys().map(|name| name.as_str().to_owned()).filter(|name| name != "seen");
        let (mut seen, mut told): (Vec<_>, Vec<_>) = (seen.collect(), told.collect());
        seen.sort();
        told.sort();
        (seen, told)
    })
}

#[test]
fn http_2_trailers_neither_forge_a_session_nor_show_one() {
    let app = Echo::start();
    let mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(plugin())
            .cluster("other", &[app.port()])
            .cluster_options("other", speaks(&json!({"http2_protocol_options": {}})))
    });
    let port = mesh.envoy.port();
    let seen =
        ["respond-set-cookie", "respond-x-digest", "respond-x-session-error", "respond-x-session-patch", "x-checksum"];
    let told = ["grpc-status", "x-checksum", "x-digest"];
    let expected = (seen.map(str::to_owned).to_vec(), told.map(str::to_owned).to_vec());
    assert_eq!(exchange(port, "/other/", None), expected, "of a new visitor");
    assert_eq!(exchange(port, "/other/off/", None), expected, "on an `off` path");

    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let cookie = format!("{SESSION_COOKIE}={}", browser.token().unwrap());
    assert_eq!(exchange(port, "/other/strict/", Some(&cookie)), expected, "of a stored session");
}

#[test]
fn trailers_that_come_while_a_lookup_is_under_way_are_held_and_cleaned() {
    let app = Echo::start();
    let mut mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(plugin())
            .plugin(json!({"gateway": {"timeout": PATIENT}}))
            .cluster("other", &[app.port()])
            .cluster_options("other", speaks(&json!({"http2_protocol_options": {}})))
    });
    let mut browser = mesh.browser();
    browser.send(Request::get("/").respond("x-session-patch", r#"{"user":"alice"}"#));
    let cookie = format!("{SESSION_COOKIE}={}", browser.token().unwrap());
    let port = mesh.envoy.port();
    mesh.gateway.process().pause();
    let (seen, told) = std::thread::scope(|scope| {
        let request = scope.spawn(|| exchange(port, "/other/strict/", Some(&cookie)));
        wait::until("the request with all of its trailers is held", || {
            let is_called = mesh.envoy.statistic("cluster.session_gateway.upstream_rq_active") > 0;
            is_called.then_some(())
        });
        mesh.gateway.process().resume();
        request.join().unwrap()
    });
    assert!(seen.contains(&"x-checksum".to_owned()), "{seen:?}");
    assert!(!seen.iter().any(|name| name.starts_with("x-session") || name == "cookie"), "{seen:?}");
    assert_eq!(told, ["grpc-status", "x-checksum", "x-digest"]);
}

#[test]
fn http_1_1_trailers_are_cleaned_too_where_envoy_lets_them_pass() {
    let server = Scripted::start(|mut connection: Connection| {
        let Some(_) = connection.head() else { return };
        connection.chunk();
        // The last chunk and what follows it look like a head.
        let trailers = connection.head().expect("the request ends in order");
        let seen: Vec<String> =
            TRAILERS.into_iter().filter(|name| !trailers.all(name).is_empty()).map(str::to_owned).collect();
        let seen = seen.join(" ");
        connection.send(format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-digest\r\n\r\n{:x}\r\n{seen}\r\n0\r\n\
             x-session-patch: {{\"user\":\"root\"}}\r\nx-session-error: none\r\nx-digest: 1\r\n\r\n",
            seen.len()
        ));
    });
    let mesh = Mesh::configured(|envoy| {
        envoy
            .plugin(plugin())
            .manager(json!({"http_protocol_options": {"enable_trailers": true}}))
            .cluster("other", &[server.port()])
            .cluster_options("other", speaks(&json!({"http_protocol_options": {"enable_trailers": true}})))
    });
    for path in ["/other/", "/other/off/"] {
        let mut client = Connection::open(mesh.envoy.port());
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: e2e.test\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n{}\r\n",
            TRAILERS.map(|name| format!("{name}: root\r\n")).concat()
        ));
        let head = client.head().unwrap();
        assert_eq!(head.status(), 200);
        let seen = String::from_utf8(client.chunk().unwrap()).unwrap();
        let trailers = client.head().unwrap();
        assert!(seen.contains("x-checksum") && !seen.contains("root"), "{seen}");
        for name in ["x-session-subject", "x_session_data", "x-user", "x_user", "cookie"] {
            assert!(!seen.split(' ').any(|other| other == name), "{path} {name}: {seen}");
        }
        assert_eq!(trailers.all("x-digest"), ["1"]);
        assert_eq!((trailers.all("x-session-patch").len(), trailers.all("x-session-error").len()), (0, 0), "{path}");
    }
}
