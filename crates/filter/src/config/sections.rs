//! Checks each section of a configuration on its own. It takes raw values and returns valid ones, or an error that
//! names the key.

use core::time::Duration;
use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::duration::Millis;
use super::{Cache, ConfigError, CreatePolicy, Gateway, Timeouts, Upstream, error, raw};
use crate::secret::{Secret, SecretError};
use crate::set_cookie::{Attributes, CookieError, SetCookie, is_http_token};
use crate::upstream_api;
use session::limits::{MAX_SUBJECT_KEY_BYTES, MAX_TIMEOUT};
use session::principal::{Realm, RealmError};
use session::time::Seconds;

/// The longest time that a call may take. Envoy counts milliseconds in 32 bits, and no client waits that long.
const MAX_CALL: Duration = Duration::from_hours(1);

pub(super) fn gateway(raw: raw::Gateway, environment: impl Fn(&str) -> Option<String>) -> Result<Gateway, ConfigError> {
    if raw.cluster.is_empty() {
        return Err(error("gateway.cluster", "must name an Envoy cluster"));
    }
    if raw.timeout < Millis(1) {
        return Err(error("gateway.timeout", "must be at least 1ms"));
    }
    if raw.timeout > MAX_CALL.into() {
        return Err(error("gateway.timeout", format!("must be at most {}h", MAX_CALL.as_secs() / 3600)));
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
pub(super) fn secrets(
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
                        "the environment variable {variable} is not set or empty: it must hold comma-separated base64 keys"
                    ),
                )
            })?;
            (format!("secrets_env ({variable})"), list.split(',').map(str::to_owned).collect())
        }
    };
    let mut secrets = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        let secret = Secret::from_base64(text)
            .map_err(|invalid: SecretError| error(&*key, format!("secret {} {invalid}", index + 1)))?;
        if secrets.contains(&secret) {
            return Err(error(key, format!("secret {} is given twice", index + 1)));
        }
        secrets.push(secret);
    }
    let mut secrets = secrets.into_iter();
    let signing = secrets.next().ok_or_else(|| error(key, "needs at least one secret"))?;
    Ok((signing, secrets.collect()))
}

pub(super) fn cookie(raw: raw::Cookie) -> Result<SetCookie, ConfigError> {
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
    .map_err(|CookieError { attribute, rule }| error(format!("cookie.{attribute}"), rule))
}

pub(super) fn subject_key(key: String) -> Result<String, ConfigError> {
    if key.len() > MAX_SUBJECT_KEY_BYTES {
        return Err(error("subject_key", format!("must have at most {MAX_SUBJECT_KEY_BYTES} bytes")));
    }
    header_value("subject_key", key)
}

pub(super) fn realm(name: Option<&str>) -> Result<Option<Realm>, ConfigError> {
    name.map(str::parse).transpose().map_err(|invalid: RealmError| error("realm", invalid.to_string()))
}

pub(super) fn timeouts(raw: &raw::Timeouts) -> Result<Timeouts, ConfigError> {
    let timeouts = Timeouts {
        idle: seconds("timeouts.idle", raw.idle)?,
        absolute: seconds("timeouts.absolute", raw.absolute)?,
        touch_after: seconds("timeouts.touch_after", raw.touch_after)?,
        rotation_grace: seconds("timeouts.rotation_grace", raw.rotation_grace)?,
    };
    if timeouts.idle == Seconds::ZERO {
        return Err(error("timeouts.idle", "must be at least 1s"));
    }
    if timeouts.absolute > MAX_TIMEOUT {
        return Err(error("timeouts.absolute", format!("must be at most {}d", MAX_TIMEOUT.get() / 86_400)));
    }
    if timeouts.absolute < timeouts.idle {
        return Err(error("timeouts.absolute", "must not be shorter than timeouts.idle"));
    }
    // Otherwise a session in constant use would end because it is never touched.
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

pub(super) fn cache(raw: &raw::Cache, timeouts: &raw::Timeouts, upstream: &Upstream) -> Result<Cache, ConfigError> {
    // A session in use is touched this late at worst. If that were later than its idle timeout, it would end while in
    // use.
    if raw.ttl.0.saturating_add(timeouts.touch_after.0) >= timeouts.idle.0 {
        return Err(error("cache.ttl", "must be shorter than timeouts.idle minus timeouts.touch_after"));
    }
    let slots = u32::try_from(raw.slots).ok().filter(|_| (1..=MAX_SLOTS).contains(&raw.slots));
    Ok(Cache {
        ttl: seconds("cache.ttl", raw.ttl)?,
        stale_if_error: seconds("cache.stale_if_error", raw.stale_if_error)?,
        slots: slots.ok_or_else(|| error("cache.slots", "must be from 1 to 1048576"))?,
        layout: layout(&upstream.expose, upstream.max_data_bytes),
    })
}

/// A digest of the exposed members in their order, and of how much data is kept whole.
fn layout(expose: &[(String, String)], max_data_bytes: usize) -> u32 {
    let mut digest = Sha256::new();
    digest.update((max_data_bytes as u64).to_be_bytes());
    for (key, _) in expose {
        digest.update((key.len() as u64).to_be_bytes());
        digest.update(key);
    }
    let [a, b, c, d, ..]: [u8; 32] = digest.finalize().into();
    u32::from_be_bytes([a, b, c, d])
}

/// The prefixes of Envoy's attributes for a request.
const ATTRIBUTE_ROOTS: [&str; 4] = ["request", "connection", "source", "destination"];

pub(super) fn bind(raw: Vec<String>) -> Result<Vec<Vec<String>>, ConfigError> {
    let path = |(index, attribute): (usize, String)| {
        let path: Vec<String> = attribute.split('.').map(str::to_owned).collect();
        let is_known = path.first().is_some_and(|root| ATTRIBUTE_ROOTS.contains(&root.as_str()));
        if path.len() >= 2 && is_known && path.iter().all(|part| is_http_token(part)) {
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

pub(super) fn upstream(
    raw: raw::Upstream,
    create: CreatePolicy,
    session_cookie: &str,
) -> Result<Upstream, ConfigError> {
    if let Some(name) = &raw.cookie {
        if !is_http_token(name) {
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

/// Headers with a meaning for Envoy or HTTP itself; session data must not replace them.
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
        if !is_http_token(&header) {
            return Err(error(path(), "must be a header name"));
        }
        let is_spelling = |other: &str| upstream_api::is_spelling_of(header.as_bytes(), other);
        if RESERVED_HEADERS.iter().any(|reserved| is_spelling(reserved))
            || upstream_api::is_reserved(header.as_bytes())
            || upstream_api::is_spelling_below(header.as_bytes(), "x-envoy-")
        {
            return Err(error(path(), format!("{header} is reserved")));
        }
        // In any spelling, because PHP and CGI don't tell them apart.
        if exposed.iter().any(|(_, other)| is_spelling(other)) {
            return Err(error(path(), format!("{header} is used twice")));
        }
        exposed.push((key, header));
    }
    Ok(exposed)
}

pub(super) fn seconds(key: &str, duration: Millis) -> Result<Seconds, ConfigError> {
    duration.seconds().ok_or_else(|| error(key, "must be whole seconds"))
}

/// A text that is allowed in a header: printable ASCII, not empty.
fn header_value(key: &str, text: String) -> Result<String, ConfigError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(error(key, "must be printable ASCII without spaces, and not empty"))
    }
}
