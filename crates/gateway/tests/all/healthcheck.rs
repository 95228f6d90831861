//! `session-gateway healthcheck`, for an image without a shell and curl.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use nix::sys::signal::Signal;

use super::support::gateway::{Gateway, command};

/// What it says of the gateway with that admin address. It needs no token.
fn healthcheck(address: &str) -> Output {
    command().env("SESSION_GATEWAY_ADMIN_LISTEN", address).arg("healthcheck").output().unwrap()
}

fn is_healthy(address: &str) -> bool {
    healthcheck(address).status.success()
}

/// That it fails, and the sentence says so.
fn refused(address: &str, why: &str) {
    let output = healthcheck(address);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains(why) && log.contains(address), "{log}");
}

#[tokio::test]
async fn a_living_gateway_is_healthy_until_it_ends() {
    let mut gateway = Gateway::start("memory:");
    assert!(is_healthy(&gateway.admin));
    // As it stands in an image's environment.
    let port = gateway.admin.rsplit_once(':').unwrap().1.to_owned();
    assert!(is_healthy(&format!("0.0.0.0:{port}")));
    assert!(is_healthy(&format!("localhost:{port}")));
    gateway.signal(Signal::SIGTERM);
    assert!(gateway.exit().await.success());
    refused(&gateway.admin, "no gateway answers");
}

#[tokio::test]
async fn a_gateway_without_its_store_is_healthy_but_not_ready() {
    // Starting it again would not bring the store back.
    let gateway = Gateway::start("memcached://127.0.0.1:1");
    gateway.ready_turns(503).await;
    assert!(is_healthy(&gateway.admin));
}

#[tokio::test]
async fn every_admin_address_counts() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("admin.sock").display());
    let gateway = Gateway::start_with("memory:", &["--admin-listen", &socket]);
    assert!(is_healthy(&socket));
    let absent = format!("unix:{}", directory.path().join("absent.sock").display());
    let output = healthcheck(&format!("{},{absent}", gateway.admin));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn something_else_on_the_port_is_not_healthy() {
    for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP", ""] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = other.accept().unwrap();
            assert_ne!(stream.read(&mut [0; 1000]).unwrap(), 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        refused(&address, if answer.len() < 12 { "no gateway answers" } else { "does not answer like a live gateway" });
        server.join().unwrap();
    }
}

#[test]
fn a_gateway_that_hangs_is_not_healthy() {
    // Connections are accepted by the kernel, and no process reads them.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&hanging.local_addr().unwrap().to_string(), "no gateway answers");
}
