//! The filter's configuration: JSON in, a value that can't be wrong out, or an error that names the key.
//!
//! [`Config::parse`] is called once per configuration, with the plugin's configuration and a way to read
//! environment variables (in Envoy they come from `vm_config.environment_variables`). `docs/configuration.md`
//! describes every key.

mod duration;
mod protobuf_struct;
mod raw;
mod rules;

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::secret::{InvalidSecret, Secret};
use crate::set_cookie::{Attributes, InvalidCookie, SetCookie, is_token};
use crate::time::Seconds;
use crate::token::Keyring;
use crate::upstream_api;
use duration::Millis;
pub use rules::{Access, Login, Rules};

/// When a session is first stored and the client gets a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreatePolicy {
    /// A cookie on the first response, stored on the first write: an anonymous visitor costs the store nothing.
    #[default]
    Lazy,
    /// A cookie on the first response, stored on the first request: for upstreams that keep state under the id.
    Eager,
    /// Neither before the first write.
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
    /// The client gets an error instead: nothing pretends to be saved.
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
    /// How long one call may take; at least a millisecond, since Envoy takes 0 for no limit.
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
    /// Without a request for this long a session ends.
    pub idle: Seconds,
    /// This long after its creation a session ends.
    pub absolute: Seconds,
    /// How often, at most, a request extends the idle timeout.
    pub touch_after: Seconds,
    /// How long tokens of before a rotation stay good.
    pub rotation_grace: Seconds,
}

/// What upstreams get to see.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Members of the data that are sent as headers of their own: (data key, header name).
    pub expose: Vec<(String, String)>,
    /// The upstreams' own session cookie, which is made to carry our id.
    pub cookie: Option<String>,
    /// Whether they get `x-session-auth-time`.
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
    /// How many there are at most, for all workers together.
    pub slots: u32,
    /// Stands for what a copy holds by position: copies outlive a change of the configuration, and configurations that
    /// share their copies may differ in it.
    pub layout: u32,
}

/// A configuration that was checked.
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
    /// What upstreams get to see.
    pub upstream: Upstream,
    /// The copies of sessions.
    pub cache: Cache,
    /// The properties that tokens are bound to, each as the path of an Envoy attribute.
    pub bind: Vec<Vec<String>>,
    /// What the requests of some paths get.
    pub rules: Rules,
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
        let cookie = cookie(raw.cookie)?;
        let (signing, older) = secrets(raw.secrets, raw.secrets_env.as_deref(), &environment)?;
        let gateway = gateway(raw.gateway, &environment)?;
        let timeouts = timeouts(&raw.timeouts)?;
        let upstream = upstream(raw.upstream, raw.create, cookie.name())?;
        let cache = cache(&raw.cache, &raw.timeouts, &upstream.expose)?;
        Ok(Self {
            gateway,
            keyring: Keyring::new(&signing, &older, cookie.name()),
            timeouts,
            upstream,
            cookie,
            create: raw.create,
            on_store_failure: raw.on_store_failure,
            on_write_failure: raw.on_write_failure,
            subject_key: subject_key(raw.subject_key)?,
            cache,
            bind: bind(raw.bind)?,
            rules: Rules::new(raw.rules)?,
        })
    }
}

fn read(plugin_configuration: &[u8]) -> Result<raw::Config, ConfigError> {
    if let Some(value) = protobuf_struct::parse(plugin_configuration).filter(|_| !plugin_configuration.is_empty()) {
        return serde_path_to_error::deserialize(value).map_err(|e| shape_error(&e));
    }
    let mut json = serde_json::Deserializer::from_slice(plugin_configuration);
    let raw = serde_path_to_error::deserialize(&mut json).map_err(|e| shape_error(&e))?;
    json.end().map_err(|trailing| error("configuration", trailing.to_string()))?;
    Ok(raw)
}

/// An error of the JSON's shape. What serde says may quote the value, so not for secrets.
fn shape_error(shape: &serde_path_to_error::Error<serde_json::Error>) -> ConfigError {
    match shape.path().to_string().as_str() {
        // The root, JSON that ended before a key was known, or a key without a name.
        "" | "." | "?" => error("configuration", shape.inner().to_string()),
        path if path.starts_with("secrets") && path != "secrets_env" => error(path, "must be a list of base64 keys"),
        path => error(path, shape.inner().to_string()),
    }
}

