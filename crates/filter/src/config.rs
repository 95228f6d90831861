//! The filter's configuration: it takes JSON and returns a valid value or an error that names the key.
//!
//! [`Config::parse`] is called once per configuration, with the plugin's configuration and a way to read
//! environment variables (in Envoy they come from `vm_config.environment_variables`). `docs/configuration.md`
//! describes every key.

mod duration;
mod hosts;
mod protobuf_struct;
mod raw;
mod rules;
mod sections;

use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use serde::Deserialize;

use crate::renewals::Renewals;
use crate::set_cookie::SetCookie;
use crate::token::Keyring;
pub use rules::{Access, Login, Rules};
use session::principal::Realm;
use session::time::Seconds;

/// When a session is first stored and the client gets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreatePolicy {
    /// The cookie is set by the first response, and the session is stored on the first write: anonymous visitors do not
    /// use the store.
    #[default]
    Lazy,
    /// The cookie is set by the first response, and the session is stored on the first request: for upstreams that keep
    /// state under the id.
    Eager,
    /// There is neither before the first write.
    OnWrite,
}

/// What happens to a request whose session can't be looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFailure {
    /// 503 with `retry-after`.
    #[default]
    Deny,
    /// Forwarded with `x-session-state: unavailable`.
    Continue,
}

/// What happens to a response whose write can't be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWriteFailure {
    /// The client gets an error instead, so that nothing seems to be saved.
    #[default]
    Fail,
    /// The client gets the response, with `x-session-error`.
    Deliver,
}

/// How the filter reaches the gateway.
#[derive(Clone)]
pub struct Gateway {
    /// The Envoy cluster.
    pub cluster: String,
    /// How long one call may take. It is at least a millisecond, because 0 means no limit to Envoy.
    pub timeout: Duration,
    /// The `authorization` header's value.
    pub authorization: String,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("cluster", &self.cluster)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The lifetimes of sessions.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// A session ends this long after its last use.
    pub idle: Seconds,
    /// A session ends this long after its creation.
    pub absolute: Seconds,
    /// How often, at most, a request extends the idle timeout.
    pub touch_after: Seconds,
    /// How long the tokens from before a rotation stay valid.
    pub rotation_grace: Seconds,
}

/// What upstreams get to see.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Members of the data that are sent as separate headers: (data key, header name).
    pub expose: Vec<(String, String)>,
    /// The upstreams' own session cookie, which then carries the session's id.
    pub cookie: Option<String>,
    /// Whether upstreams get `x-session-auth-time`.
    pub auth_time: bool,
    /// Data over this size is left out of `x-session-data`.
    pub max_data_bytes: usize,
}

/// How long and how many copies of sessions a proxy keeps.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// How long a copy is used without asking again; zero turns the cache off.
    pub ttl: Seconds,
    /// How much longer it is used while the store does not answer.
    pub stale_if_error: Seconds,
    /// The maximum number of copies, for all workers together.
    pub slots: u32,
    /// A digest of what a copy stores by position. Copies outlive a change of the configuration, and configurations
    /// that share their copies may differ in this.
    pub layout: u32,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// How the filter reaches the gateway.
    pub gateway: Gateway,
    /// The session cookie.
    pub cookie: SetCookie,
    /// The keys that sign and verify the cookie's tokens.
    pub keyring: Keyring,
    /// When sessions are created.
    pub create: CreatePolicy,
    /// How long sessions live.
    pub timeouts: Timeouts,
    /// Policy for reads.
    pub on_store_failure: OnStoreFailure,
    /// Policy for writes.
    pub on_write_failure: OnWriteFailure,
    /// The data key that holds who is logged in.
    pub subject_key: String,
    /// The realm of the subjects, if several sites share a gateway.
    pub realm: Option<Realm>,
    /// What upstreams get to see.
    pub upstream: Upstream,
    /// The copies of sessions.
    pub cache: Cache,
    /// The properties that tokens are bound to, each as the path of an Envoy attribute.
    pub bind: Vec<Vec<String>>,
    /// What the requests of some paths get.
    pub rules: Rules,
    /// The only part that changes: how often upstreams renew their own cookie.
    pub(crate) renewals: RefCell<Renewals>,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, with its parents: `cookie.max_age`.
    pub key: String,
    /// What is wrong with it. Never holds a secret.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl core::error::Error for ConfigError {}

fn error(key: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError { key: key.into(), reason: reason.into() }
}

impl Config {
    /// Reads and checks a configuration: JSON, or a serialized `google.protobuf.Struct`.
    /// `environment` reads one environment variable.
    pub fn parse(
        plugin_configuration: &[u8],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let raw = read(plugin_configuration)?;
        let cookie = sections::cookie(raw.cookie)?;
        let (signing, older) = sections::secrets(raw.secrets, raw.secrets_env.as_deref(), &environment)?;
        let gateway = sections::gateway(raw.gateway, &environment)?;
        let timeouts = sections::timeouts(&raw.timeouts)?;
        let upstream = sections::upstream(raw.upstream, raw.create, cookie.name())?;
        let cache = sections::cache(&raw.cache, &raw.timeouts, &upstream)?;
        Ok(Self {
            gateway,
            keyring: Keyring::new(&signing, &older, cookie.name()),
            timeouts,
            upstream,
            cookie,
            create: raw.create,
            on_store_failure: raw.on_store_failure,
            on_write_failure: raw.on_write_failure,
            subject_key: sections::subject_key(raw.subject_key)?,
            realm: sections::realm(raw.realm.as_deref())?,
            cache,
            bind: sections::bind(raw.bind)?,
            rules: Rules::new(raw.rules)?,
            renewals: RefCell::default(),
        })
    }
}

/// Reads either form as JSON. Both share one parser, because each parser is a tenth of the module.
fn read(plugin_configuration: &[u8]) -> Result<raw::Config, ConfigError> {
    match protobuf_struct::parse(plugin_configuration).filter(|_| !plugin_configuration.is_empty()) {
        // The operator did not write this JSON, so a line and column would only confuse.
        Some(value) => read_json(&serde_json::to_vec(&value).unwrap_or_default(), without_place),
        None => read_json(plugin_configuration, serde_json::Error::to_string),
    }
}

fn read_json(json: &[u8], reason: fn(&serde_json::Error) -> String) -> Result<raw::Config, ConfigError> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let raw = serde_path_to_error::deserialize(&mut json).map_err(|shape| shape_error(&shape, reason))?;
    json.end().map_err(|trailing| error("configuration", reason(&trailing)))?;
    Ok(raw)
}

/// An error in the JSON's structure. serde's message may quote the value, so this is not for secrets.
fn shape_error(
    shape: &serde_path_to_error::Error<serde_json::Error>,
    reason: fn(&serde_json::Error) -> String,
) -> ConfigError {
    match shape.path().to_string().as_str() {
        // The root, JSON that ended before a key was known, or a key without a name.
        "" | "." | "?" => error("configuration", reason(shape.inner())),
        path if path.starts_with("secrets") && path != "secrets_env" => error(path, "must be a list of base64 keys"),
        path => error(path, reason(shape.inner())),
    }
}

/// serde's message, without the line and column.
fn without_place(error: &serde_json::Error) -> String {
    let mut reason = error.to_string();
    if error.line() > 0
        && let Some(place) = reason.rfind(" at line ")
    {
        reason.truncate(place);
    }
    reason
}

#[cfg(test)]
mod tests;
