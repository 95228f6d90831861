//! One end of a TCP connection that speaks HTTP/1.1 step by step: heads, then any part of a body.
//!
//! Clients use it where [`crate::http`] is too coarse (keep-alive, upgrades, 1xx, bodies in pieces), and
//! [`crate::scripted`] servers get one for each client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use crate::http::{Response, value, values};
use crate::wait::PATIENCE;

/// A connection, buffered on the reading side.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

/// The first line and the headers of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// `GET / HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub line: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Connection {
    /// Connects to a port of this machine.
    pub fn open(port: u16) -> Self {
        Self::of(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is open"))
    }

    /// Wraps a connection that was accepted.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("a connection can be told not to delay");
        Self { reader: BufReader::new(stream) }
    }

    /// Sends bytes; `false` if the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// The next head; `None` if the connection ends before it does.
    pub fn head(&mut self) -> Option<Head> {
        let line = self.line()?;
        let mut headers = Vec::new();
        loop {
            let header = self.line()?;
            if header.is_empty() {
                return Some(Head { line, headers });
            }
            let (name, value) = header.split_once(':')?;
            headers.push((name.to_owned(), value.trim().as_bytes().to_vec()));
        }
    }

    /// Exactly this many bytes; `None` if the connection ends before.
    pub fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// The body that belongs to a head: by its length, or chunk by chunk.
    pub fn body(&mut self, head: &Head) -> Option<Vec<u8>> {
        if let Some(length) = head.header("content-length") {
            return self.bytes(length.parse().ok()?);
        }
        let mut body = Vec::new();
        while head.header("transfer-encoding").is_some() {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        Some(body)
    }

    /// A whole response to anything but `HEAD`; `None` if the connection ends before it does.
    pub fn response(&mut self) -> Option<Response> {
        let head = self.head()?;
        let body = self.body(&head)?;
        Some(Response { status: head.status(), headers: head.headers, body })
    }

    /// The next chunk of a chunked body, empty at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let chunk = self.bytes(size)?;
        self.line()?;
        Some(chunk)
    }

    /// Whether the other side closes the connection, without a byte more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }

    /// Says that nothing more will come.
    pub fn finish(&self) {
        // Fails only if the other side has gone first.
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        Some(line.strip_suffix("\r\n")?.to_owned())
    }
}

impl Head {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("{:?} is no status line", self.line))
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        values(&self.headers, name)
    }

    /// The value of a header that is there at most once.
    pub fn header(&self, name: &str) -> Option<String> {
        value(&self.headers, name)
    }
}
