//! Durations as operators write them: `250ms`, `30s`, `5m`, `12h`, `7d`.

use core::fmt;
use core::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use session::time::Seconds;

/// A duration of whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Millis(pub(super) u64);

impl Millis {
    pub(super) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whole seconds, or `None` if there is a fraction.
    pub(super) const fn seconds(self) -> Option<Seconds> {
        if self.0.is_multiple_of(1000) { Some(Seconds::new(self.0 / 1000)) } else { None }
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|symbol: char| !symbol.is_ascii_digit())?;
        let (number, unit) = text.split_at_checked(digits)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(millis).map(Self)
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Seconds> for Millis {
    fn from(seconds: Seconds) -> Self {
        Self(seconds.get().saturating_mul(1000))
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Millis;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250ms\", \"30s\", \"5m\", \"12h\" or \"7d\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Millis, E> {
                Millis::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_limits() {
        let rows = [
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("12h", Some(43_200_000)),
            ("7d", Some(604_800_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5S", None),
            ("5sm", None),
            ("٣s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ];
        for (text, millis) in rows {
            assert_eq!(Millis::parse(text), millis.map(Millis), "{text}");
        }
    }
}
