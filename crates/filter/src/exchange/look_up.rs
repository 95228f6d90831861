//! From the request to the upstream: whether the client's token opens a session.

use core::mem;

use super::admission::{Admission, admit};
use super::callout::{CallOutcome, Callout};
use super::current::{CurrentSession, Origin, SentCookie};
use super::request::{Incoming, Outgoing, forward};
use super::write_failure::WriteFailure;
use super::{Exchange, Identity, LookUp, Phase, Step};
use crate::cache::{self, CacheEntry, SlotWrite, Slots};
use crate::config::{CreatePolicy, OnStoreFailure};
use crate::counter::Counter;
use crate::found::FoundSession;
use crate::token::Verified;
use crate::upstream_api::SessionState;
use session::id::SessionId;
use session::merge_patch::Object;
use session::rotation::{Rotation, Standing};
use session::time::UnixSeconds;
use session::version::Version;

/// What the cache has for a token.
enum Cached {
    /// A good copy; `is_due` if the store should be told that the session is in use.
    Fresh {
        found: FoundSession,
        fetched: UnixSeconds,
        is_due: bool,
    },
    /// A copy that is good only if the store does not answer.
    Stale(FoundSession),
    Nothing,
}

impl Exchange {
    /// An anonymous session: the client has a token, and the store has nothing.
    pub(super) fn go_on(&mut self, incoming: Incoming, verified: Verified) -> Step {
        let session = CurrentSession::new(&self.config, &incoming, verified.token.id, Origin::Anonymous(verified));
        self.forward(incoming, session, SessionState::Active, Version::UNSTORED, None)
    }

    /// A stored session: from the cache if that is allowed, otherwise from the gateway.
    pub(super) fn find(
        &mut self,
        incoming: Incoming,
        verified: Verified,
        slots: &impl Slots,
        now: UnixSeconds,
    ) -> Step {
        let token = verified.token;
        let cached = if incoming.is_strict { Cached::Nothing } else { self.cached(&verified, slots, now) };
        let stale = match cached {
            Cached::Fresh { found, fetched, is_due } => {
                self.effects.counts.add(Counter::CacheHit);
                let step = self.admit(incoming, verified, found, slots, (fetched, now));
                if is_due && matches!(step, Step::Forward { .. }) {
                    self.effects.refresh = Some(LookUp { id: token.id, seen: token.version });
                }
                return step;
            }
            Cached::Stale(found) => Some(found),
            Cached::Nothing => None,
        };
        self.effects.counts.add(Counter::CacheMiss);
        let look_up = LookUp { id: token.id, seen: token.version };
        let is_shareable = !incoming.is_strict;
        self.effects.request = incoming.without_token();
        self.phase = Phase::LookingUp { incoming, verified, stale, asked: now };
        Step::LookUp { look_up, is_shareable }
    }

    fn cached(&self, verified: &Verified, slots: &impl Slots, now: UnixSeconds) -> Cached {
        let config = &self.config.cache;
        let token = &verified.token;
        if config.ttl.get() == 0 {
            return Cached::Nothing;
        }
        let entry =
            slots.read(cache::slot(token.id, config.slots)).and_then(|bytes| CacheEntry::decode(&bytes, config.layout));
        let Some(CacheEntry { id, fetched, state: cache::CopyState::Found(found) }) = entry else {
            return Cached::Nothing;
        };
        // Not this session, older than what this client has already seen, or over.
        if id != token.id || found.version < token.version || now >= found.expires {
            return Cached::Nothing;
        }
        // Older than the token, which may belong to a session that was stored again under a derived id; or from the
        // future, because the clock was set back.
        if fetched < token.issued_at || fetched > now {
            return Cached::Nothing;
        }
        let age = now.since(fetched);
        if age < config.ttl {
            Cached::Fresh { found, fetched, is_due: age >= self.config.timeouts.touch_after }
        } else if now < fetched.plus(config.ttl).plus(config.stale_if_error) {
            Cached::Stale(found)
        } else {
            Cached::Nothing
        }
    }

    /// The token no longer opens anything: try the next best one.
    fn pass_over(&mut self, mut incoming: Incoming, ended: Verified, slots: &impl Slots, now: UnixSeconds) -> Step {
        incoming.ended = incoming.ended.or(Some(ended.token.id));
        while let Some(verified) = incoming.take_token() {
            let token = verified.token;
            if token.version == Version::UNSTORED {
                return self.go_on(incoming, verified);
            }
            // Whatever ended a token also ended the older ones of its session.
            if token.id != ended.token.id || token.version > ended.token.version {
                return self.find(incoming, verified, slots, now);
            }
        }
        self.start(incoming, SessionState::Expired)
    }

    /// A session that begins with this request.
    pub(super) fn start(&mut self, incoming: Incoming, state: SessionState) -> Step {
        let id = incoming.fresh_id;
        // An image or a style sheet needs no new session, and its cookie could overwrite that of a login.
        let stores = self.config.create == CreatePolicy::Eager && !incoming.is_subresource;
        let session = CurrentSession::new(&self.config, &incoming, id, Origin::Fresh);
        let mut step = self.forward(incoming, session, state, Version::UNSTORED, None);
        if stores
            && let Step::Forward { callout, .. } = &mut step
            && let Phase::Upstream(session) = mem::replace(&mut self.phase, Phase::Finished)
        {
            *callout = Some(Callout::create(&self.config, id, &Object::new(), Rotation::None, false, None));
            self.phase = Phase::Creating { session, held: None };
        }
        step
    }

