//! An open stream is a use of its session, however long ago its request was: a WebSocket, a download, server-sent
//! events. Envoy's `stream_idle_timeout` ends idle streams.

use super::admission::{Admission, admit};
use super::callout::{Answer, CallOutcome};
use super::{Exchange, LookUp};
use crate::found::FoundSession;
use crate::token::Token;
use session::rotation::Standing;
use session::time::{Seconds, UnixSeconds};

/// The stored session that a stream uses, and when the store last heard of a use.
#[derive(Clone, Copy, Debug)]
pub(super) struct InUse {
    token: Token,
    touched: UnixSeconds,
}

impl Exchange {
    /// The lookup that tells the store that the session is still in use, if one is due. It is sent as [`LookUp::touch`]
    /// while the stream is open, and its answer goes to [`touched`](Self::touched).
    #[must_use]
    pub fn due_touch(&self, now: UnixSeconds) -> Option<LookUp> {
        let InUse { token, touched } = self.in_use?;
        // If the last use is in the future, the clock was set back.
        let is_due = now < touched || now.since(touched) >= self.config.timeouts.stream_touch_after();
        is_due.then_some(LookUp { id: token.id, seen: token.version })
    }

    /// The session that this stream keeps in use.
    #[must_use]
    pub fn in_use(&self) -> Option<LookUp> {
        self.in_use.map(|InUse { token, .. }| LookUp { id: token.id, seen: token.version })
    }

    /// A touch of the session that was sent at `asked` has been answered. A stream does not keep a session alive if its
    /// token no longer opens the session, or opens it only by a grace: its client has a newer token. Without an answer
    /// the touch stays due.
    pub fn touched(&mut self, answer: Answer<'_>, asked: UnixSeconds, now: UnixSeconds) {
        let Some(InUse { token, .. }) = self.in_use else { return };
        match CallOutcome::of(&self.config, token.id, answer) {
            CallOutcome::Found(found) => {
                let admission = admit(&token, &found, self.config.timeouts.rotation_grace, now);
                let is_good = admission == Admission::Own(Standing::Good);
                self.in_use = is_good.then_some(InUse { token, touched: asked });
            }
            CallOutcome::Missing => self.in_use = None,
            _ => {}
        }
    }

    /// The stream uses this session, as it was found at `asked`. Its last use follows from when it ends.
    pub(super) fn uses_found(&mut self, token: Token, found: &FoundSession, asked: UnixSeconds) {
        let extended = UnixSeconds::new(found.expires.get().saturating_sub(self.config.timeouts.idle.get()));
        self.uses(token, asked.min(extended));
    }

    /// The stream uses the session of this token, which the store last heard of at `touched`.
    pub(super) const fn uses(&mut self, token: Token, touched: UnixSeconds) {
        self.in_use = Some(InUse { token, touched });
    }
}

impl crate::config::Timeouts {
    /// The interval after which an open stream counts as the next use: `touch_after`, unless that is long. A touch that
    /// comes slightly too early extends nothing, because another stream has just done so, and the next one must still
    /// be in time.
    #[must_use]
    pub fn stream_touch_after(&self) -> Seconds {
        self.touch_after.min(Seconds::new(self.idle.get() / 3))
    }
}
