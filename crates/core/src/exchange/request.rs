//! The request: which token the client presents, and what the upstream gets to see.

use std::borrow::Cow;
use std::rc::Rc;

use super::Request;
use super::login::Demand;
use crate::binding::Binding;
use crate::config::{Access, Config, CreatePolicy};
use crate::cookie;
use crate::counter::{Counter, Counts};
use crate::edit::{Edit, replace_all, values};
use crate::exposed;
use crate::found::{Data, Found};
use crate::id::SessionId;
use crate::token::{Rejected, Verified};
use crate::upstream_api::{self, State};
use crate::version::Version;

/// How many cookies of our name are tried. Each costs a MAC, and a request can bring thousands.
const MAX_CANDIDATES: usize = 8;

/// What of the client's headers the exchange still needs once they were read.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    /// The token that opens a session, if one of the cookies is one.
    pub(super) token: Option<Verified>,
    /// Whether there was any cookie of our name.
    pub(super) has_cookie: bool,
    /// An id that has never been used.
    pub(super) fresh_id: SessionId,
    /// What tokens for this client are bound to.
    pub(super) binding: Binding,
    /// The login that the path needs, if it needs one.
    pub(super) login: Option<Demand>,
    /// Whether only the store itself may say what the session is.
    pub(super) is_strict: bool,
    /// The `Cookie` lines to send on, if they differ from those that came.
    cookie: Option<Vec<Vec<u8>>>,
    /// Names that the client used and that are not the client's to use.
    reserved: Vec<String>,
}

impl Incoming {
    pub(super) fn read(config: &Config, access: &Access, request: &Request<'_>, counts: &mut Counts) -> Self {
        let headers = request.headers;
        let upstream_cookie = config.upstream.cookie.as_deref();
        let lines = values(headers, "cookie");
        let cookies = cookie::take(lines.clone(), config.cookie.name().as_bytes(), upstream_cookie.map(str::as_bytes));
        let (is_off, is_strict, login) = match access {
            Access::Off => (true, false, None),
            Access::Session { is_strict, login } => (false, *is_strict, login.as_ref()),
        };
        Self {
            token: if is_off { None } else { verify(config, &cookies.values, request, counts) },
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

/// The first cookie that is a token which may still be used.
fn verify(config: &Config, values: &[&[u8]], request: &Request<'_>, counts: &mut Counts) -> Option<Verified> {
    values.iter().take(MAX_CANDIDATES).find_map(|value| match config.keyring.verify(value, &request.binding) {
        Ok(verified) => {
            let token = &verified.token;
            // A stored session has its own end. An anonymous one has only this.
            let is_too_old =
                token.version == Version::UNSTORED && request.now.since(token.issued_at) >= config.timeouts.absolute;
            // With `eager` there are no anonymous sessions; such a token is of an older configuration.
            let is_usable = token.version > Version::UNSTORED || config.create != CreatePolicy::Eager;
            if is_too_old {
                counts.add(Counter::TokenTooOld);
            }
            (is_usable && !is_too_old).then_some(verified)
        }
        Err(rejected) => {
            counts.add(match rejected {
                Rejected::Malformed => Counter::TokenMalformed,
                Rejected::UnknownKey => Counter::TokenUnknownKey,
                Rejected::BadMac => Counter::TokenBadMac,
            });
            None
        }
    })
}

/// The session as the upstream sees it.
pub(super) struct Outgoing<'a> {
    pub(super) id: SessionId,
    pub(super) state: State,
    pub(super) version: Version,
    /// The session as it was found; `None` if it is new, or if nothing is known.
    pub(super) found: Option<Found>,
    /// The value of the upstream's own cookie, where one is configured.
    pub(super) upstream_cookie: &'a str,
}

/// The edits that make the client's request the upstream's.
pub(super) fn forward(config: &Config, incoming: Incoming, outgoing: Outgoing<'_>) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(8);
    if let Some(mut lines) = incoming.cookie {
        if let Some(name) = &config.upstream.cookie {
            append(&mut lines, name, outgoing.upstream_cookie);
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
        Some(Found { data, subject, auth_time, exposed, .. }) => {
            edits.push(match data {
                Data::Whole(data) => Edit::set(upstream_api::DATA, data),
                Data::Omitted(bytes) => Edit::set(upstream_api::DATA_OMITTED, bytes.to_string()),
            });
            if let Some(subject) = subject {
                edits.push(Edit::set(upstream_api::SUBJECT, subject));
            }
            if let Some(auth_time) = auth_time.filter(|_| config.upstream.auth_time) {
                edits.push(Edit::set(upstream_api::AUTH_TIME, auth_time.to_string()));
            }
            edits.extend(exposed::edits(config, exposed));
        }
        None if outgoing.state == State::Unavailable => {}
        None => edits.push(Edit::set(upstream_api::DATA, b"{}")),
    }
    edits
}

/// The edits for a request without a session: what is not the client's to send goes all the same, and the
/// token is not the upstream's to see.
pub(super) fn strip(incoming: Incoming) -> Vec<Edit> {
    let mut edits = Vec::new();
    if let Some(lines) = incoming.cookie {
        replace_all(&mut edits, "cookie", lines);
    }
    edits.extend(incoming.reserved.into_iter().map(|name| Edit::Remove(Cow::Owned(name))));
    edits
}

/// Adds a cookie to the end of the first line: some servers read only that one.
fn append(lines: &mut Vec<Vec<u8>>, name: &str, value: &str) {
    let cookie = [name, "=", value].concat();
    match lines.first_mut() {
        Some(line) => {
            line.extend(b"; ");
            line.extend(cookie.as_bytes());
        }
        None => lines.push(cookie.into_bytes()),
    }
}
