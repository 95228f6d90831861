//! A port with one thread for each connection, on which the servers of these tests are built.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::wait;

/// Accepts connections until it is dropped. What was accepted before goes on.
pub struct Acceptor {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens on this port, and serves each connection.
    pub fn listen(port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        // What listened there before has stopped, but a process that another test forks at the same moment may still
        // hold its socket, until it runs its program.
        let listener = wait::until("the port is free", || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
        let is_over = Arc::new(AtomicBool::new(false));
        let (theirs, serve) = (Arc::clone(&is_over), Arc::new(serve));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { port, is_over, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread sees the flag with the next connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
