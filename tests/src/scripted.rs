//! A server that treats each connection as the test says, with HTTP that no library would write, or none at all.

use crate::acceptor::Acceptor;
use crate::connection::Connection;
use crate::ports;

/// A running server. Each connection has a thread of its own, and is closed when the script returns.
pub struct Scripted {
    acceptor: Acceptor,
}

impl Scripted {
    /// Starts it on a free port.
    pub fn start(script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::listen(ports::free(), script)
    }

    /// Starts it on this port.
    pub fn listen(port: u16, script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self { acceptor: Acceptor::listen(port, move |stream| script(Connection::of(stream))) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.acceptor.port()
    }
}
