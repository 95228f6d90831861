//! A detour on the way to a server, which can be broken like real networks and wrong configurations.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use crate::acceptor::Acceptor;
use crate::connection::Connection;
use crate::ports;

/// What becomes of those who come this way.
#[derive(Clone, Debug)]
pub enum Way {
    /// They get where they want to.
    Open,
    /// No process listens.
    Refused,
    /// They are connected, and nothing ever comes back.
    Silent,
    /// They are connected, and reset with their first request unread.
    Reset,
    /// They get where they want to, with another path than they asked for.
    Rewritten,
    /// Whatever they ask, these bytes come back, and then the end of the connection. `{id}` in them is the session of
    /// the path that was asked for.
    Answer(Vec<u8>),
    /// Whatever they ask, these bytes come back, and then nothing more.
    AnswerAndHang(Vec<u8>),
}

/// A port that leads to another port of this machine.
pub struct Detour {
    port: u16,
    target: u16,
    /// No process listens while there is none.
    guard: Option<Guard>,
}

struct Guard {
    shared: Arc<Shared>,
    _acceptor: Acceptor,
}

struct Shared {
    /// `None` when the way is over: a connection that comes through just then ends at once.
    streams: Mutex<Option<Vec<TcpStream>>>,
}

impl Detour {
    /// An open way to `target`.
    pub fn to(target: u16) -> Self {
        let mut detour = Self { port: ports::free(), target, guard: None };
        detour.take(&Way::Open);
        detour
    }

    /// Where it begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections; from now on this happens to new ones.
    pub fn take(&mut self, way: &Way) {
        self.guard = None;
        if !matches!(way, Way::Refused) {
            self.guard = Some(Guard::post(self.port, self.target, way.clone()));
        }
    }
}

impl Guard {
    fn post(port: u16, target: u16, way: Way) -> Self {
        let shared = Arc::new(Shared { streams: Mutex::new(Some(Vec::new())) });
        let theirs = Arc::clone(&shared);
        let acceptor = Acceptor::listen(port, move |stream| {
            theirs.remember(&stream);
            theirs.lead(stream, target, &way);
        });
        Self { shared, _acceptor: acceptor }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for stream in self.shared.streams().take().unwrap_or_default() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Option<Vec<TcpStream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, stream: &TcpStream) {
        match &mut *self.streams() {
            Some(streams) => streams.push(stream.try_clone().expect("a connection can be cloned")),
            None => drop(stream.shutdown(Shutdown::Both)),
        }
    }

    /// All errors here are one side's going away, which is its good right.
    fn lead(&self, mut stream: TcpStream, target: u16, way: &Way) {
        match way {
            Way::Open => {
                let Ok(onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
                self.remember(&onward);
                let (back, forth) = (onward.try_clone(), stream.try_clone());
                if let (Ok(back), Ok(forth)) = (back, forth) {
                    thread::spawn(move || copy(back, forth));
                    copy(stream, onward);
                }
            }
            Way::Rewritten => {
                let Ok(reading) = stream.try_clone() else { return };
                let mut reading = Connection::of(reading);
                let Some(head) = reading.head() else { return };
                let body = reading.body(&head).unwrap_or_default();
                let Ok(mut onward) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
                let line = head.line.replacen("/v1/", "/v1/v1/", 1);
                let [token, form] = ["authorization", "content-type"].map(|name| head.header(name).unwrap_or_default());
                let request = format!(
                    "{line}\r\nhost: gateway\r\nconnection: close\r\nauthorization: {token}\r\ncontent-type: {form}\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = onward.write_all(request.as_bytes()).and_then(|()| onward.write_all(&body));
                copy(onward, stream);
            }
            Way::Refused => {}
            Way::Silent => {
                let _ = io::copy(&mut stream, &mut io::sink());
            }
            Way::Reset => {
                // What is closed with bytes unread is reset (RFC 9293 section 3.6).
                let _ = stream.peek(&mut [0]);
                let _ = self.forget(&stream);
            }
            Way::Answer(bytes) | Way::AnswerAndHang(bytes) => {
                let Ok(reading) = stream.try_clone() else { return };
                let mut reading = Connection::of(reading);
                let Some(head) = reading.head() else { return };
                let _ = reading.body(&head);
                let _ = stream.write_all(&about(bytes, &head.line));
                if matches!(way, Way::AnswerAndHang(_)) {
                    let _ = stream.read(&mut [0]);
                } else {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// Lets go of a connection, so that dropping it closes it.
    fn forget(&self, stream: &TcpStream) -> io::Result<()> {
        let peer = stream.peer_addr()?;
        if let Some(streams) = &mut *self.streams() {
            streams.retain(|remembered| remembered.peer_addr().is_ok_and(|other| other != peer));
        }
        Ok(())
    }
}

/// The bytes, about the session that a request names.
fn about(bytes: &[u8], request_line: &str) -> Vec<u8> {
    let id = request_line.split_once("/v1/sessions/").and_then(|(_, rest)| rest.get(..32)).unwrap_or_default();
    // Nothing in them is taken apart but this, so it does not matter whether they are text.
    let mut named = Vec::with_capacity(bytes.len() + id.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(4).position(|window| window == b"{id}") {
        let (before, after) = rest.split_at(at);
        named.extend_from_slice(before);
        named.extend_from_slice(id.as_bytes());
        rest = after.get(4..).unwrap_or_default();
    }
    named.extend_from_slice(rest);
    named
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
