//! A byte-exact HTTP/1.1 client: it sends exactly the bytes that it is given.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Header names (as they were written) and values, in order.
pub type Headers = Vec<(String, Vec<u8>)>;

const MAX_HEADERS: usize = 4096;

/// Longer than any timeout of the parts under test, so that they are the ones to answer.
const TIMEOUT: Duration = Duration::from_secs(90);

/// All values of a header, as text; bytes that are no UTF-8 become U+FFFD.
pub fn values(headers: &Headers, name: &str) -> Vec<String> {
    let named = headers.iter().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
    named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

/// The value of a header that is there at most once.
pub fn value(headers: &Headers, name: &str) -> Option<String> {
    let mut all = values(headers, name);
    assert!(all.len() <= 1, "{name} is there {} times: {all:?}", all.len());
    all.pop()
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Headers,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// `GET path`.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Has [`crate::upstream::Upstream`] answer with this header line.
    pub fn respond(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.header(&format!("{}{name}", crate::upstream::RESPOND), value)
    }

    /// Sends it to a port of this machine.
    pub fn send(&self, port: u16) -> Response {
        self.try_send(port).unwrap_or_else(|| panic!("{} {} got no answer", self.method, self.path))
    }

    /// Sends it to a port of this machine; `None` if no complete answer came back.
    pub fn try_send(&self, port: u16) -> Option<Response> {
        exchange(port, &self.bytes())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nhost: e2e.test\r\nconnection: close\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if !self.body.is_empty() {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// Sends raw bytes and reads until the other side closes; `None` if that is no HTTP response.
pub fn exchange(port: u16, bytes: &[u8]) -> Option<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    // A server that refuses a request may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Response::parse(&answer)
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub headers: Headers,
    /// The body, without any transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut lines);
        let httparse::Status::Complete(length) = head.parse(bytes).ok()? else {
            return None;
        };
        let headers: Headers = owned(head.headers);
        let rest = bytes.get(length..)?;
        let is_chunked = values(&headers, "transfer-encoding").iter().any(|coding| coding == "chunked");
        let body = if is_chunked { unchunk(rest)? } else { rest.to_vec() };
        let expected = values(&headers, "content-length").first().and_then(|length| length.parse::<usize>().ok());
        if expected.is_some_and(|expected| body.len() < expected) && !body.is_empty() {
            return None;
        }
        Some(Self { status: head.code?, headers, body })
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        values(&self.headers, name)
    }

    /// The value of a header that is there at most once.
    pub fn header(&self, name: &str) -> Option<String> {
        value(&self.headers, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The headers that [`crate::upstream::Upstream`] was sent, if the request got that far.
    pub fn seen(&self) -> Seen {
        let head = crate::upstream::echoed(self);
        Seen(head.unwrap_or_else(|| panic!("no upstream saw the request: {} {:?}", self.status, self.text())))
    }
}

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen(Headers);

impl Seen {
    /// The header lines.
    pub fn headers(&self) -> &Headers {
        &self.0
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        values(&self.0, name)
    }

    /// The value of a header that must be there exactly once.
    pub fn one(&self, name: &str) -> String {
        let mut all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {:?}", self.0);
        all.pop().unwrap_or_default()
    }

    /// `x-session-id`.
    pub fn id(&self) -> String {
        self.one("x-session-id")
    }

    /// `x-session-state`.
    pub fn state(&self) -> String {
        self.one("x-session-state")
    }

    /// `x-session-version`.
    pub fn version(&self) -> u32 {
        self.one("x-session-version").parse().expect("x-session-version is decimal")
    }

    /// `x-session-data`, which must be ASCII.
    pub fn data(&self) -> Value {
        let text = self.one("x-session-data");
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?} is not visible ASCII");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in x-session-data {text:?}"))
    }
}

pub(crate) fn owned(lines: &[httparse::Header<'_>]) -> Headers {
    lines.iter().map(|line| (line.name.to_owned(), line.value.to_vec())).collect()
}

/// Takes off the chunked transfer coding (RFC 9112 section 7.1); `None` if the last chunk is missing.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(bytes).ok()? else {
            return None;
        };
        if size == 0 {
            return Some(body);
        }
        let end = start + usize::try_from(size).ok()?;
        body.extend(bytes.get(start..end)?);
        bytes = bytes.get(end + 2..)?;
    }
}
