//! What callouts say about their request.

use std::sync::{Mutex, mpsc};

use serde_json::json;
use session_mesh_e2e::connection::Connection;
use session_mesh_e2e::gateway::Gateway;
use session_mesh_e2e::http::Request;
use session_mesh_e2e::mesh::Mesh;
use session_mesh_e2e::scripted::Scripted;
use session_mesh_e2e::wait;

#[test]
fn a_gateways_log_lines_are_found_by_the_clients_request() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let gateway = Gateway::start_with_log("memory:", "debug");
    let mesh = Mesh::configured(|envoy| {
        envoy.plugin(json!({"cache": {"ttl": "0s"}})).cluster("session_gateway", &[gateway.port()])
    });
    let mut browser = mesh.browser();
    let lines = |id: &str, method: &str| {
        let log = gateway.log();
        let is_it = |line: &&str| line.contains(id) && line.contains(method);
        log.lines().filter(is_it).count()
    };
    let write = browser.send(Request::get("/").respond("x-session-patch", r#"{"n":1}"#));
    let written = write.seen().one("x-request-id");
    wait::until("the write is in the log", || (lines(&written, "PUT") == 1).then_some(()));
    let read = browser.get("/").seen().one("x-request-id");
    wait::until("the lookup is in the log", || (lines(&read, "GET") == 1).then_some(()));
    assert_eq!((lines(&written, "GET"), lines(&read, "PUT")), (0, 0));

    // By the trace, too, and whatever a client writes into it stays one field of one line.
    for (trace, logged) in [(TRACE, TRACE), ("00\" status=200 \"", "00\\\" status=200 \\\"")] {
        let answer = browser.send(Request::get("/").header("traceparent", trace));
        assert_eq!(answer.status, 200);
        wait::until("the trace is in the log", || (lines(&format!("Some(\"{logged}\")"), "GET") == 1).then_some(()));
    }

    // And the state of the trace goes with it: here a server in the gateway's place.
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let listener = Scripted::start(move |mut connection: Connection| {
        while let Some(head) = connection.head() {
            let _ = sender.lock().unwrap().send((head.header("traceparent"), head.header("tracestate")));
            connection.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let traced = Mesh::configured(|envoy| {
        envoy
            .plugin(json!({"cache": {"ttl": "0s"}}))
            .cluster("session_gateway", &[listener.port()])
            // HTTP/1.1, which the server speaks.
            .cluster_options("session_gateway", json!({"typed_extension_protocol_options": null}))
    });
    let request = Request::get("/").header("traceparent", TRACE).header("tracestate", "a=1, b=2");
    let answer = browser.with_cookies(request).send(traced.envoy.port());
    assert_eq!(answer.status, 503);
    assert_eq!(receiver.recv().unwrap(), (Some(TRACE.to_owned()), Some("a=1, b=2".to_owned())));
}
