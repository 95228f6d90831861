//! What each path needs of a session (`rules`).

use std::rc::Rc;

use super::hosts::{self, Hosts};
use super::sections::seconds;
use super::{ConfigError, error, raw};
use crate::path::{Readings, is_below};
use session::time::Seconds;

/// What the requests of a path get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// No session: no lookup, no cookie, nothing upstream.
    Off,
    /// A session.
    Session {
        /// Never from the cache.
        is_strict: bool,
        /// Only a session with this login; `None` for any session.
        login: Option<Rc<Login>>,
    },
}

/// The login that a path needs. A client without it gets 401, or is sent to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Where browsers log in: a path or an `http(s)` address.
    pub redirect: Option<String>,
    /// How long ago the user may have proved their identity at most (`max_age` of OIDC Core section 3.1.2.1).
    pub max_age: Option<Seconds>,
}

/// The rules of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By the length of their prefixes, the longest first.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    prefix: Vec<u8>,
    hosts: Hosts,
    access: Access,
}

impl Rules {
    pub(super) fn new(raw: Vec<raw::Rule>) -> Result<Self, ConfigError> {
        let mut rules: Vec<Rule> = Vec::with_capacity(raw.len());
        for (index, mut rule) in raw.into_iter().enumerate() {
            let key = |name: &str| format!("rules[{index}].{name}");
            let prefix = rule.path_prefix.as_bytes();
            if prefix.contains(&b'*') {
                return Err(error(key("path_prefix"), "must be a path prefix, not a pattern: * is not allowed"));
            }
            let is_path = prefix.starts_with(b"/") && prefix.iter().all(u8::is_ascii_graphic);
            if !is_path || prefix.iter().any(|byte| matches!(byte, b'?' | b'#' | b';' | b'%')) {
                return Err(error(
                    key("path_prefix"),
                    "must be a path that starts with /, without a query, parameters or percent-encoding",
                ));
            }
            let climbs = || error(key("path_prefix"), "must have no .. segment and be at most 2048 bytes long");
            let Readings::Paths(paths) = Readings::of(prefix) else { return Err(climbs()) };
            let prefix = paths.into_iter().next().ok_or_else(climbs)?;
            let hosts = Hosts::new(&key("hosts"), rule.hosts.take())?;
            if rules.iter().any(|other| other.prefix == prefix && other.hosts.clashes(&hosts)) {
                return Err(error(key("path_prefix"), "is another spelling of an earlier prefix for the same hosts"));
            }
            // Each is inserted in its place: a sort would take a hundredth of the module.
            let place = rules.partition_point(|other| other.prefix.len() >= prefix.len());
            rules.insert(place, Rule { prefix, hosts, access: Access::new(rule, key)? });
        }
        let rules = Self { rules };
        rules.check_redirects()?;
        Ok(rules)
    }

    /// A login page that needs a login would send browsers round in circles.
    fn check_redirects(&self) -> Result<(), ConfigError> {
        let hosts: Vec<Vec<u8>> =
            self.rules.iter().flat_map(|rule| rule.hosts.examples()).chain([Vec::new()]).collect();
        let is_circular = |rule: &Rule| match rule.access.login().and_then(|login| login.redirect.as_deref()) {
            Some(target) => {
                let mut hosts = hosts.iter().filter(|host| rule.hosts.rank(host).is_some());
                target.starts_with('/') && hosts.any(|host| self.access(host, target.as_bytes()).login().is_some())
            }
            None => false,
        };
        if self.rules.iter().any(is_circular) {
            return Err(error("rules", "a redirect leads to a path with session: \"required\""));
        }
        Ok(())
    }

    /// What a request's `:path` gets: the rule with the longest matching prefix, and among several the one that names
    /// the host of its `:authority` most precisely. If upstreams may read the path in different ways, it gets
    /// everything that any of the readings demands.
    #[must_use]
    pub fn access(&self, authority: &[u8], path: &[u8]) -> Access {
        if self.rules.is_empty() {
            return Access::OPTIONAL;
        }
        let host = hosts::of_authority(authority);
        // If there is a user before the host, which is not allowed here (RFC 9110 section 4.2.4), others may read a
        // different host.
        if authority.contains(&b'@') {
            let readings = Readings::of(path);
            let possible = self.rules.iter().filter(|rule| readings.may_be_below(&rule.prefix));
            return possible.map(|rule| rule.access.clone()).fold(Access::OPTIONAL, Access::and);
        }
        match Readings::of(path) {
            Readings::Paths(paths) => {
                paths.iter().map(|path| self.of_reading(&host, path)).reduce(Access::and).unwrap_or(Access::OPTIONAL)
            }
            // It may be below any of the prefixes that it contains, or below none.
            readings => {
                let fitting = self.rules.iter().filter(|rule| rule.hosts.rank(&host).is_some());
                let possible = fitting.filter(|rule| readings.may_be_below(&rule.prefix));
                possible.map(|rule| rule.access.clone()).fold(Access::OPTIONAL, Access::and)
            }
        }
    }

