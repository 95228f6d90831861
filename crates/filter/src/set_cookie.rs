//! The `Set-Cookie` header, and the rules for a cookie's attributes.
//!
//! Browsers silently drop a cookie that breaks a prefix rule, and then every request begins a new session. So the rules
//! are enforced when the configuration is read.

use core::fmt;

use session::time::Seconds;

/// The longest name: with a token it stays far under 4096 bytes (OWASP ASVS 5.0 3.3.5).
const MAX_NAME_BYTES: usize = 256;
/// Browsers limit cookies to 400 days (RFC 6265bis section 5.5).
const MAX_MAX_AGE: Seconds = Seconds::new(400 * 24 * 60 * 60);

/// `SameSite` (RFC 6265bis section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum SameSite {
    /// Sent only with requests from the site itself.
    Strict,
    /// Sent with top-level navigation from elsewhere, too.
    Lax,
    /// Sent with every request; needs `Secure`.
    None,
}

/// The attributes of the session cookie, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The cookie's name.
    pub name: String,
    /// `Path`.
    pub path: String,
    /// `Domain`; without it the cookie is for this host only.
    pub domain: Option<String>,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned` (CHIPS).
    pub partitioned: bool,
    /// `Max-Age`; without it the cookie ends with the browser.
    pub max_age: Option<Seconds>,
}

/// Which attribute breaks which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieError {
    /// The attribute's name in the configuration.
    pub attribute: &'static str,
    /// What the attribute must be like.
    pub rule: &'static str,
}

impl fmt::Display for CookieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.attribute, self.rule)
    }
}

impl core::error::Error for CookieError {}

/// A cookie whose attributes follow the rules. It writes its own `Set-Cookie`.
#[derive(Clone, Debug)]
pub struct SetCookie {
    name: String,
    max_age: Option<Seconds>,
    /// `; Path=/; Secure; …`, written once.
    attributes: String,
    /// See [`SetCookie::variants`].
    variants: Vec<String>,
}

impl SetCookie {
    /// Checks the attributes (RFC 6265bis sections 4.1 and 5.6, and the `__Host-` and `__Secure-` prefixes).
    pub fn new(cookie: &Attributes) -> Result<Self, CookieError> {
        validate(cookie)?;
        let own = Self::plain(cookie);
        let others = [
            cookie.domain.is_some().then(|| Attributes { domain: None, ..cookie.clone() }),
            cookie.partitioned.then(|| Attributes { partitioned: false, ..cookie.clone() }),
            (cookie.path != "/").then(|| Attributes { path: "/".to_owned(), ..cookie.clone() }),
        ];
        let variants = others.into_iter().flatten().map(|other| Self::plain(&other).clear()).collect();
        Ok(Self { variants, ..own })
    }

    fn plain(cookie: &Attributes) -> Self {
        let mut attributes = format!("; Path={}", cookie.path);
        if let Some(domain) = &cookie.domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        if let Some(max_age) = cookie.max_age {
            attributes.push_str("; Max-Age=");
            attributes.push_str(&max_age.to_string());
        }
        if cookie.secure {
            attributes.push_str("; Secure");
        }
        if cookie.http_only {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match cookie.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        if cookie.partitioned {
            attributes.push_str("; Partitioned");
        }
        Self { name: cookie.name.clone(), max_age: cookie.max_age, attributes, variants: Vec::new() }
    }

    /// The cookie's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long the browser keeps it; `None` if it ends with the browser's session.
    #[must_use]
    pub const fn max_age(&self) -> Option<Seconds> {
        self.max_age
    }

    /// The `Set-Cookie` value that gives the client this token.
    #[must_use]
    pub fn issue(&self, token: &str) -> String {
        [&self.name, "=", token, &self.attributes].concat()
    }

    /// Whether a browser may have a cookie of this name that is not replaced by this one, and that can be cleared.
    #[must_use]
    pub fn has_variants(&self) -> bool {
        !self.variants.is_empty()
    }

    /// The `Set-Cookie` values that clear cookies of the same name that an older configuration may have left: without
    /// the domain, without the partition, with the path `/`. They must be sent before [`issue`](Self::issue), because a
    /// browser that does not support partitions treats the variant without one as the cookie itself.
    #[must_use]
    pub fn variants(&self) -> &[String] {
        &self.variants
    }

    /// The `Set-Cookie` value that clears the cookie. It has the same attributes, because a browser only replaces a
    /// cookie of the same name, domain and path, and it expires in two ways, for the sake of old browsers.
    #[must_use]
    pub fn clear(&self) -> String {
        let attributes = match self.max_age {
            Some(max_age) => self.attributes.replace(&format!("; Max-Age={max_age}"), ""),
            None => self.attributes.clone(),
        };
        [&self.name, "=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT", &attributes].concat()
    }
}

fn validate(cookie: &Attributes) -> Result<(), CookieError> {
    let rules = [
        (
            "name",
            "must be a token of RFC 9110 (letters, digits, !#$%&'*+-.^_`|~) of at most 256 bytes",
            is_http_token(&cookie.name) && cookie.name.len() <= MAX_NAME_BYTES,
        ),
        ("path", "must start with / and contain only printable ASCII without ;", {
            cookie.path.starts_with('/') && is_attribute_value(&cookie.path)
        }),
        (
            "domain",
            "must be a host name with a dot inside and without a leading dot",
            cookie.domain.as_deref().is_none_or(is_domain),
        ),
        ("same_site", "None needs secure: true", cookie.same_site != SameSite::None || cookie.secure),
        ("partitioned", "needs secure: true", !cookie.partitioned || cookie.secure),
        (
            "max_age",
            "must be from 1s to 400d",
            cookie.max_age.is_none_or(|max_age| max_age > Seconds::ZERO && max_age <= MAX_MAX_AGE),
        ),
        (
            "secure",
            "a name that starts with __Host- or __Secure- needs secure: true",
            cookie.secure || !(has_prefix(&cookie.name, "__Host-") || has_prefix(&cookie.name, "__Secure-")),
        ),
        (
            "path",
            "a name that starts with __Host- needs path: \"/\"",
            cookie.path == "/" || !has_prefix(&cookie.name, "__Host-"),
        ),
        (
            "domain",
            "a name that starts with __Host- allows no domain",
            cookie.domain.is_none() || !has_prefix(&cookie.name, "__Host-"),
        ),
    ];
    match rules.into_iter().find(|(_, _, is_kept)| !is_kept) {
        Some((attribute, rule, _)) => Err(CookieError { attribute, rule }),
        None => Ok(()),
    }
}

