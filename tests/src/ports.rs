//! Free ports.

use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::Mutex;

/// Below the range that the kernel takes the ports of outgoing connections from (32768 and up), so that
/// a port stays free until its server binds it, and while its server restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static GIVEN: Mutex<Given> = Mutex::new(Given { next: None, reserved: Vec::new() });

struct Given {
    next: Option<u16>,
    reserved: Vec<UnixListener>,
}

/// A port of 127.0.0.1 that is free, and that neither this process nor another one that runs tests gives out as long as
/// this one lives.
pub fn free() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Test binaries that run at the same time start at different places.
    let start = u16::try_from(process::id() * 61 % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let offset = given.next.unwrap_or(start);
        given.next = Some((offset + 1) % COUNT);
        let port = FIRST + offset;
        let Some(reserved) = reserve(port) else { continue };
        // Not by listening there: a process that another test forks at this moment would hold the socket for a while.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            given.reserved.push(reserved);
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// Reserves a port among the processes that run these tests. A socket without a file goes away with its process,
/// however that ends.
fn reserve(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("session-mesh-e2e.port.{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}
