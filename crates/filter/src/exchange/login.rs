//! Paths that need a login (`session: "required"`), and the response to a request without one.

use core::fmt::Write as _;
use std::borrow::Cow;
use std::rc::Rc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::config::Login;
use crate::edit::{GrpcStatus, Headers, LocalReply, text, values};
use crate::found::FoundSession;
use session::time::{Seconds, UnixSeconds};

/// The characters to escape in the path to return to: all but RFC 3986's unreserved characters and the slash.
const RETURN_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// A longer path is not worth returning to.
const MAX_RETURN_PATH: usize = 2048;

/// The login that a request needs, and what it takes to ask its client for one.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    login: Rc<Login>,
    asked: UnixSeconds,
    /// The path to which a browser returns; `None` for a client that is not navigating.
    return_path: Option<Vec<u8>>,
}

impl Demand {
    pub(super) fn new(login: Rc<Login>, headers: &Headers<'_>, now: UnixSeconds) -> Self {
        let is_navigation = login.redirect.is_some() && is_navigation(headers);
        let path = || values(headers, ":path").next().unwrap_or_default().to_vec();
        Self { login, asked: now, return_path: is_navigation.then(path) }
    }

    /// The response if the session does not have this login: 401, or a redirect to the login page for a browser that is
    /// navigating.
    pub(super) fn unmet(self, found: Option<&FoundSession>) -> Option<LocalReply> {
        match found.filter(|found| found.subject.is_some()) {
            None => Some(self.reply(None)),
            Some(found) => {
                let max_age = self.login.max_age?;
                let is_recent = found.auth_time.is_some_and(|time| self.asked.since(time) <= max_age);
                (!is_recent).then(|| self.reply(Some(max_age)))
            }
        }
    }

    /// `max_age` if a user is logged in, but not recently enough. Otherwise the login page would see a user who is
    /// logged in, and send them straight back.
    fn reply(self, max_age: Option<Seconds>) -> LocalReply {
        let header = |name: &'static str, value: String| (Cow::Borrowed(name), value.into_bytes());
        let no_store = header("cache-control", "no-store".to_owned());
        match (&self.login.redirect, self.return_path) {
            (Some(target), Some(path)) => LocalReply {
                status: 302,
                grpc_status: GrpcStatus::Unauthenticated,
                headers: vec![no_store, header("location", location(target, &path, max_age))],
                body: "Log in first.\n",
            },
            _ => LocalReply {
                status: 401,
                grpc_status: GrpcStatus::Unauthenticated,
                headers: vec![
                    no_store,
                    header("content-type", "text/plain; charset=utf-8".to_owned()),
                    header("www-authenticate", challenge(max_age)),
                ],
                body: if max_age.is_some() { "Log in again first.\n" } else { "Log in first.\n" },
            },
        }
    }
}

/// Whether a browser requests a page to show. A script would follow the redirect to the login page, and mistake that
/// for the response it asked for.
///
/// Browsers say so themselves (Fetch Metadata), but not over plain http. Then it depends on what else scripts send: the
/// `Accept` of a client that wants JSON and no HTML, or the header that script libraries have long sent. Neither gRPC
/// nor a WebSocket is ever a page.
fn is_navigation(headers: &Headers<'_>) -> bool {
    let lower =
        |name| values(headers, name).map(<[u8]>::to_ascii_lowercase).reduce(|all, more| [all, more].join(&b','));
    if !matches!(text(headers, ":method"), Some("GET" | "HEAD"))
        || lower("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"))
        || lower("upgrade").is_some_and(|upgrade| has(&upgrade, b"websocket"))
    {
        return false;
    }
    if let Some(mode) = lower("sec-fetch-mode") {
        return mode == b"navigate";
    }
    lower("x-requested-with").is_none() && !lower("accept").is_some_and(|accept| is_for_scripts(&accept))
}

/// Whether an `Accept` in lower case has no HTML, and has JSON or nothing that a page could be.
fn is_for_scripts(accept: &[u8]) -> bool {
    let has_html = has(accept, b"html");
    let has_json = has(accept, b"application/json") || has(accept, b"+json");
    let has_page = has(accept, b"*/*") || has(accept, b"text/*") || accept.trim_ascii().is_empty();
    !has_html && (has_json || !has_page)
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// RFC 9110 section 15.5.2 demands a challenge. There is no registered scheme for cookies; the parameters are those of
/// OAuth's step-up authentication (RFC 9470 section 3).
fn challenge(max_age: Option<Seconds>) -> String {
    match max_age {
        Some(max_age) => format!("Session error=\"insufficient_user_authentication\", max_age=\"{max_age}\""),
        None => "Session".to_owned(),
    }
}

/// The login page with the path to return to as `return_to`, and `max_age` if the login must be that recent.
fn location(target: &str, path: &[u8], max_age: Option<Seconds>) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    let mut location = format!("{target}{separator}");
    // Writing to a String can't fail.
    if let Some(max_age) = max_age {
        let _ = write!(location, "max_age={max_age}&");
    }
    location.push_str("return_to=");
    location.extend(percent_encode(if is_local(path) { path } else { b"/" }, RETURN_ESCAPED));
    location
}

