//! The request: which token the client presents, and what the upstream sees.

use std::borrow::Cow;
use std::rc::Rc;

use super::Request;
use super::login::Demand;
use crate::binding::Binding;
use crate::config::{Access, Config, CreatePolicy};
use crate::cookie;
use crate::counter::{Counter, Counts};
use crate::edit::{Edit, Headers, replace_all, text, values};
use crate::exposed;
use crate::found::{FoundSession, VisibleData};
use crate::token::{Token, TokenError, Verified};
use crate::upstream_api::{self, SessionState};
use session::id::SessionId;
use session::time::UnixSeconds;
use session::version::Version;

/// How many cookies of our name are tried. Each costs a MAC, and a request can bring thousands.
const MAX_CANDIDATES: usize = 8;

/// What the exchange still needs of the client's headers after they have been read.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the request, and they are independent")]
pub(super) struct Incoming {
    /// The best of the tokens among the cookies that may open a session.
    best: Option<Verified>,
    /// The others, the best last.
    rivals: Vec<Verified>,
    /// Whether there was more than one of them.
    pub(super) has_rivals: bool,
    /// The session of the best token that turned out to be worthless.
    pub(super) ended: Option<SessionId>,
    /// Whether the response is a part of a page that the browser loads on its own, such as an image.
    pub(super) is_subresource: bool,
    /// When the request arrived.
    pub(super) began: UnixSeconds,
    /// Whether there was any cookie of our name.
    pub(super) has_cookie: bool,
    /// An id that has never been used.
    pub(super) fresh_id: SessionId,
    /// What tokens for this client are bound to.
    pub(super) binding: Binding,
    /// The login that the path needs, if it needs one.
    pub(super) login: Option<Demand>,
    /// Whether only the store itself may provide the session.
    pub(super) is_strict: bool,
    /// The `Cookie` lines to pass on, if they differ from the client's.
    cookie: Option<Vec<Vec<u8>>>,
    /// Names that the client used and may not use.
    reserved: Vec<String>,
}

impl Incoming {
    pub(super) fn read(config: &Config, access: &Access, request: &Request<'_>, counts: &mut Counts) -> Self {
        let headers = request.headers;
        let upstream_cookie = config.upstream.cookie.as_deref();
        let lines = values(headers, "cookie");
        let cookies =
            cookie::extract(lines.clone(), config.cookie.name().as_bytes(), upstream_cookie.map(str::as_bytes));
        let (is_off, is_strict, login) = match access {
            Access::Off => (true, false, None),
            Access::Session { is_strict, login } => (false, *is_strict, login.as_ref()),
        };
        let (best, rivals) = if is_off { (None, Vec::new()) } else { verify(config, &cookies.values, request, counts) };
        Self {
            has_rivals: !rivals.is_empty(),
            best,
            rivals,
            ended: None,
            is_subresource: is_subresource(headers),
            began: request.now,
            has_cookie: !cookies.values.is_empty(),
            fresh_id: request.fresh_id,
            binding: request.binding,
            login: login.map(|login| Demand::new(Rc::clone(login), headers, request.now)),
            is_strict,
            cookie: match (cookies.remaining, upstream_cookie) {
                // The upstream's cookie is added to these lines.
                (None, Some(_)) => Some(lines.map(<[u8]>::to_vec).collect()),
                (remaining, _) => remaining,
            },
            reserved: headers
                .iter()
                .filter(|(name, _)| upstream_api::is_reserved(name) || exposed::is_exposed(config, name))
                // Reserved names are ASCII, so that they are always text.
                .filter_map(|(name, _)| str::from_utf8(name).ok().map(str::to_owned))
                .collect(),
        }
    }
}

/// Whether Envoy itself has sent the request again (`internal_redirect_policy`). The token was removed the first time,
/// so its absence says nothing about the client.
pub(super) fn is_redirected(headers: &Headers<'_>) -> bool {
    values(headers, "x-envoy-original-url").next().is_some()
}

/// Whether this is a CORS preflight (Fetch section 4.8), with which a browser asks what a script may send. It has no
/// credentials and no content and precedes the request itself, so it has no session, and none begins.
pub(super) fn is_preflight(headers: &Headers<'_>) -> bool {
    let has = |name| values(headers, name).next().is_some();
    let has_content = has("transfer-encoding") || values(headers, "content-length").any(|length| length != b"0");
    text(headers, ":method") == Some("OPTIONS")
        && has("origin")
        && has("access-control-request-method")
        && !has("cookie")
        && !has("authorization")
        && !has_content
}

