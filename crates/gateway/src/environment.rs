//! The time and random numbers, as the gateway gets them from outside.
//!
//! Nothing else in the gateway reads the system's clock or asks for entropy. So a simulation that hands in its own
//! clock and its own numbers replays a run exactly. Time limits and pauses are tokio's, which has a clock for tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use session::time::UnixSeconds;

/// Where the time and random numbers come from.
pub trait Surroundings: Send + Sync {
    /// The time since the beginning of 1970, as the machine's clock has it. It may step, also back.
    fn since_epoch(&self) -> Duration;

    /// Fills `bytes` with numbers that cannot be guessed.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error>;
}

/// The surroundings of one gateway. Clones share them.
#[derive(Clone)]
pub struct Environment(Arc<dyn Surroundings>);

/// The operating system's clock and entropy.
struct Machine;

impl Surroundings for Machine {
    fn since_epoch(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        getrandom::fill(bytes)
    }
}

impl Environment {
    /// The operating system's clock and entropy.
    #[must_use]
    pub fn machine() -> Self {
        Self::new(Machine)
    }

    /// These surroundings.
    pub fn new(surroundings: impl Surroundings + 'static) -> Self {
        Self(Arc::new(surroundings))
    }

    /// The time, in whole seconds.
    #[must_use]
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds::new(self.0.since_epoch().as_secs())
    }

    /// The time in milliseconds since the beginning of 1970.
    #[must_use]
    pub fn now_millis(&self) -> u64 {
        u64::try_from(self.0.since_epoch().as_millis()).unwrap_or(u64::MAX)
    }

    /// Eight random bytes.
    pub fn random_bytes(&self) -> Result<[u8; 8], getrandom::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A random number, for what works with any, if less well: 0 if there is none.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.random_bytes().map(u64::from_ne_bytes).unwrap_or_default()
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}