/// Whether the name has this prefix in any case, as browsers match it (RFC 6265bis section 5.7).
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether this is a token of RFC 9110 section 5.6.2: what a cookie or a header may be called.
#[must_use]
pub fn is_http_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_attribute_value(value: &str) -> bool {
    value.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b';')
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.contains('.')
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            name: "__Host-session".into(),
            path: "/".into(),
            domain: None,
            secure: true,
            http_only: true,
            same_site: SameSite::Lax,
            partitioned: false,
            max_age: None,
        }
    }

    #[test]
    fn every_attribute_is_written() {
        let plain = SetCookie::new(&attributes()).unwrap();
        assert_eq!(plain.issue("t"), "__Host-session=t; Path=/; Secure; HttpOnly; SameSite=Lax");
        let all = Attributes {
            name: "s".into(),
            path: "/app".into(),
            domain: Some("example.com".into()),
            same_site: SameSite::None,
            partitioned: true,
            max_age: Some(Seconds::new(60)),
            ..attributes()
        };
        assert_eq!(
            SetCookie::new(&all).unwrap().issue("t"),
            "s=t; Path=/app; Domain=example.com; Max-Age=60; Secure; HttpOnly; SameSite=None; Partitioned"
        );
        let least = Attributes {
            name: "s".into(),
            secure: false,
            http_only: false,
            same_site: SameSite::Strict,
            ..attributes()
        };
        assert_eq!(SetCookie::new(&least).unwrap().issue("t"), "s=t; Path=/; SameSite=Strict");
    }

    #[test]
    fn clearing_keeps_the_attributes_and_has_one_max_age() {
        let cookie =
            SetCookie::new(&Attributes { name: "s".into(), max_age: Some(Seconds::new(60)), ..attributes() }).unwrap();
        assert_eq!(
            cookie.clear(),
            "s=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
    }

    #[test]
    fn broken_rules_name_the_attribute() {
        let rows: &[(&str, fn(&mut Attributes))] = &[
            ("name", |cookie| cookie.name = String::new()),
            ("name", |cookie| cookie.name = "a b".into()),
            ("name", |cookie| cookie.name = "a;b".into()),
            ("name", |cookie| cookie.name = "ä".into()),
            ("name", |cookie| cookie.name = "a".repeat(257)),
            ("path", |cookie| cookie.path = "app".into()),
            ("path", |cookie| cookie.path = "/a;b".into()),
            ("path", |cookie| cookie.path = "/a\r\nX: y".into()),
            ("path", |cookie| cookie.path = "/app".into()),
            ("domain", |cookie| cookie.domain = Some("example.com".into())),
            ("domain", |cookie| {
                cookie.name = "s".into();
                cookie.domain = Some(".example.com".into());
            }),
            ("domain", |cookie| {
                cookie.name = "s".into();
                cookie.domain = Some("com".into());
            }),
            ("secure", |cookie| cookie.secure = false),
            ("secure", |cookie| {
                cookie.name = "__secure-s".into();
                cookie.secure = false;
            }),
            ("same_site", |cookie| {
                cookie.name = "s".into();
                cookie.secure = false;
                cookie.same_site = SameSite::None;
            }),
            ("partitioned", |cookie| {
                cookie.name = "s".into();
                cookie.secure = false;
                cookie.partitioned = true;
            }),
            ("max_age", |cookie| cookie.max_age = Some(Seconds::ZERO)),
            ("max_age", |cookie| cookie.max_age = Some(Seconds::new(401 * 86400))),
        ];
        for (index, (attribute, change)) in rows.iter().enumerate() {
            let mut cookie = attributes();
            change(&mut cookie);
            let error = SetCookie::new(&cookie).expect_err("refused");
            assert_eq!(error.attribute, *attribute, "row {index}: {error}");
        }
    }
}