fn gateway(raw: raw::Gateway, environment: impl Fn(&str) -> Option<String>) -> Result<Gateway, ConfigError> {
    if raw.cluster.is_empty() {
        return Err(error("gateway.cluster", "must name an Envoy cluster"));
    }
    if raw.timeout < Millis(1) {
        return Err(error("gateway.timeout", "must be at least 1ms"));
    }
    let token = environment(&raw.token_env).filter(|token| !token.trim().is_empty()).ok_or_else(|| {
        error("gateway.token_env", format!("the environment variable {} is not set or empty", raw.token_env))
    })?;
    // The gateway takes a comma-separated list; a caller sends the first.
    let token = token.split(',').next().unwrap_or_default().trim().to_owned();
    let token = header_value("gateway.token_env", token)?;
    Ok(Gateway { cluster: raw.cluster, timeout: raw.timeout.duration(), authorization: format!("Bearer {token}") })
}

/// The signing secret and the older ones.
fn secrets(
    inline: Option<Vec<String>>,
    variable: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(Secret, Vec<Secret>), ConfigError> {
    let (key, list) = match (inline, variable) {
        (Some(_), Some(_)) => return Err(error("secrets", "give either secrets or secrets_env")),
        (Some(list), None) => ("secrets".to_owned(), list),
        (None, variable) => {
            let variable = variable.unwrap_or("SESSION_SECRETS");
            let list = environment(variable).filter(|list| !list.trim().is_empty()).ok_or_else(|| {
                error(
                    "secrets_env",
                    format!(
                        "the environment variable {variable} is not set or empty: it holds base64 keys, comma-separated"
                    ),
                )
            })?;
            (format!("secrets_env ({variable})"), list.split(',').map(str::to_owned).collect())
        }
    };
    let mut secrets = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        let secret = Secret::from_base64(text)
            .map_err(|invalid: InvalidSecret| error(&*key, format!("secret {} {invalid}", index + 1)))?;
        if secrets.contains(&secret) {
            return Err(error(key, format!("secret {} is there twice", index + 1)));
        }
        secrets.push(secret);
    }
    let mut secrets = secrets.into_iter();
    let signing = secrets.next().ok_or_else(|| error(key, "needs at least one secret"))?;
    Ok((signing, secrets.collect()))
}

fn cookie(raw: raw::Cookie) -> Result<SetCookie, ConfigError> {
    let max_age = raw.max_age.map(|max_age| seconds("cookie.max_age", max_age)).transpose()?;
    SetCookie::new(&Attributes {
        name: raw.name,
        path: raw.path,
        domain: raw.domain,
        secure: raw.secure,
        http_only: raw.http_only,
        same_site: raw.same_site,
        partitioned: raw.partitioned,
        max_age,
    })
    .map_err(|InvalidCookie { attribute, rule }| error(format!("cookie.{attribute}"), rule))
}

/// The longest that the gateway takes.
const MAX_ABSOLUTE: Seconds = Seconds::new(3650 * 24 * 60 * 60);
/// The longest subject key that the gateway takes.
const MAX_SUBJECT_KEY_BYTES: usize = 128;

fn subject_key(key: String) -> Result<String, ConfigError> {
    if key.len() > MAX_SUBJECT_KEY_BYTES {
        return Err(error("subject_key", "must have at most 128 bytes"));
    }
    header_value("subject_key", key)
}

fn timeouts(raw: &raw::Timeouts) -> Result<Timeouts, ConfigError> {
    let timeouts = Timeouts {
        idle: seconds("timeouts.idle", raw.idle)?,
        absolute: seconds("timeouts.absolute", raw.absolute)?,
        touch_after: seconds("timeouts.touch_after", raw.touch_after)?,
        rotation_grace: seconds("timeouts.rotation_grace", raw.rotation_grace)?,
    };
    if timeouts.idle == Seconds::ZERO {
        return Err(error("timeouts.idle", "must be at least 1s"));
    }
    if timeouts.absolute > MAX_ABSOLUTE {
        return Err(error("timeouts.absolute", "must be at most 3650d"));
    }
    if timeouts.absolute < timeouts.idle {
        return Err(error("timeouts.absolute", "must not be shorter than timeouts.idle"));
    }
    // Otherwise a session that is used all the time would end for want of a touch.
    if timeouts.touch_after >= timeouts.idle {
        return Err(error("timeouts.touch_after", "must be shorter than timeouts.idle"));
    }
    if timeouts.rotation_grace > timeouts.idle {
        return Err(error("timeouts.rotation_grace", "must not be longer than timeouts.idle"));
    }
    Ok(timeouts)
}

