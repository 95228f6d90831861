//! The answer to a request that needs a login and has none (`session: "required"`).

use core::fmt::Write as _;

use crate::edit::{Headers, LocalReply, text, values};

/// A longer path is not worth coming back to.
const MAX_RETURN_PATH: usize = 2048;

/// 401, or the way to the login page for a browser that is just navigating.
pub(super) fn reply(redirect: Option<&str>, headers: &Headers) -> LocalReply {
    let is_navigation = matches!(text(headers, ":method"), Some("GET" | "HEAD"));
    let no_store = ("cache-control", "no-store".to_owned());
    match redirect.filter(|_| is_navigation) {
        Some(target) => {
            let path = values(headers, ":path").next().unwrap_or_default();
            LocalReply {
                status: 302,
                headers: vec![no_store, ("location", location(target, path))],
                body: "Log in first.\n",
            }
        }
        None => LocalReply {
            status: 401,
            headers: vec![
                no_store,
                ("content-type", "text/plain; charset=utf-8".to_owned()),
                // RFC 9110 section 15.5.2 demands a challenge; there is no registered scheme for cookies.
                ("www-authenticate", "Session".to_owned()),
            ],
            body: "Log in first.\n",
        },
    }
}

/// The login page with the path to come back to, as `return_to`.
fn location(target: &str, path: &[u8]) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    let mut location = format!("{target}{separator}return_to=");
    let path = if is_local(path) { path } else { b"/" };
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            location.push(char::from(*byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(location, "%{byte:02X}");
        }
    }
    location
}

/// Whether a browser that is sent to this path stays on this site, however the application resolves it: one
/// slash in front, and nothing that a browser takes for a second one (WHATWG URL, "special authority slashes").
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
        let headers =
            [(":method", method), (":path", path)].map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        reply(redirect, &headers)
    }

    fn location_of(path: &str) -> String {
        let reply = ask("GET", path, Some("/login"));
        assert_eq!(reply.status, 302);
        reply.headers.into_iter().find(|(name, _)| *name == "location").unwrap().1
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
        let location = elsewhere.headers.iter().find(|(name, _)| *name == "location").unwrap();
        assert_eq!(location.1, "https://login.example.com/?app=1&return_to=/account/");
    }
}
