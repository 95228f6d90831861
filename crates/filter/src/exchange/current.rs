//! The session of one exchange, between the request and the response.

use super::request::Incoming;
use crate::binding::Binding;
use crate::config::{Config, CreatePolicy};
use crate::counter::Counter;
use crate::token::{Token, Verified};
use session::id::SessionId;
use session::time::{Seconds, UnixSeconds};
use session::version::Version;

/// The origin of an exchange's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It begins with this request; no client has a token for its id.
    Fresh,
    /// It begins with this request, but the client may already have a better token than it sent, so it gets none unless
    /// the upstream writes.
    Late,
    /// The client has a token, the store has nothing.
    Anonymous(Verified),
    /// The client has a token, the store has the session.
    Stored {
        verified: Verified,
        /// Whether the token may be re-issued: not if it is valid only by a grace.
        is_renewable: bool,
    },
    /// It began with this request and is stored at this version.
    JustStored(Version),
    /// It began with this request and should have been stored, but was not.
    NotStored,
}

/// What the upstream was sent as its own session cookie (`upstream.cookie`).
#[derive(Clone, Debug)]
pub(super) enum SentCookie {
    /// None is configured.
    None,
    /// The id under which it keeps its state.
    Adopted(String),
    /// An unused id in place of an unknown one. What the upstream does to it says nothing about the session.
    StandIn(String),
}

impl SentCookie {
    /// The value that was sent.
    pub(super) fn value(&self) -> &str {
        match self {
            Self::None => "",
            Self::Adopted(value) | Self::StandIn(value) => value,
        }
    }

    /// The id that the upstream may renew or delete.
    pub(super) fn adopted(&self) -> Option<&str> {
        match self {
            Self::Adopted(value) => Some(value),
            Self::None | Self::StandIn(_) => None,
        }
    }
}

/// The session of one exchange.
#[derive(Clone, Debug)]
pub(super) struct CurrentSession {
    /// The id that the upstream sees.
    pub(super) id: SessionId,
    pub(super) origin: Origin,
    /// What tokens for this client are bound to.
    binding: Binding,
    /// An id that has never been used, should the client need a new one.
    pub(super) fresh_id: SessionId,
    /// Whether the client sent any cookie of our name.
    pub(super) has_cookie: bool,
    /// What the upstream was sent as its own session cookie.
    pub(super) sent_cookie: SentCookie,
    /// When the request came.
    pub(super) began: UnixSeconds,
    /// The session that this one replaces, because the client's token no longer opens it.
    ended: Option<SessionId>,
    /// Whether the client sent several genuine tokens.
    has_rivals: bool,
    /// The tokens of other sessions that may still exist.
    pub(super) rivals: Vec<Token>,
    /// Whether the response is a part of a page that the browser loads on its own.
    is_subresource: bool,
}

impl CurrentSession {
    pub(super) fn new(config: &Config, incoming: &Incoming, id: SessionId, origin: Origin) -> Self {
        let sent_cookie = match &config.upstream.cookie {
            Some(_) => SentCookie::Adopted(id.to_string()),
            None => SentCookie::None,
        };
        Self {
            id,
            origin,
            binding: incoming.binding,
            fresh_id: incoming.fresh_id,
            has_cookie: incoming.has_cookie,
            sent_cookie,
            began: incoming.began,
            ended: incoming.ended,
            has_rivals: incoming.has_rivals,
            rivals: incoming.stored_rivals(id),
            is_subresource: incoming.is_subresource,
        }
    }

    /// Replaces the upstream's own cookie, if one is configured, with an unused id.
    pub(super) fn with_stand_in(mut self) -> Self {
        if let SentCookie::Adopted(_) = self.sent_cookie {
            self.sent_cookie = SentCookie::StandIn(self.fresh_id.to_string());
        }
        self
    }

    /// Whether setting the client's cookie may clear the others of our name. A good token of another session stays,
    /// because there is no telling which of the two is the client's own.
    pub(super) fn clears_rivals(&self) -> bool {
        self.has_rivals && self.rivals.is_empty()
    }