/// The most slots: with the largest copies they would fill some gigabytes.
const MAX_SLOTS: usize = 1 << 20;

fn cache(raw: &raw::Cache, timeouts: &raw::Timeouts, expose: &[(String, String)]) -> Result<Cache, ConfigError> {
    // A session in use is touched this late at worst; if that were later than its idle timeout, it would end in use.
    if raw.ttl.0.saturating_add(timeouts.touch_after.0) >= timeouts.idle.0 {
        return Err(error("cache.ttl", "must, with timeouts.touch_after, be shorter than timeouts.idle"));
    }
    let slots = u32::try_from(raw.slots).ok().filter(|_| (1..=MAX_SLOTS).contains(&raw.slots));
    Ok(Cache {
        ttl: seconds("cache.ttl", raw.ttl)?,
        stale_if_error: seconds("cache.stale_if_error", raw.stale_if_error)?,
        slots: slots.ok_or_else(|| error("cache.slots", "must be from 1 to 1048576"))?,
        layout: layout(expose),
    })
}

/// A digest of the exposed members in their order.
fn layout(expose: &[(String, String)]) -> u32 {
    let mut digest = Sha256::new();
    for (key, _) in expose {
        digest.update((key.len() as u64).to_be_bytes());
        digest.update(key);
    }
    let [a, b, c, d, ..]: [u8; 32] = digest.finalize().into();
    u32::from_be_bytes([a, b, c, d])
}

/// Where Envoy's attributes of a request begin.
const ATTRIBUTE_ROOTS: [&str; 4] = ["request", "connection", "source", "destination"];

fn bind(raw: Vec<String>) -> Result<Vec<Vec<String>>, ConfigError> {
    let path = |(index, attribute): (usize, String)| {
        let path: Vec<String> = attribute.split('.').map(str::to_owned).collect();
        let is_known = path.first().is_some_and(|root| ATTRIBUTE_ROOTS.contains(&root.as_str()));
        if path.len() >= 2 && is_known && path.iter().all(|part| is_token(part)) {
            Ok(path)
        } else {
            Err(error(
                format!("bind[{index}]"),
                "must be an Envoy attribute of the request or connection, such as request.useragent",
            ))
        }
    };
    raw.into_iter().enumerate().map(path).collect()
}

fn upstream(raw: raw::Upstream, create: CreatePolicy, session_cookie: &str) -> Result<Upstream, ConfigError> {
    if let Some(name) = &raw.cookie {
        if !is_token(name) {
            return Err(error("upstream.cookie", "must be a token of RFC 9110"));
        }
        if name == session_cookie {
            return Err(error("upstream.cookie", "must not be the session cookie itself (cookie.name)"));
        }
        if create != CreatePolicy::Eager {
            return Err(error(
                "upstream.cookie",
                "needs create: \"eager\": upstreams keep state under the id, and the id of a session that isn't stored yet changes with its first write",
            ));
        }
    }
    Ok(Upstream {
        expose: expose(raw.expose)?,
        cookie: raw.cookie,
        auth_time: raw.auth_time,
        max_data_bytes: raw.max_data_bytes,
    })
}

/// Headers that mean something to Envoy or to HTTP itself; session data must not stand in for them.
const RESERVED_HEADERS: [&str; 12] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn expose(raw: BTreeMap<String, String>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut exposed: Vec<(String, String)> = Vec::with_capacity(raw.len());
    for (key, header) in raw {
        let path = || format!("upstream.expose.{key}");
        let header = header.to_ascii_lowercase();
        if !is_token(&header) {
            return Err(error(path(), "must be a header name"));
        }
        if RESERVED_HEADERS.contains(&&*header)
            || upstream_api::is_reserved(header.as_bytes())
            || header.starts_with("x-envoy-")
        {
            return Err(error(path(), format!("{header} is reserved")));
        }
        if exposed.iter().any(|(_, other)| *other == header) {
            return Err(error(path(), format!("{header} is used twice")));
        }
        exposed.push((key, header));
    }
    Ok(exposed)
}

fn seconds(key: &str, duration: Millis) -> Result<Seconds, ConfigError> {
    duration.seconds().ok_or_else(|| error(key, "must be whole seconds"))
}

/// A text that may stand in a header: printable ASCII, not empty.
fn header_value(key: &str, text: String) -> Result<String, ConfigError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(error(key, "must be printable ASCII without spaces, and not empty"))
    }
}

#[cfg(test)]
mod tests;
