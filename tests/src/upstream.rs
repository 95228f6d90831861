//! An application whose response the request determines, and which shows what it was sent.
//!
//! A request header `respond-NAME: VALUE` becomes the response header `NAME: VALUE`, byte for byte;
//! `respond-status` sets the status. The body of the response is the request's head as it came over the wire,
//! which [`crate::http::Response::seen`] reads.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use crate::acceptor::Acceptor;
use crate::http::{Headers, Response, owned, values};
use crate::ports;

/// What the names of the request headers that shape the response start with.
pub const RESPOND: &str = "respond-";

/// Marks the responses that this upstream wrote.
const ECHO: &str = "upstream-echo";

/// The most headers of one request: a test sends thousands.
const MAX_HEADERS: usize = 8192;

/// A running application.
pub struct Upstream {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicUsize,
    meeting: Mutex<Option<Arc<Barrier>>>,
}

impl Upstream {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        Self { acceptor: Acceptor::listen(ports::free(), move |stream| theirs.serve(&stream)), shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.acceptor.port()
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Has the next `count` requests wait for each other before any is answered.
    pub fn hold_until_together(&self, count: usize) {
        *self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Barrier::new(count)));
    }

    /// Lets requests pass alone again.
    pub fn stop_holding(&self) {
        *self.shared.meeting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    /// Answers the requests of one connection until the other side closes it.
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader) {
            let Some(headers) = parse(&head) else { return };
            let length = values(&headers, "content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
            if reader.read_exact(&mut vec![0; length]).is_err() {
                return;
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
            let meeting = self.meeting.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(meeting) = meeting {
                meeting.wait();
            }
            let mut writer = stream;
            if writer.write_all(&response(&head, &headers)).is_err() {
                return;
            }
        }
    }
}

fn response(head: &[u8], headers: &Headers) -> Vec<u8> {
    let status = values(headers, &format!("{RESPOND}status")).pop().unwrap_or_else(|| "200".to_owned());
    let mut bytes = format!("HTTP/1.1 {status} As Told\r\n{ECHO}: 1\r\n").into_bytes();
    for (name, value) in headers {
        match name.strip_prefix(RESPOND) {
            None | Some("status") => {}
            Some(name) => bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat()),
        }
    }
    let has_body = !head.starts_with(b"HEAD ") && status != "204";
    if status != "204" {
        bytes.extend(format!("content-length: {}\r\n", head.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    if has_body {
        bytes.extend(head);
    }
    bytes
}

/// The bytes up to and with the empty line; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn parse(head: &[u8]) -> Option<Headers> {
    let mut lines = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut lines);
    request.parse(head).ok()?;
    Some(owned(request.headers))
}

/// The request headers that a response of this upstream shows.
pub(crate) fn echoed(response: &Response) -> Option<Headers> {
    values(&response.headers, ECHO).first()?;
    parse(&response.body)
}
