//! Which paths need what of a session (`rules`).

use super::{ConfigError, error, raw};
use crate::path;

/// What the requests of a path get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// No session: no lookup, no cookie, nothing upstream.
    Off,
    /// A session, whoever it belongs to.
    #[default]
    Optional,
    /// Only sessions with a subject; others get 401, or are sent here to log in.
    Required {
        /// A path or an `http(s)` address.
        redirect: Option<String>,
    },
    /// As optional, but never from the cache.
    Strict,
}

/// The rules of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By the length of their prefixes, the longest first.
    rules: Vec<(Vec<u8>, Access)>,
}

impl Rules {
    pub(super) fn new(raw: Vec<raw::Rule>) -> Result<Self, ConfigError> {
        let mut rules: Vec<(Vec<u8>, Access)> = Vec::with_capacity(raw.len());
        for (index, rule) in raw.into_iter().enumerate() {
            let key = |name: &str| format!("rules[{index}].{name}");
            let prefix = rule.path_prefix.as_bytes();
            let is_path = prefix.starts_with(b"/") && prefix.iter().all(u8::is_ascii_graphic);
            if !is_path || prefix.iter().any(|byte| matches!(byte, b'?' | b'#' | b';' | b'%')) {
                return Err(error(
                    key("path_prefix"),
                    "must be a path that starts with /, without query, parameters or percent-encoding",
                ));
            }
            let Some(prefix) = path::readings(prefix).pop() else { continue };
            if rules.iter().any(|(other, _)| *other == prefix) {
                return Err(error(key("path_prefix"), "is another spelling of a prefix before it"));
            }
            let access = match (rule.session, rule.redirect) {
                (raw::Session::Required, redirect) => {
                    if redirect.as_deref().is_some_and(|target| !is_target(target)) {
                        return Err(error(
                            key("redirect"),
                            "must be a path that starts with one /, or an http(s) address",
                        ));
                    }
                    Access::Required { redirect }
                }
                (_, Some(_)) => return Err(error(key("redirect"), "needs session: \"required\"")),
                (raw::Session::Off, None) => Access::Off,
                (raw::Session::Optional, None) => Access::Optional,
                (raw::Session::Strict, None) => Access::Strict,
            };
            rules.push((prefix, access));
        }
        rules.sort_by_key(|(prefix, _)| core::cmp::Reverse(prefix.len()));
        let rules = Self { rules };
        rules.check_redirects()?;
        Ok(rules)
    }

    /// A login page that needs a login would send browsers round in circles.
    fn check_redirects(&self) -> Result<(), ConfigError> {
        let is_circular = |access: &Access| match access {
            Access::Required { redirect: Some(target) } => {
                target.starts_with('/') && matches!(self.access(target.as_bytes()), Access::Required { .. })
            }
            _ => false,
        };
        if self.rules.iter().any(|(_, access)| is_circular(access)) {
            return Err(error("rules", "a redirect leads to a path that is itself session: \"required\""));
        }
        Ok(())
    }

    /// What a request's `:path` gets: the rule with the longest prefix of it. Where upstreams may read the path
    /// differently, the strictest of what the readings get.
    #[must_use]
    pub fn access(&self, path: &[u8]) -> &Access {
        const DEFAULT: &Access = &Access::Optional;
        if self.rules.is_empty() {
            return DEFAULT;
        }
        let of_reading = |path: Vec<u8>| {
            self.rules.iter().find(|(prefix, _)| is_below(&path, prefix)).map_or(DEFAULT, |(_, access)| access)
        };
        path::readings(path).into_iter().map(of_reading).max_by_key(|access| access.strictness()).unwrap_or(DEFAULT)
    }
}

impl Access {
    const fn strictness(&self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Optional => 1,
            Self::Strict => 2,
            Self::Required { .. } => 3,
        }
    }
}

/// Whether the path starts with the prefix. The folder itself, written without its last `/`, does.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.starts_with(prefix) || prefix.strip_suffix(b"/").is_some_and(|folder| !folder.is_empty() && path == folder)
}

fn is_target(target: &str) -> bool {
    let is_path = target.starts_with('/') && !target.starts_with("//");
    let is_address = target.starts_with("https://") || target.starts_with("http://");
    (is_path || is_address) && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&str, raw::Session)]) -> Result<Rules, ConfigError> {
        let rule = |(prefix, session): &(&str, raw::Session)| raw::Rule {
            path_prefix: (*prefix).to_owned(),
            session: *session,
            redirect: None,
        };
        Rules::new(list.iter().map(rule).collect())
    }

    #[test]
    fn the_longest_prefix_wins_in_any_spelling() {
        let rules = rules(&[
            ("/", raw::Session::Strict),
            ("/Static/", raw::Session::Off),
            ("/static/account/", raw::Session::Required),
            ("/api", raw::Session::Optional),
        ])
        .unwrap();
        let required = Access::Required { redirect: None };
        let rows: &[(&str, &Access)] = &[
            ("/", &Access::Strict),
            ("/x", &Access::Strict),
            ("/static", &Access::Off),
            ("/static/a.css?x", &Access::Off),
            ("/STATIC/a.css", &Access::Off),
            ("/staticx", &Access::Strict),
            ("/static/account", &required),
            ("/static/%61ccount/x", &required),
            ("/static//account/x", &required),
            ("/static/x/..%2faccount/", &required),
            ("/static/ACCOUNT;v=1/", &required),
            ("/static/../x", &Access::Strict),
            // Public to one upstream, private to another.
            ("/static/account/..;/public", &required),
            ("/static/account/%2e%2e/public", &required),
            ("/static/account/%252e%252e/public", &required),
            ("/apix", &Access::Optional),
        ];
        for (path, access) in rows {
            assert_eq!(rules.access(path.as_bytes()), *access, "{path}");
        }
        assert_eq!(Rules::default().access(b"/"), &Access::Optional);
    }

    #[test]
    fn two_spellings_of_one_prefix_are_refused() {
        let error = rules(&[("/a/", raw::Session::Off), ("//A/", raw::Session::Required)]).unwrap_err();
        assert_eq!(error.key, "rules[1].path_prefix");
    }

    #[test]
    fn a_login_page_must_not_need_a_login() {
        let rule = |prefix: &str, redirect: Option<&str>| raw::Rule {
            path_prefix: prefix.to_owned(),
            session: raw::Session::Required,
            redirect: redirect.map(str::to_owned),
        };
        let circular = Rules::new(vec![rule("/account/", Some("/account/login"))]);
        assert_eq!(circular.unwrap_err().key, "rules");
        assert!(Rules::new(vec![rule("/account/", Some("/login"))]).is_ok());
        assert!(Rules::new(vec![rule("/account/", Some("https://login.example.com/?app=1"))]).is_ok());
        for target in ["login", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a b", "/a\r\nb"] {
            let refused = Rules::new(vec![rule("/account/", Some(target))]);
            assert_eq!(refused.unwrap_err().key, "rules[0].redirect", "{target}");
        }
    }
}