    /// The session that the client's cookie stands for, if a new cookie would be for a different one.
    pub(super) fn replaces(&self) -> Option<SessionId> {
        match self.origin {
            Origin::Anonymous(verified) => Some(verified.token.id),
            Origin::Stored { .. } => None,
            Origin::Fresh | Origin::Late | Origin::JustStored(_) | Origin::NotStored => self.ended,
        }
    }

    /// The token, if it should be re-issued with the same content: because its secret is about to be retired, because
    /// the browser would drop the cookie, or because the client has another one as well.
    pub(super) fn renewable(&self, config: &Config, now: UnixSeconds) -> Option<Verified> {
        match self.origin {
            Origin::Stored { verified, is_renewable: true } => {
                (is_due(config, &verified, now) || self.settles(config)).then_some(verified)
            }
            _ => None,
        }
    }

    /// Whether it begins with a part of a page, for which no session is stored.
    pub(super) fn is_unstored_part(&self) -> bool {
        self.is_subresource && self.origin == Origin::Fresh
    }

    /// Whether the client's cookies can be reduced to one, by setting the best and clearing the others.
    fn settles(&self, config: &Config) -> bool {
        self.clears_rivals() && !self.is_subresource && config.cookie.has_variants()
    }

    /// Whether a response that says nothing about the session is sent unchanged, whatever the time.
    pub(super) fn is_settled(&self, config: &Config) -> bool {
        match self.origin {
            Origin::Anonymous(_) => !self.settles(config),
            Origin::Stored { verified, is_renewable: true } => {
                verified.is_current() && config.cookie.max_age().is_none() && !self.settles(config)
            }
            Origin::Stored { is_renewable: false, .. } | Origin::Late => true,
            Origin::Fresh | Origin::JustStored(_) | Origin::NotStored => false,
        }
    }

    /// The change to the client's cookie if the response changes nothing about the session. A good token of a stored
    /// session is [`renewable`](Self::renewable) instead: it has to be checked again, because the response may be late.
    pub(super) fn cookie_if_unchanged(&self, config: &Config, now: UnixSeconds) -> Option<CookieChange> {
        let issue = |version| Some(CookieChange::Issue(Token { id: self.id, version, issued_at: now }));
        match self.origin {
            // Its response may arrive after that of a login on the page that it is a part of.
            Origin::Fresh if self.is_subresource => None,
            Origin::Fresh => match config.create {
                CreatePolicy::Lazy => issue(Version::UNSTORED),
                CreatePolicy::OnWrite => self.has_cookie.then_some(CookieChange::Clear),
                CreatePolicy::Eager => None,
            },
            // It is not signed again when the secrets change: a late response would overwrite the token of a login, and
            // the token expires by its age before its secret has to be removed. Only its age ends it, so it keeps its
            // time of issue.
            Origin::Anonymous(verified) => self.settles(config).then_some(CookieChange::Issue(verified.token)),
            Origin::JustStored(version) => issue(version),
            Origin::Late | Origin::NotStored | Origin::Stored { .. } => None,
        }
    }

    /// The `Set-Cookie` value of a change to this client's cookie.
    pub(super) fn set_cookie(&self, config: &Config, change: CookieChange) -> String {
        match change {
            CookieChange::Issue(token) => config.cookie.issue(&config.keyring.sign(&token, &self.binding)),
            CookieChange::Clear => config.cookie.clear(),
        }
    }
}

/// Whether a good token should be re-issued with the same content: because its secret is about to be retired, or
/// because the browser would drop the cookie.
fn is_due(config: &Config, verified: &Verified, now: UnixSeconds) -> bool {
    let has_aged = |max_age: Seconds| now.since(verified.token.issued_at).get() >= max_age.get() / 2;
    !verified.is_current() || config.cookie.max_age().is_some_and(has_aged)
}

/// What a response does to the client's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CookieChange {
    Issue(Token),
    Clear,
}

impl CookieChange {
    pub(super) const fn counter(self) -> Counter {
        match self {
            Self::Issue(_) => Counter::CookieIssued,
            Self::Clear => Counter::CookieCleared,
        }
    }
}