    fn of_reading(&self, host: &[u8], path: &[u8]) -> Access {
        let fitting = self.rules.iter().filter(|rule| is_below(path, &rule.prefix));
        let ranked = fitting.filter_map(|rule| Some((rule.prefix.len(), rule.hosts.rank(host)?, rule)));
        let best = ranked.max_by_key(|(length, rank, _)| (*length, *rank));
        best.map_or(Access::OPTIONAL, |(.., rule)| rule.access.clone())
    }
}

impl Access {
    /// A session, logged in or not.
    pub const OPTIONAL: Self = Self::Session { is_strict: false, login: None };

    fn new(rule: raw::Rule, key: impl Fn(&str) -> String) -> Result<Self, ConfigError> {
        let raw::Rule { session, redirect, max_age, strict, .. } = rule;
        if session != raw::SessionRule::Required {
            let belongs_to_a_login =
                [("redirect", redirect.is_some()), ("max_age", max_age.is_some()), ("strict", strict)];
            if let Some((name, _)) = belongs_to_a_login.into_iter().find(|(_, is_given)| *is_given) {
                return Err(error(key(name), "needs session: \"required\""));
            }
        }
        if redirect.as_deref().is_some_and(|target| !is_target(target)) {
            return Err(error(key("redirect"), "must be a path that starts with one /, or an http(s) URL"));
        }
        let max_age = max_age.map(|max_age| seconds(&key("max_age"), max_age)).transpose()?;
        if max_age == Some(Seconds::ZERO) {
            return Err(error(key("max_age"), "must be at least 1s"));
        }
        Ok(match session {
            raw::SessionRule::Off => Self::Off,
            raw::SessionRule::Optional => Self::OPTIONAL,
            raw::SessionRule::Strict => Self::Session { is_strict: true, login: None },
            raw::SessionRule::Required => {
                Self::Session { is_strict: strict, login: Some(Rc::new(Login { redirect, max_age })) }
            }
        })
    }

    fn login(&self) -> Option<&Login> {
        match self {
            Self::Session { login, .. } => login.as_deref(),
            Self::Off => None,
        }
    }

    /// What both demand.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Off, access) | (access, Self::Off) => access,
            (Self::Session { is_strict: a, login: first }, Self::Session { is_strict: b, login: second }) => {
                let logins = [first, second].into_iter().flatten();
                Self::Session {
                    is_strict: a || b,
                    login: logins.min_by_key(|login| login.max_age.map_or(u64::MAX, Seconds::get)),
                }
            }
        }
    }
}