/// Whether a browser says that it requests a part of a page (Fetch Metadata, `Sec-Fetch-Dest`): neither a document nor
/// a request by a script, which may be the application itself.
fn is_subresource(headers: &Headers<'_>) -> bool {
    const NEED_A_SESSION: [&str; 8] =
        ["document", "iframe", "frame", "fencedframe", "empty", "webidentity", "embed", "object"];
    text(headers, "sec-fetch-dest").is_some_and(|destination| !NEED_A_SESSION.contains(&destination.trim_ascii()))
}

/// The cookies that are usable tokens: the best one, and the others with the best last. Tokens of stored sessions are
/// better than anonymous ones, and newer tokens better than older ones. A browser that has several cookies of our name
/// (one of an older configuration, with another domain or partition) sends the oldest first.
fn verify(
    config: &Config,
    values: &[&[u8]],
    request: &Request<'_>,
    counts: &mut Counts,
) -> (Option<Verified>, Vec<Verified>) {
    let rank = |Verified { token, .. }: &Verified| (token.version > Version::UNSTORED, token.issued_at, token.version);
    let mut best: Option<Verified> = None;
    let mut rivals: Vec<Verified> = Vec::new();
    for value in values.iter().take(MAX_CANDIDATES) {
        match config.keyring.verify(value, &request.binding) {
            Ok(verified) => {
                let token = &verified.token;
                // A stored session has its own expiry. An anonymous one has only this.
                let is_too_old = token.version == Version::UNSTORED
                    && request.now.since(token.issued_at) >= config.timeouts.absolute;
                // With `eager` there are no anonymous sessions, so such a token comes from an older configuration.
                let is_usable = token.version > Version::UNSTORED || config.create != CreatePolicy::Eager;
                if is_too_old {
                    counts.add(Counter::TokenTooOld);
                }
                if !is_usable || is_too_old || best == Some(verified) || rivals.contains(&verified) {
                    continue;
                }
                // There is rarely a second one.
                let rival = match best {
                    Some(other) if rank(&other) >= rank(&verified) => Some(verified),
                    _ => best.replace(verified),
                };
                if let Some(rival) = rival {
                    rivals.insert(rivals.partition_point(|other| rank(other) <= rank(&rival)), rival);
                }
            }
            Err(rejected) => counts.add(match rejected {
                TokenError::Malformed => Counter::TokenMalformed,
                TokenError::UnknownKey => Counter::TokenUnknownKey,
                TokenError::BadMac => Counter::TokenBadMac,
            }),
        }
    }
    (best, rivals)
}

impl Incoming {
    /// The edits for a request that is not forwarded, or not yet: its client may hang up, or get a response in place of
    /// the upstream's, and an access log must not contain the token even then.
    pub(super) fn without_token(&self) -> Vec<Edit> {
        let mut edits = Vec::new();
        if self.has_cookie
            && let Some(lines) = &self.cookie
        {
            replace_all(&mut edits, "cookie", lines.clone());
        }
        edits
    }

    /// The tokens that were not needed to find the session, of other sessions that may be stored.
    pub(super) fn stored_rivals(&self, found: SessionId) -> Vec<Token> {
        let tokens = self.rivals.iter().map(|rival| rival.token);
        tokens.filter(|token| token.version > Version::UNSTORED && token.id != found).collect()
    }

    /// Takes the best token that is left.
    pub(super) fn take_token(&mut self) -> Option<Verified> {
        self.best.take().or_else(|| self.rivals.pop())
    }
}

/// The session as the upstream sees it.
pub(super) struct Outgoing<'a> {
    pub(super) id: SessionId,
    pub(super) state: SessionState,
    pub(super) version: Version,
    /// The session as it was found; `None` if it is new, or if nothing is known about it.
    pub(super) found: Option<FoundSession>,
    /// The value of the upstream's own cookie, if one is configured.
    pub(super) upstream_cookie: &'a str,
}