    /// A session that begins with this request, for a client that may have a better token than it sent.
    pub(super) fn go_late(&mut self, incoming: Incoming, state: SessionState) -> Step {
        let session = CurrentSession::new(&self.config, &incoming, incoming.fresh_id, Origin::Late).with_stand_in();
        self.forward(incoming, session, state, Version::UNSTORED, None)
    }

    pub(super) fn looked_up(
        &mut self,
        incoming: Incoming,
        verified: Verified,
        stale: Option<FoundSession>,
        outcome: CallOutcome,
        slots: &impl Slots,
        (asked, now): (UnixSeconds, UnixSeconds),
    ) -> Step {
        match outcome {
            CallOutcome::Found(found) if found.version < verified.token.version => {
                self.effects.counts.add(Counter::LookupOlder);
                // The store has lost a write that this client has seen. It may have changed who is logged in.
                if incoming.login.is_some() || incoming.is_strict {
                    return self.deny();
                }
                self.admit(incoming, verified, found, slots, (asked, now))
            }
            CallOutcome::Found(found) => {
                self.effects.counts.add(Counter::LookupFound);
                self.keep(verified.token.id, asked, Some(&found));
                self.admit(incoming, verified, found, slots, (asked, now))
            }
            CallOutcome::Missing => {
                self.effects.counts.add(Counter::LookupMissing);
                self.pass_over(incoming, verified, slots, now)
            }
            _ => {
                self.effects.counts.add(Counter::LookupUnavailable);
                match stale {
                    Some(found) => {
                        self.effects.counts.add(Counter::RequestStale);
                        self.admit(incoming, verified, found, slots, (asked, now))
                    }
                    None => self.unavailable(incoming, verified),
                }
            }
        }
    }

    /// Puts a session into the cache; `None` marks that it has ended, or may have.
    pub(super) fn keep(&mut self, id: SessionId, fetched: UnixSeconds, found: Option<&FoundSession>) {
        let config = &self.config.cache;
        if config.ttl.get() > 0 {
            self.effects.cache = Some(SlotWrite::new(id, fetched, found, config));
        }
    }

    /// Decides whether a token opens the session that was found under its id.
    fn admit(
        &mut self,
        incoming: Incoming,
        verified: Verified,
        found: FoundSession,
        slots: &impl Slots,
        (asked, now): (UnixSeconds, UnixSeconds),
    ) -> Step {
        let token = verified.token;
        match admit(&token, &found, self.config.timeouts.rotation_grace, now) {
            Admission::Own(standing @ (Standing::Good | Standing::Spared)) => {
                let origin = Origin::Stored { verified, is_renewable: standing == Standing::Good };
                let mut session = CurrentSession::new(&self.config, &incoming, token.id, origin);
                if let (SentCookie::Adopted(sent), Some(cookie)) = (&mut session.sent_cookie, &found.upstream_cookie) {
                    sent.clone_from(cookie);
                }
                self.uses_found(token, &found, asked);
                self.forward(incoming, session, SessionState::Active, found.version, Some(found))
            }
            Admission::Own(Standing::Ended) => {
                self.effects.counts.add(Counter::TokenRotated);
                self.pass_over(incoming, verified, slots, now)
            }
            Admission::Foreign => {
                self.effects.counts.add(Counter::TokenForeign);
                self.pass_over(incoming, verified, slots, now)
            }
            Admission::Own(Standing::Late) => {
                self.effects.counts.add(Counter::TokenRotated);
                self.go_late(incoming, SessionState::Expired)
            }
        }
    }

    /// The store did not answer. The token stays what it is: an outage logs no user out.
    fn unavailable(&mut self, incoming: Incoming, verified: Verified) -> Step {
        // If a login is needed, a client whose login can't be checked is not let through.
        if self.config.on_store_failure == OnStoreFailure::Deny || incoming.login.is_some() {
            return self.deny();
        }
        let token = verified.token;
        let origin = Origin::Stored { verified, is_renewable: false };
        // The session may have ended, and an adopting upstream would not know.
        let session = CurrentSession::new(&self.config, &incoming, token.id, origin).with_stand_in();
        self.uses(token, incoming.began);
        self.forward(incoming, session, SessionState::Unavailable, token.version, None)
    }

    fn deny(&mut self) -> Step {
        self.effects.counts.add(Counter::RequestDenied);
        self.phase = Phase::Finished;
        Step::Reply(WriteFailure::Unavailable.reply(None))
    }

    fn forward(
        &mut self,
        mut incoming: Incoming,
        session: CurrentSession,
        state: SessionState,
        version: Version,
        found: Option<FoundSession>,
    ) -> Step {
        if let Some(reply) = incoming.login.take().and_then(|demand| demand.unmet(found.as_ref())) {
            self.effects.request = incoming.without_token();
            self.effects.counts.add(Counter::RequestLogin);
            self.phase = Phase::Finished;
            return Step::Reply(reply);
        }
        self.effects.counts.add(match state {
            SessionState::New => Counter::RequestNew,
            SessionState::Active => Counter::RequestActive,
            SessionState::Expired => Counter::RequestExpired,
            SessionState::Unavailable => Counter::RequestUnavailable,
        });
        self.effects.identity = Some(Identity { id: session.id, state });
        let outgoing = Outgoing { id: session.id, state, version, found, upstream_cookie: session.sent_cookie.value() };
        let edits = forward(&self.config, incoming, outgoing);
        self.phase = Phase::Upstream(session);
        Step::Forward { edits, callout: None }
    }
}