fn is_target(target: &str) -> bool {
    let is_path = target.starts_with('/') && !target.starts_with("//");
    let is_address = target.starts_with("https://") || target.starts_with("http://");
    (is_path || is_address) && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::super::duration::Millis;
    use super::*;

    fn rules(list: &[(&str, raw::SessionRule)]) -> Result<Rules, ConfigError> {
        let rule = |(prefix, session): &(&str, raw::SessionRule)| raw::Rule {
            path_prefix: (*prefix).to_owned(),
            session: *session,
            ..raw::Rule::default()
        };
        Rules::new(list.iter().map(rule).collect())
    }

    #[test]
    fn the_longest_prefix_wins_in_any_spelling() {
        let rules = rules(&[
            ("/", raw::SessionRule::Strict),
            ("/Static/", raw::SessionRule::Off),
            ("/static/account/", raw::SessionRule::Required),
            ("/api", raw::SessionRule::Optional),
        ])
        .unwrap();
        let required = Access::Session { is_strict: false, login: Some(Rc::default()) };
        let strict = Access::Session { is_strict: true, login: None };
        let both = Access::Session { is_strict: true, login: Some(Rc::default()) };
        let rows: &[(&str, &Access)] = &[
            ("/", &strict),
            ("/x", &strict),
            ("/static", &Access::Off),
            ("/static/a.css?x", &Access::Off),
            ("/STATIC/a.css", &Access::Off),
            ("/staticx", &strict),
            ("/static/account", &required),
            ("/static/%61ccount/x", &required),
            ("/static//account/x", &required),
            ("/static/ACCOUNT;v=1/", &required),
            ("/static/../x", &strict),
            // Public to one upstream, private to another, below `/` in any case.
            ("/static/x/..%2faccount/", &both),
            ("/static/account/..;/public", &both),
            ("/static/account/%2e%2e/public", &both),
            ("/static/account/%252e%252e/public", &both),
            ("/%73tatic/%61ccount;%2f..%2f..%2fpublic/x", &both),
            ("/apix", &Access::OPTIONAL),
        ];
        for (path, access) in rows {
            assert_eq!(rules.access(b"e2e.test", path.as_bytes()), **access, "{path}");
        }
        assert_eq!(Rules::default().access(b"", b"/"), Access::OPTIONAL);
    }

    #[test]
    fn a_rule_may_be_for_some_hosts() {
        let rule = |prefix: &str, hosts: &[&str], session| raw::Rule {
            path_prefix: prefix.to_owned(),
            hosts: (!hosts.is_empty()).then(|| hosts.iter().map(|host| (*host).to_owned()).collect()),
            session,
            ..raw::Rule::default()
        };
        let strict = Access::Session { is_strict: true, login: None };
        let required = Access::Session { is_strict: false, login: Some(Rc::default()) };
        let list = || {
            vec![
                rule("/a/", &[], raw::SessionRule::Off),
                rule("/a/", &["*.example.com"], raw::SessionRule::Strict),
                rule("/a/", &["admin.example.com", "[::1]"], raw::SessionRule::Required),
                rule("/", &["intra.example.org"], raw::SessionRule::Required),
            ]
        };
        let rows: &[(&str, &str, &Access)] = &[
            ("other.org", "/a/x", &Access::Off),
            ("example.com", "/a/x", &Access::Off),
            ("www.example.com", "/a/x", &strict),
            ("admin.example.com", "/a/x", &required),
            ("ADMIN.example.com.:8443", "/%61/x", &required),
            ("[::1]:8080", "/a/x", &required),
            ("intra.example.org", "/b", &required),
            // The longest prefix goes before the host.
            ("intra.example.org", "/a/x", &Access::Off),
            ("admin.example.com", "/b", &Access::OPTIONAL),
            ("", "/a/x", &Access::Off),
        ];
        let mut reversed = list();
        reversed.reverse();
        for list in [list(), reversed] {
            let rules = Rules::new(list).unwrap();
            for (host, path, access) in rows {
                assert_eq!(rules.access(host.as_bytes(), path.as_bytes()), **access, "{host} {path}");
            }
        }
        let twice = [
            rule("/a/", &["a.org", "b.org"], raw::SessionRule::Off),
            rule("/A/", &["B.org"], raw::SessionRule::Strict),
        ];
        assert_eq!(Rules::new(twice.into()).unwrap_err().key, "rules[1].path_prefix");
    }

    #[test]
    fn a_login_page_must_not_need_a_login_on_its_host() {
        let rule = |prefix: &str, host: &str, redirect: Option<&str>| raw::Rule {
            path_prefix: prefix.to_owned(),
            hosts: (!host.is_empty()).then(|| vec![host.to_owned()]),
            session: raw::SessionRule::Required,
            redirect: redirect.map(str::to_owned),
            ..raw::Rule::default()
        };
        for (first, second, is_circular) in
            [("a.org", "a.org", true), ("*.org", "a.org", true), ("a.org", "b.org", false)]
        {
            let rules = vec![rule("/x/", first, Some("/login/")), rule("/login/", second, None)];
            assert_eq!(Rules::new(rules).is_err(), is_circular, "{first} {second}");
        }
        assert!(Rules::new(vec![rule("/x/", "", Some("/login/")), rule("/login/", "a.org", None)]).is_err());
    }

    #[test]
    fn two_spellings_of_one_prefix_are_refused() {
        let error = rules(&[("/a/", raw::SessionRule::Off), ("//A/", raw::SessionRule::Required)]).unwrap_err();
        assert_eq!(error.key, "rules[1].path_prefix");
    }

    #[test]
    fn a_path_with_several_readings_gets_what_all_of_them_demand() {
        let rule = |prefix: &str, max_age: Option<u64>, strict| raw::Rule {
            path_prefix: prefix.to_owned(),
            session: raw::SessionRule::Required,
            max_age: max_age.map(|seconds| Millis(seconds * 1000)),
            strict,
            ..raw::Rule::default()
        };
        let rules =
            Rules::new(vec![rule("/a/", None, true), rule("/a/b/", Some(300), false), rule("/a/c/", Some(60), false)]);
        let access = rules.unwrap().access(b"", b"/a/x/..;/b/..;/c/x");
        let login = Login { redirect: None, max_age: Some(Seconds::new(60)) };
        assert_eq!(access, Access::Session { is_strict: true, login: Some(Rc::new(login)) });
    }

    #[test]
    fn what_belongs_to_a_login_needs_a_rule_that_asks_for_one() {
        for session in [raw::SessionRule::Off, raw::SessionRule::Optional, raw::SessionRule::Strict] {
            let rule = || raw::Rule { path_prefix: "/a".to_owned(), session, ..raw::Rule::default() };
            let refused = |rule| Rules::new(vec![rule]).unwrap_err().key;
            assert_eq!(refused(raw::Rule { strict: true, ..rule() }), "rules[0].strict");
            assert_eq!(refused(raw::Rule { redirect: Some("/login".into()), ..rule() }), "rules[0].redirect");
            let max_age = Some(Millis(1000));
            assert_eq!(refused(raw::Rule { max_age, ..rule() }), "rules[0].max_age");
        }
        for (millis, reason) in [(0, "must be at least 1s"), (1500, "must be whole seconds")] {
            let max_age = Some(Millis(millis));
            let rule = raw::Rule {
                path_prefix: "/a".to_owned(),
                session: raw::SessionRule::Required,
                max_age,
                ..raw::Rule::default()
            };
            assert_eq!(Rules::new(vec![rule]).unwrap_err(), error("rules[0].max_age", reason));
        }
    }

    #[test]
    fn a_login_page_must_not_need_a_login() {
        let rule = |prefix: &str, redirect: Option<&str>| raw::Rule {
            path_prefix: prefix.to_owned(),
            session: raw::SessionRule::Required,
            redirect: redirect.map(str::to_owned),
            ..raw::Rule::default()
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

    #[test]
    fn a_user_before_the_host_opens_no_path() {
        let rule = |host: &str, session| raw::Rule {
            path_prefix: "/a/".into(),
            hosts: Some(vec![host.into()]),
            session,
            ..raw::Rule::default()
        };
        let rules = Rules::new(vec![
            rule("admin.example.com", raw::SessionRule::Required),
            rule("x.example.com", raw::SessionRule::Off),
        ]);
        let rules = rules.unwrap();
        for authority in ["admin.example.com:80@x.example.com", "x.example.com@admin.example.com", "@x.example.com"] {
            assert!(rules.access(authority.as_bytes(), b"/a/b").login().is_some(), "{authority}");
            assert_eq!(rules.access(authority.as_bytes(), b"/b"), Access::OPTIONAL, "{authority}");
        }
    }

    #[test]
    fn a_pattern_is_no_prefix() {
        for prefix in ["/account/*", "/*", "/a*/b", "/**"] {
            let rule = raw::Rule { path_prefix: prefix.into(), ..raw::Rule::default() };
            assert!(Rules::new(vec![rule]).unwrap_err().to_string().contains("not a pattern"), "{prefix}");
        }
    }

    /// If several rules may apply and demand equally recent logins, the one with the longest prefix says where to log
    /// in, in whatever order they are written.
    #[test]
    fn the_longest_prefix_says_where_to_log_in() {
        let rule = |prefix: &str| raw::Rule {
            path_prefix: prefix.to_owned(),
            session: raw::SessionRule::Required,
            redirect: Some(format!("/login?from={}", prefix.len())),
            ..raw::Rule::default()
        };
        for prefixes in
            [["/a/", "/a/bb/", "/a/bb/ccc/"], ["/a/bb/ccc/", "/a/bb/", "/a/"], ["/a/bb/", "/a/", "/a/bb/ccc/"]]
        {
            let rules = Rules::new(prefixes.map(rule).into()).unwrap();
            let access = rules.access(b"user@shop.example", b"/a/bb/ccc/x");
            let redirect = access.login().and_then(|login| login.redirect.as_deref());
            assert_eq!(redirect, Some("/login?from=10"), "{prefixes:?}");
        }
    }
}
