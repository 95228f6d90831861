//! Free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::Mutex;

/// Below the range that the kernel takes the ports of outgoing connections from (32768 and up), so that
/// a port stays free until its server binds it, and while its server restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// A port of 127.0.0.1 that is free and that this process gives out once.
pub fn free() -> u16 {
    let mut next = NEXT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Test binaries that run at the same time start at different places.
    let start = u16::try_from(process::id() * 61 % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let offset = next.unwrap_or(start);
        *next = Some((offset + 1) % COUNT);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
    panic!("no free port on 127.0.0.1");
}
