//! The hosts that a rule applies to (`rules[].hosts`).

use super::{ConfigError, error};

/// The hosts of a rule: all, or these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts(Vec<Host>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Exactly(String),
    /// Every host that ends like this; it begins with a dot.
    Below(String),
}

impl Hosts {
    pub(super) fn new(key: &str, raw: Option<Vec<String>>) -> Result<Self, ConfigError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        if raw.is_empty() {
            return Err(error(key, "must name at least one host; omit it to match all hosts"));
        }
        let hosts = raw.into_iter().enumerate().map(|(index, host)| {
            let host = host.to_ascii_lowercase();
            let (name, wildcard) = host.strip_prefix("*.").map_or((host.as_str(), false), |name| (name, true));
            if !is_name(name) && (wildcard || !is_ip_literal(name)) {
                let reason = "must be a host name such as example.com or *.example.com, without a port or trailing dot";
                return Err(error(format!("{key}[{index}]"), reason));
            }
            Ok(if wildcard { Host::Below(format!(".{name}")) } else { Host::Exactly(host) })
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }

    /// How precisely they name this host: by its name, by the longest wildcard, or as one of all hosts. `None` if it is
    /// none of them.
    pub(super) fn rank(&self, host: &[u8]) -> Option<usize> {
        if self.0.is_empty() {
            return Some(0);
        }
        let rank = |named: &Host| match named {
            Host::Exactly(name) => (host == name.as_bytes()).then_some(usize::MAX),
            Host::Below(end) => (host.len() > end.len() && host.ends_with(end.as_bytes())).then_some(end.len()),
        };
        self.0.iter().filter_map(rank).max()
    }

    /// Whether both name a host in the same way, so that neither is more precise.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        self.0.is_empty() && other.0.is_empty() || self.0.iter().any(|host| other.0.contains(host))
    }

    /// A host of each kind.
    pub(super) fn examples(&self) -> impl Iterator<Item = Vec<u8>> {
        self.0.iter().map(|host| match host {
            Host::Exactly(name) => name.clone().into_bytes(),
            Host::Below(end) => format!("*{end}").into_bytes(),
        })
    }
}

/// The host of an `:authority` (RFC 9110 section 7.2), as rules name it: without user and port, in lower case, and
/// without the dot that a fully qualified name may end with.
pub(super) fn of_authority(authority: &[u8]) -> Vec<u8> {
    let host = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    let host = host.get(..end.unwrap_or(host.len())).unwrap_or_default();
    host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase()
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.split('.').all(is_label)
}

fn is_ip_literal(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    inside.is_some_and(|address| address.parse::<core::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(list: &[&str]) -> Hosts {
        Hosts::new("hosts", Some(list.iter().map(|host| (*host).to_owned()).collect())).unwrap()
    }

    #[test]
    fn a_host_is_what_its_authority_names() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com:8443", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("user@example.com:443", "example.com"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("[::1", "[::1"),
            ("", ""),
        ] {
            assert_eq!(of_authority(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn the_more_exact_name_ranks_higher() {
        let all = hosts(&["*.example.com", "*.b.example.com", "A.example.com", "[::1]"]);
        let rank = |host: &str| all.rank(host.as_bytes());
        assert_eq!(rank("a.example.com"), Some(usize::MAX));
        assert_eq!(rank("[::1]"), Some(usize::MAX));
        assert!(rank("x.b.example.com") > rank("x.example.com"));
        assert!(rank("x.y.example.com").is_some());
        for other in ["example.com", ".example.com", "xexample.com", "example.org", ""] {
            assert_eq!(rank(other), None, "{other}");
        }
        assert_eq!(Hosts::default().rank(b"any"), Some(0));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", "*", "*.", "a..b", "a.", "a:80", "a/b", "*.*.a", "a.*.b", "[x]", "*.[::1]", "a b", "ü.de"] {
            let refused = Hosts::new("rules[0].hosts", Some(vec!["a".to_owned(), host.to_owned()]));
            assert_eq!(refused.unwrap_err().key, "rules[0].hosts[1]", "{host}");
        }
        assert_eq!(Hosts::new("rules[0].hosts", Some(Vec::new())).unwrap_err().key, "rules[0].hosts");
    }

    proptest! {
        /// However a client writes the host, it is the same host.
        #[test]
        fn no_spelling_escapes(host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", port in 0..70_000_u32, how in 0..8_u8) {
            let mut spelled = if how & 1 == 0 { host.clone() } else { host.to_ascii_uppercase() };
            if how & 2 != 0 {
                spelled.push('.');
            }
            if how & 4 != 0 {
                spelled = format!("{spelled}:{port}");
            }
            prop_assert_eq!(of_authority(spelled.as_bytes()), host.into_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(authority: Vec<u8>) {
            let _ = of_authority(&authority);
        }
    }
}
