//! `session-gateway healthcheck`: asks a running gateway whether it is alive.
//!
//! It is for places without any other client: the gateway's image has no shell and no curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::Listen;

/// How long each step may take. `/healthz` checks only the process, so a slow answer is a symptom, too.
const TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: session-gateway\r\nconnection: close\r\n\r\n";
const ALIVE: &[u8] = b"HTTP/1.1 200";

/// Why a gateway does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// Nothing listens there, or it is too slow.
    #[error("no gateway answers on {address}: {reason}")]
    Silent {
        /// Its admin address.
        address: Listen,
        /// What went wrong.
        reason: io::Error,
    },
    /// Something answers, but not like a healthy gateway.
    #[error("{address} does not answer like a live gateway")]
    Answer {
        /// Its admin address.
        address: Listen,
    },
}

/// Asks the gateway whose admin port is `address`. If that stands for all addresses of the machine (`0.0.0.0`, `[::]`),
/// Linux connects to the loopback interface.
pub fn healthcheck(address: &Listen) -> Result<(), HealthcheckError> {
    let answer = match address {
        Listen::Tcp(host) => tcp(host).and_then(ask),
        Listen::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            ask(stream)
        }),
    };
    match answer {
        Ok(start) if start == *ALIVE => Ok(()),
        Ok(_) => Err(HealthcheckError::Answer { address: address.clone() }),
        Err(reason) => Err(HealthcheckError::Silent { address: address.clone(), reason }),
    }
}

/// A connection to the first of the host's addresses that accepts one.
fn tcp(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The start of the answer, with the length of [`ALIVE`].
fn ask(mut stream: impl Read + Write) -> io::Result<[u8; ALIVE.len()]> {
    stream.write_all(REQUEST)?;
    let mut start = [0; ALIVE.len()];
    stream.read_exact(&mut start)?;
    Ok(start)
}
