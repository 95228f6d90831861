//! `--store`: `memory:` or `memcached://host:port,host:port`, each with options after a question mark.

use std::str::FromStr;

use crate::store::memcached::Transport;

const DEFAULT_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// The most copies of a session.
const MAX_REPLICAS: usize = 2;

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// In this process.
    Memory {
        /// How much memory they may take.
        max_bytes: u64,
    },
    /// In memcached.
    Memcached {
        /// `host:port`, at least one, each once.
        nodes: Vec<String>,
        /// The number of copies of each session: 1 or 2.
        replicas: usize,
        /// The number of the layout, incremented with each change of the nodes or copies.
        layout: u16,
        /// The settings for reaching them.
        transport: Transport,
    },
}

/// What is wrong with a `--store`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Neither `memory:` nor `memcached://`.
    #[error("not a store like memory: or memcached://host:port,host:port")]
    Scheme,
    /// A node without a host or a port.
    #[error("`{0}` is not a memcached node like cache-1:11211")]
    Node(String),
    /// A node that is named twice.
    #[error("`{0}` is named twice")]
    Twice(String),
    /// An option that this kind of store does not have, or that is given twice.
    #[error("`{0}` is not an option of this store, or is given twice")]
    Option(String),
    /// An option's value.
    #[error("`{value}` is not a value for {option}: {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// The given value.
        value: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// There are more copies than are kept.
    #[error("replicas={0} is not possible: a session has one copy or two")]
    Copies(u64),
    /// There are more copies than nodes.
    #[error("replicas={replicas} needs at least {replicas} nodes, but there are {nodes}")]
    Replicas {
        /// The number of copies.
        replicas: u64,
        /// The number of nodes.
        nodes: usize,
    },
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut options = Options::new(query)?;
        let store = if place == "memory:" {
            let max_bytes = options.number("max_bytes", 1..=u64::MAX)?;
            Self::Memory { max_bytes: max_bytes.unwrap_or(DEFAULT_MEMORY_BYTES) }
        } else if let Some(nodes) = place.strip_prefix("memcached://") {
            let nodes = parse_nodes(nodes)?;
            let asked = options.number("replicas", 1..=u64::MAX)?.unwrap_or(1);
            let replicas = usize::try_from(asked).ok().filter(|replicas| *replicas <= MAX_REPLICAS);
            let replicas = replicas.ok_or(StoreUrlError::Copies(asked))?;
            if replicas > nodes.len() {
                return Err(StoreUrlError::Replicas { replicas: asked, nodes: nodes.len() });
            }
            let layout = options.number("layout", 1..=u64::from(u16::MAX))?.unwrap_or(1);
            let layout = u16::try_from(layout).unwrap_or(u16::MAX);
            let mut transport = Transport::default();
            if let Some(timeout) = options.duration("connect_timeout")? {
                transport.connect_timeout = timeout;
            }
            if let Some(timeout) = options.duration("exchange_timeout")? {
                transport.exchange_timeout = timeout;
            }
            if let Some(timeout) = options.duration("queue_timeout")? {
                transport.queue_timeout = timeout;
            }
            if let Some(max) = options.number("max_connections", 1..=65_535)? {
                transport.max_connections = usize::try_from(max).unwrap_or(usize::MAX);
            }
            Self::Memcached { nodes, replicas, layout, transport }
        } else {
            return Err(StoreUrlError::Scheme);
        };
        options.finish()?;
        Ok(store)
    }
}

fn parse_nodes(text: &str) -> Result<Vec<String>, StoreUrlError> {
    let mut nodes: Vec<String> = Vec::new();
    for node in text.split(',') {
        let plain = node.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'#'));
        match node.rsplit_once(':') {
            Some((host, port)) if plain && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {}
            _ => return Err(StoreUrlError::Node(node.to_owned())),
        }
        if nodes.iter().any(|known| known == node) {
            return Err(StoreUrlError::Twice(node.to_owned()));
        }
        nodes.push(node.to_owned());
    }
    Ok(nodes)
}

/// The options after the question mark; one that is left at the end is an error.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn new(query: &'a str) -> Result<Self, StoreUrlError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').ok_or_else(|| StoreUrlError::Option(pair.to_owned())));
        pairs.collect::<Result<_, _>>().map(Self)
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(option, _)| *option == name)?;
        Some(self.0.remove(at).1)
    }

    fn number(
        &mut self,
        option: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, StoreUrlError> {
        let Some(value) = self.take(option) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(StoreUrlError::Value {
                option,
                value: value.to_owned(),
                expected: "a whole number of at least 1, and not too large",
            }),
        }
    }

    fn duration(&mut self, option: &'static str) -> Result<Option<std::time::Duration>, StoreUrlError> {
        let Some(value) = self.take(option) else {
            return Ok(None);
        };
        match humantime::parse_duration(value) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(StoreUrlError::Value { option, value: value.to_owned(), expected: "a duration like 200ms" }),
        }
    }

    fn finish(self) -> Result<(), StoreUrlError> {
        match self.0.first() {
            None => Ok(()),
            Some((option, _)) => Err(StoreUrlError::Option((*option).to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn good_urls() {
        let parse = |text: &str| text.parse::<StoreUrl>().unwrap();
        assert_eq!(parse("memory:"), StoreUrl::Memory { max_bytes: DEFAULT_MEMORY_BYTES });
        assert_eq!(parse("memory:?max_bytes=1000"), StoreUrl::Memory { max_bytes: 1000 });
        assert_eq!(
            parse(
                "memcached://h1:11211,[::1]:2?replicas=2&layout=7&connect_timeout=50ms&exchange_timeout=1s&queue_timeout=20ms&max_connections=3"
            ),
            StoreUrl::Memcached {
                nodes: vec!["h1:11211".to_owned(), "[::1]:2".to_owned()],
                replicas: 2,
                layout: 7,
                transport: Transport {
                    connect_timeout: Duration::from_millis(50),
                    exchange_timeout: Duration::from_secs(1),
                    queue_timeout: Duration::from_millis(20),
                    max_connections: 3,
                },
            }
        );
    }

    #[test]
    fn bad_urls_say_why() {
        for (text, said) in [
            ("", "not a store"),
            ("redis://h:1", "not a store"),
            ("memory", "not a store"),
            ("memory:x", "not a store"),
            ("memory:?max_bytes=0", "max_bytes"),
            ("memory:?max_bytes=lots", "max_bytes"),
            ("memory:?max_bytes=1&max_bytes=2", "max_bytes"),
            ("memory:?replicas=1", "replicas"),
            ("memory:?x", "`x`"),
            ("memcached://", "``"),
            ("memcached://h1", "`h1`"),
            ("memcached://h1:11211,", "``"),
            ("memcached://h1:0", "`h1:0`"),
            ("memcached://user:secret@h1:11211", "@h1"),
            ("memcached://h1:11211/", "/`"),
            ("memcached://h1:1,h1:1", "twice"),
            ("memcached://h1:1?replicas=2", "replicas=2"),
            ("memcached://h1:1,h2:1?replicas=0", "replicas"),
            ("memcached://h1:1,h2:1,h3:1?replicas=3", "one copy or two"),
            ("memcached://h1:1?timeout=2", "`timeout`"),
            ("memcached://h1:1?layout=0", "layout"),
            ("memcached://h1:1?layout=65536", "layout"),
            ("memcached://h1:1?connect_timeout=0s", "connect_timeout"),
            ("memcached://h1:1?max_connections=70000", "max_connections"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
