//! A server that does to each connection what the test says: HTTP that no library would write, or none.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::connection::Connection;
use crate::ports;

/// A running server. Each connection has a thread of its own, and is closed when the script returns.
pub struct Scripted {
    port: u16,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts it on a free port.
    pub fn start(script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::listen(ports::free(), script)
    }

    /// Starts it on this port.
    pub fn listen(port: u16, script: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port can be bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let (theirs, script) = (Arc::clone(&is_over), Arc::new(script));
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.load(Ordering::SeqCst) {
                    return;
                }
                let script = Arc::clone(&script);
                thread::spawn(move || script(Connection::of(stream)));
            }
        });
        Self { port, is_over, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The acceptor sees the flag with the next connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