/// The edits that turn the client's request into the upstream's.
pub(super) fn forward(config: &Config, incoming: Incoming, outgoing: Outgoing<'_>) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(8);
    if let Some(mut lines) = incoming.cookie {
        if let Some(name) = &config.upstream.cookie {
            prepend(&mut lines, name, outgoing.upstream_cookie);
        }
        replace_all(&mut edits, "cookie", lines);
    }
    for name in incoming.reserved {
        edits.push(Edit::Remove(Cow::Owned(name)));
    }
    edits.push(Edit::set(upstream_api::ID, outgoing.id.to_hex().as_str()));
    edits.push(Edit::set(upstream_api::STATE, outgoing.state.as_str()));
    edits.push(Edit::set(upstream_api::VERSION, outgoing.version.to_string()));
    match outgoing.found {
        Some(FoundSession { data, subject, auth_time, exposed, .. }) => {
            edits.push(match data {
                VisibleData::Whole(data) => Edit::set(upstream_api::DATA, data),
                VisibleData::Omitted(bytes) => Edit::set(upstream_api::DATA_OMITTED, bytes.to_string()),
            });
            if let Some(subject) = subject {
                edits.push(Edit::set(upstream_api::SUBJECT, subject));
            }
            if let Some(auth_time) = auth_time.filter(|_| config.upstream.auth_time) {
                edits.push(Edit::set(upstream_api::AUTH_TIME, auth_time.to_string()));
            }
            edits.extend(exposed::edits(config, exposed));
        }
        None if outgoing.state == SessionState::Unavailable => {}
        None => edits.push(Edit::set(upstream_api::DATA, b"{}")),
    }
    edits
}

/// The edits for a request without a session. What clients may not send is removed all the same, and so is the token.
/// An adopted cookie is added with an unused id: without one, upstreams accept an id from the URL (`;jsessionid=`),
/// which could be another client's.
pub(super) fn strip(config: &Config, incoming: Incoming) -> Vec<Edit> {
    let mut edits = Vec::new();
    if let Some(mut lines) = incoming.cookie {
        if let Some(name) = &config.upstream.cookie {
            prepend(&mut lines, name, &incoming.fresh_id.to_string());
        }
        replace_all(&mut edits, "cookie", lines);
    }
    edits.extend(incoming.reserved.into_iter().map(|name| Edit::Remove(Cow::Owned(name))));
    edits
}

/// Puts a cookie at the start of the first line: some servers read only that line, and PHP uses the first cookie of a
/// name.
fn prepend(lines: &mut Vec<Vec<u8>>, name: &str, value: &str) {
    let mut cookie = [name, "=", value].concat().into_bytes();
    match lines.first_mut() {
        Some(line) => {
            cookie.extend(b"; ");
            line.splice(..0, cookie);
        }
        None => lines.push(cookie),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{borrowed, config, headers};

    const NOW: UnixSeconds = UnixSeconds::new(1_000_000);

    proptest! {
        /// The best token comes first, in whatever order the browser sends them. Compared with a sort of all of them.
        #[test]
        fn the_best_token_comes_first(tokens in proptest::collection::vec((0..4_u8, 0..3_u32, 0..3_u64), 0..=MAX_CANDIDATES)) {
            let config = config(json!({}));
            let token = |(id, version, age): (u8, u32, u64)| Token {
                id: SessionId::from_bytes([id; 16]),
                version: Version::new(version),
                issued_at: UnixSeconds::new(NOW.get() - age),
            };
            let tokens: Vec<_> = tokens.into_iter().map(token).collect();
            let cookie = |token| format!("sid={}", config.keyring.sign(token, &Binding::NONE));
            let line = tokens.iter().map(cookie).collect::<Vec<_>>().join("; ");
            let headers = headers(&[("cookie", &line)]);
            let fresh_id = SessionId::from_bytes([9; 16]);
            let request = Request { headers: &borrowed(&headers), binding: Binding::NONE, now: NOW, fresh_id };
            let access = Access::OPTIONAL;
            let mut incoming = Incoming::read(&config, &access, &request, &mut Counts::default());

            let rank = |token: &Token| (token.version > Version::UNSTORED, token.issued_at, token.version);
            let mut distinct: Vec<Token> = Vec::new();
            for token in tokens {
                if !distinct.contains(&token) {
                    distinct.push(token);
                }
            }
            let mut expected: Vec<_> = distinct.iter().map(rank).collect();
            expected.sort_unstable();
            let taken: Vec<_> = core::iter::from_fn(|| incoming.take_token()).map(|it| rank(&it.token)).collect();
            prop_assert_eq!(taken, expected.into_iter().rev().collect::<Vec<_>>());
        }
    }
}
