//! What the filter counts.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// An event that operators want to count.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The metric's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("session_mesh.", $name),)+
                }
            }
        }
    };
}

counters! {
    /// A request that begins a new session.
    RequestNew => "requests.new",
    /// A request whose session is there.
    RequestActive => "requests.active",
    /// A request whose token was valid but whose session is gone.
    RequestExpired => "requests.expired",
    /// A request forwarded without its session, because the store did not answer.
    RequestUnavailable => "requests.unavailable",
    /// A request answered with 503, because the store did not answer.
    RequestDenied => "requests.denied",
    /// A request served from an old copy, because the store did not answer.
    RequestStale => "requests.stale",
    /// A request that needed a login and had none.
    RequestLogin => "requests.login",
    /// A request to a path without sessions.
    RequestOff => "requests.off",
    /// A lookup that the cache answered.
    CacheHit => "cache.hit",
    /// A lookup that the cache could not answer.
    CacheMiss => "cache.miss",
    /// A cookie that is no token.
    TokenMalformed => "tokens_rejected.malformed",
    /// A token signed with no configured secret.
    TokenUnknownKey => "tokens_rejected.unknown_key",
    /// A token whose MAC is wrong.
    TokenBadMac => "tokens_rejected.bad_mac",
    /// An anonymous token older than the absolute timeout.
    TokenTooOld => "tokens_rejected.too_old",
    /// A token that a rotation ended.
    TokenRotated => "tokens_rejected.rotated",
    /// A token that was issued before its session was created.
    TokenForeign => "tokens_rejected.foreign",
    /// A lookup that found the session.
    LookupFound => "lookups.found",
    /// A lookup that found an older version than the client has seen: a write was lost.
    LookupOlder => "lookups.older",
    /// A lookup that found nothing.
    LookupMissing => "lookups.missing",
    /// A lookup without an answer from the gateway.
    LookupUnavailable => "lookups.unavailable",
    /// A session stored for the first time.
    WriteCreated => "writes.created",
    /// A change of a session that was committed.
    WriteChanged => "writes.changed",
    /// A session ended by its upstream.
    WriteDestroyed => "writes.destroyed",
    /// A write that the store did not answer.
    WriteUnavailable => "writes_failed.unavailable",
    /// An upstream's patch that is not a JSON object, or an unknown control.
    WriteInvalid => "writes_failed.invalid",
    /// A write that would make the data too large.
    WriteTooLarge => "writes_failed.too_large",
    /// A write to a session that had ended.
    WriteEnded => "writes_failed.ended",
    /// A write with a token that a rotation had ended meanwhile.
    WriteRotated => "writes_failed.rotated",
    /// A login of a subject that already has as many sessions as allowed.
    WriteTooMany => "writes_failed.too_many",
    /// A first write with a token that another client had already promoted.
    WriteRefused => "writes_failed.refused",
    /// An ignored renewal of an adopted cookie whose session had been renewed too often.
    AdoptionRenewedAgain => "adoption.renewed_again",
    /// A token given to a client.
    CookieIssued => "cookies.issued",
    /// A cookie taken from a client.
    CookieCleared => "cookies.cleared",
}

/// The histogram of how long callouts to the gateway take, in milliseconds.
pub const CALLOUT_MS: &str = "session_mesh.callout_ms";

/// A set of counters, each to be incremented by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub(crate) u64);

impl Counts {
    pub(crate) fn add(&mut self, counter: Counter) {
        self.0 |= 1 << counter as u8;
    }

    /// Whether this counter is in the set.
    #[must_use]
    pub const fn contains(self, counter: Counter) -> bool {
        self.0 & (1 << counter as u8) != 0
    }

    /// The counters in the set.
    pub fn iter(self) -> impl Iterator<Item = Counter> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            // 64 once none is left, and that many there never are.
            let index = usize::try_from(left.trailing_zeros()).ok()?;
            left &= left.wrapping_sub(1);
            Counter::ALL.get(index).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_bit_and_a_name_of_its_own() {
        let mut counts = Counts::default();
        let mut names = std::collections::HashSet::new();
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(!counts.contains(*counter));
            counts.add(*counter);
            assert!(names.insert(counter.name()));
        }
        assert!(counts.iter().eq(Counter::ALL.iter().copied()));
        assert_eq!(Counts::default().iter().count(), 0);
        assert!(Counter::ALL.len() < 64);
    }
}
