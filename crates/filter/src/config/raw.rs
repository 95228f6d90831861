//! The configuration as it is written: the structure of the JSON and its defaults, and nothing else.
//!
//! Unknown keys are errors everywhere: a misspelt `secure` must not silently mean the default.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::duration::Millis;
use super::{CreatePolicy, OnStoreFailure, OnWriteFailure};
use crate::set_cookie::SameSite;
use session::limits;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) gateway: Gateway,
    pub(super) secrets_env: Option<String>,
    pub(super) secrets: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cookie: Cookie,
    #[serde(default)]
    pub(super) create: CreatePolicy,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    #[serde(default)]
    pub(super) on_store_failure: OnStoreFailure,
    #[serde(default)]
    pub(super) on_write_failure: OnWriteFailure,
    #[serde(default = "default_subject_key")]
    pub(super) subject_key: String,
    pub(super) realm: Option<String>,
    #[serde(default)]
    pub(super) upstream: Upstream,
    #[serde(default)]
    pub(super) cache: Cache,
    #[serde(default)]
    pub(super) bind: Vec<String>,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

fn default_subject_key() -> String {
    limits::DEFAULT_SUBJECT_KEY.to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) cluster: String,
    #[serde(default = "default_timeout")]
    pub(super) timeout: Millis,
    #[serde(default = "default_token_env")]
    pub(super) token_env: String,
}

fn default_timeout() -> Millis {
    Millis::from(limits::DEFAULT_CALL_TIMEOUT)
}

fn default_token_env() -> String {
    "SESSION_GATEWAY_TOKEN".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cookie {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) domain: Option<String>,
    pub(super) secure: bool,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
    pub(super) partitioned: bool,
    pub(super) max_age: Option<Millis>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "__Host-session".to_owned(),
            path: "/".to_owned(),
            domain: None,
            secure: true,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            max_age: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    pub(super) idle: Millis,
    pub(super) absolute: Millis,
    pub(super) touch_after: Millis,
    pub(super) rotation_grace: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Millis::from(limits::DEFAULT_IDLE),
            absolute: Millis::from(limits::DEFAULT_ABSOLUTE),
            touch_after: Millis(60 * 1000),
            rotation_grace: Millis::from(limits::DEFAULT_ROTATION_GRACE),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    pub(super) expose: BTreeMap<String, String>,
    pub(super) cookie: Option<String>,
    pub(super) auth_time: bool,
    #[serde(deserialize_with = "whole_number")]
    pub(super) max_data_bytes: usize,
}

impl Default for Upstream {
    fn default() -> Self {
        Self { expose: BTreeMap::new(), cookie: None, auth_time: false, max_data_bytes: 4096 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cache {
    pub(super) ttl: Millis,
    pub(super) stale_if_error: Millis,
    #[serde(deserialize_with = "whole_number")]
    pub(super) slots: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { ttl: Millis(5000), stale_if_error: Millis(60_000), slots: 65_536 }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Default))]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) path_prefix: String,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) session: SessionRule,
    pub(super) redirect: Option<String>,
    pub(super) max_age: Option<Millis>,
    #[serde(default)]
    pub(super) strict: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionRule {
    Off,
    #[default]
    Optional,
    Required,
    Strict,
}

/// A whole number, even if it is written as `8192.0`: a protobuf struct contains only doubles.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_u64().or_else(|| written_as_double(&number.to_string()));
    whole
        .and_then(|whole| usize::try_from(whole).ok())
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Other("number"), &"a whole number of 0 or more"))
}

/// The whole number that this JSON number with a fraction or an exponent stands for, below 2^53: up to there, a double
/// represents every whole number. It is read digit by digit, because the tables of a parser for doubles would be a
/// fortieth of the module.
fn written_as_double(number: &str) -> Option<u64> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (is_negative, whole) = whole.strip_prefix('-').map_or((false, whole), |whole| (true, whole));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let shift = exponent.parse::<i64>().ok()? + i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
    let power = 10_u64.checked_pow(u32::try_from(shift).ok()?)?;
    let value = significant.parse::<u64>().ok()?.checked_mul(power)?;
    (!is_negative && value < 1 << 53).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the doubles themselves, where these are exact.
        #[test]
        fn whole_doubles_are_whole_numbers(number in "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            let double: f64 = number.parse().unwrap();
            let is_whole = double.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&double);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
            let expected = is_whole.then_some(double as u64);
            prop_assert_eq!(written_as_double(&number), expected, "{}", number);
        }
    }

    #[test]
    fn doubles_of_a_struct_are_read() {
        let rows = [
            ("8192.0", Some(8192)),
            ("8.192e3", Some(8192)),
            ("-0.0", Some(0)),
            ("9007199254740992.0", None),
            ("9007199254740991.0", Some(9_007_199_254_740_991)),
            ("0.5", None),
            ("-1.0", None),
            ("1e99999999999999999999", None),
        ];
        for (number, whole) in rows {
            assert_eq!(written_as_double(number), whole, "{number}");
        }
    }
}
