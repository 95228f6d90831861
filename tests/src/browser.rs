//! A client with a cookie jar, as far as one origin needs it (RFC 6265 section 5.3).

use std::collections::BTreeMap;

use crate::http::{Request, Response};

/// The name of the session cookie in `envoy/envoy.yaml`.
pub const SESSION_COOKIE: &str = "__Host-session";

/// A browser that talks to one Envoy.
#[derive(Clone, Debug)]
pub struct Browser {
    port: u16,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// A browser without cookies.
    pub fn new(port: u16) -> Self {
        Self { port, cookies: BTreeMap::new() }
    }

    /// Fetches a page.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(Request::get(path))
    }

    /// Talks to another Envoy from now on.
    pub fn go_to(&mut self, port: u16) {
        self.port = port;
    }

    /// Sends a request with the cookies, and keeps those that come back.
    pub fn send(&mut self, request: Request) -> Response {
        let response = self.with_cookies(request).send(self.port);
        self.keep_all(&response);
        response
    }

    /// As [`Self::send`]; `None` if no complete answer came back.
    pub fn try_send(&mut self, request: Request) -> Option<Response> {
        let response = self.with_cookies(request).try_send(self.port)?;
        self.keep_all(&response);
        Some(response)
    }

    /// The request as [`Self::send`] would send it.
    pub fn with_cookies(&self, request: Request) -> Request {
        if self.cookies.is_empty() {
            return request;
        }
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.header("cookie", pairs.join("; "))
    }

    /// The session token, if there is one.
    pub fn token(&self) -> Option<String> {
        self.cookies.get(SESSION_COOKIE).cloned()
    }

    /// Puts a cookie into the jar.
    pub fn set(&mut self, name: &str, value: &str) {
        self.cookies.insert(name.to_owned(), value.to_owned());
    }

    fn keep_all(&mut self, response: &Response) {
        for line in response.all("set-cookie") {
            self.keep(&line);
        }
    }

    fn keep(&mut self, set_cookie: &str) {
        let mut parts = set_cookie.split(';').map(str::trim);
        let (name, value) =
            parts.next().and_then(|pair| pair.split_once('=')).expect("a Set-Cookie starts with name=value");
        let is_deletion = parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0"));
        if is_deletion {
            self.cookies.remove(name);
        } else {
            self.set(name, value);
        }
    }
}
