//! One callback: which stream it belongs to, and its time.

use std::cell::OnceCell;

use session::time::UnixSeconds;

use crate::host::Host;

/// One callback of the host's.
pub(crate) struct Callback<H> {
    /// The stream that the callback belongs to; `None` for the root's.
    pub(crate) active: Option<u32>,
    host: H,
    millis: OnceCell<u64>,
}

impl<H: Host> Callback<H> {
    pub(crate) const fn new(host: H, active: Option<u32>) -> Self {
        Self { active, host, millis: OnceCell::new() }
    }

    /// The time in milliseconds since the Unix epoch. The host's clock is read only when the time is first needed,
    /// because in Envoy that is a hostcall.
    pub(crate) fn millis(&self) -> u64 {
        *self.millis.get_or_init(|| self.host.now_ms())
    }

    /// The time.
    pub(crate) fn seconds(&self) -> UnixSeconds {
        UnixSeconds::new(self.millis() / 1000)
    }
}