/// Whether a browser that is sent to this path stays on this site, however the application resolves it: one slash in
/// front, and nothing that a browser reads as a second one (WHATWG URL, "special authority slashes").
fn is_local(path: &[u8]) -> bool {
    let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
    let before_query = path.get(..end).unwrap_or_default();
    path.len() <= MAX_RETURN_PATH
        && path.starts_with(b"/")
        && path.iter().all(u8::is_ascii_graphic)
        && !before_query.windows(2).any(|pair| pair == b"//")
        && !before_query.contains(&b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, redirect: Option<&str>) -> LocalReply {
        let headers = [(":method", method), (":path", path)].map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let login = Login { redirect: redirect.map(str::to_owned), max_age: None };
        Demand::new(login.into(), &headers, UnixSeconds::new(0)).unmet(None).unwrap()
    }

    fn location_of(path: &str) -> String {
        let reply = ask("GET", path, Some("/login"));
        assert_eq!(reply.status, 302);
        String::from_utf8(reply.header("location").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_way_back_stays_on_this_site() {
        assert_eq!(location_of("/account/x?a=1&b=2"), "/login?return_to=/account/x%3Fa%3D1%26b%3D2");
        for path in [
            "//evil.example/",
            "///evil.example",
            "/\\evil.example",
            "/..//evil.example",
            "/account//evil.example",
            "https://evil.example/",
            "evil",
            "",
            "/\t/evil.example",
            "/\u{e4}",
        ] {
            assert_eq!(location_of(path), "/login?return_to=/", "{path}");
        }
        assert_eq!(location_of(&format!("/{}", "x".repeat(3000))), "/login?return_to=/");
        assert_eq!(location_of("/?next=//evil.example"), "/login?return_to=/%3Fnext%3D//evil.example");
    }

    #[test]
    fn only_navigation_is_redirected() {
        assert_eq!(ask("POST", "/account/", Some("/login")).status, 401);
        assert_eq!(ask("GET", "/account/", None).status, 401);
        let elsewhere = ask("HEAD", "/account/", Some("https://login.example.com/?app=1"));
        let location = elsewhere.header("location").unwrap();
        assert_eq!(location, b"https://login.example.com/?app=1&return_to=/account/");
    }

    #[test]
    fn scripts_are_not_led_to_a_page() {
        const PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let rows: &[(&[(&str, &str)], u16)] = &[
            (&[], 302),
            (&[("accept", PAGE)], 302),
            (&[("accept", "*/*")], 302),
            (&[("accept", "")], 302),
            (&[("sec-fetch-mode", "navigate")], 302),
            // Android's WebView sends this for its pages, too.
            (&[("sec-fetch-mode", "navigate"), ("x-requested-with", "com.example.app")], 302),
            (&[("sec-fetch-mode", "navigate"), ("accept", "application/json, text/html")], 302),
            (&[("sec-fetch-mode", "cors"), ("accept", PAGE)], 401),
            (&[("sec-fetch-mode", "no-cors")], 401),
            (&[("sec-fetch-mode", "same-origin")], 401),
            (&[("sec-fetch-mode", "websocket")], 401),
            (&[("sec-fetch-mode", "")], 401),
            (&[("x-requested-with", "XMLHttpRequest"), ("accept", PAGE)], 401),
            (&[("accept", "application/json")], 401),
            (&[("accept", "application/json, text/plain, */*")], 401),
            (&[("accept", "Application/Problem+JSON")], 401),
            (&[("accept", "text/plain"), ("accept", "application/json")], 401),
            (&[("accept", "application/json, text/html")], 302),
            (&[("accept", "text/event-stream")], 401),
            (&[("accept", "image/avif,image/webp")], 401),
            (&[("content-type", "application/grpc-web+proto")], 401),
            (&[("content-type", "application/grpc"), ("accept", PAGE)], 401),
            (&[("upgrade", "WebSocket")], 401),
        ];
        for (more, status) in rows {
            let headers: Vec<_> = [(":method", "GET"), (":path", "/account/")]
                .iter()
                .chain(*more)
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                .collect();
            let login = Login { redirect: Some("/login".to_owned()), max_age: None };
            let reply = Demand::new(login.into(), &headers, UnixSeconds::new(0)).unmet(None).unwrap();
            assert_eq!(reply.status, *status, "{more:?}");
            assert_eq!(reply.header("location").is_some(), *status == 302, "{more:?}");
        }
    }
}
