//! The time of one callback.

use std::cell::OnceCell;

use session::time::UnixSeconds;

use crate::host::Host;

/// Reads the host's clock when it is first needed, and only then: in Envoy that is a hostcall.
pub(crate) struct Clock<H> {
    host: H,
    millis: OnceCell<u64>,
}

impl<H: Host> Clock<H> {
    pub(crate) const fn new(host: H) -> Self {
        Self { host, millis: OnceCell::new() }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn millis(&self) -> u64 {
        *self.millis.get_or_init(|| self.host.now_ms())
    }

    pub(crate) fn seconds(&self) -> UnixSeconds {
        UnixSeconds::new(self.millis() / 1000)
    }
}
