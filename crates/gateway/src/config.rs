//! Flags, environment and files, checked before anything starts.
//!
//! Every flag is in `docs/gateway.md`; a test compares the two.

mod bearer_tokens;
mod listen;
mod store_url;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use session::subject::{LimitPolicy, SessionLimit, Subject};
use tracing_subscriber::filter::LevelFilter;

use crate::store::layout::Layout;
use crate::store::{Keyspace, Memcached, Place, Start};

pub use bearer_tokens::{BEARER_TOKEN_ENV, BearerTokenError, BearerTokens};
pub use listen::Listen;
pub use store_url::{StoreUrl, StoreUrlError};

/// memcached's default limit for an item is 1 MiB, key and bookkeeping included.
const MAX_SESSION_BYTES: u64 = 1_000_000;

/// Keeps the sessions of session-mesh: HTTP in front of memory or memcached.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "session-gateway",
    version,
    disable_help_subcommand = true,
    after_help = "Callers need a bearer token. Put one of at least 16 characters, or several separated by commas, \
                  into the environment variable SESSION_GATEWAY_TOKEN or into the file that --token-file names.\n\n\
                  SIGTERM and SIGINT drain: /readyz returns 503 and requests under way are completed. A second \
                  signal stops the process at once."
)]
#[expect(clippy::doc_markdown, reason = "the comments are the text of --help")]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where to serve the API: host:port, or unix:/path; several separated by commas
    #[arg(
        long,
        env = "SESSION_GATEWAY_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9100"
    )]
    pub listen: Vec<Listen>,

    /// Where to serve /healthz, /readyz and /metrics, in the same notation
    #[arg(
        long,
        env = "SESSION_GATEWAY_ADMIN_LISTEN",
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9101"
    )]
    pub admin_listen: Vec<Listen>,

    /// Permissions of unix sockets, octal
    #[arg(long, env = "SESSION_GATEWAY_UNIX_SOCKET_MODE", value_name = "MODE", default_value = "660",
          value_parser = octal)]
    pub unix_socket_mode: u32,

    /// Where to keep sessions: memory: or memcached://host:port,host:port, with options after a question mark
    #[arg(long, env = "SESSION_GATEWAY_STORE", value_name = "URL", default_value = "memory:")]
    pub store: StoreUrl,

    /// First step of a change of nodes or copies: the store that sessions will be moved to, with a higher layout number
    #[arg(long, env = "SESSION_GATEWAY_NEXT_STORE", value_name = "URL", conflicts_with = "previous_store")]
    pub next_store: Option<StoreUrl>,

    /// Second step: the store that sessions are moved from
    #[arg(long, env = "SESSION_GATEWAY_PREVIOUS_STORE", value_name = "URL")]
    pub previous_store: Option<StoreUrl>,

    /// Prefix of all keys in the store
    #[arg(long, env = "SESSION_GATEWAY_KEY_PREFIX", value_name = "TEXT", default_value = "sm:",
          value_parser = Keyspace::new)]
    pub key_prefix: Keyspace,

    /// Maximum size of a session's data in bytes, as ASCII JSON
    #[arg(long, env = "SESSION_GATEWAY_MAX_SESSION_BYTES", value_name = "BYTES", default_value = "65536",
          value_parser = clap::value_parser!(u64).range(2..=MAX_SESSION_BYTES))]
    pub max_session_bytes: u64,

    /// Maximum size of a request's body in bytes
    #[arg(long, env = "SESSION_GATEWAY_MAX_BODY_BYTES", value_name = "BYTES", default_value = "262144",
          value_parser = clap::value_parser!(u64).range(2..=16_777_216))]
    pub max_body_bytes: u64,

    /// Time limit for a request's body to arrive
    #[arg(long, env = "SESSION_GATEWAY_BODY_TIMEOUT", value_name = "DURATION", default_value = "5s",
          value_parser = duration)]
    pub body_timeout: Duration,

    /// Time limit for a call's work with the store, including retries
    #[arg(long, env = "SESSION_GATEWAY_STORE_TIMEOUT", value_name = "DURATION", default_value = "1s",
          value_parser = duration)]
    pub store_timeout: Duration,

    /// How long the id of an ended session is blocked
    #[arg(long, env = "SESSION_GATEWAY_TOMBSTONE_TTL", value_name = "DURATION", default_value = "1m",
          value_parser = whole_seconds)]
    pub tombstone_ttl: Duration,

    /// Maximum number of sessions of a subject; 0 for no limit
    #[arg(long, env = "SESSION_GATEWAY_MAX_SESSIONS_PER_SUBJECT", value_name = "NUMBER", default_value = "0",
          value_parser = clap::value_parser!(u16).range(0..=i64::try_from(Subject::MAX_MEMBERS).unwrap_or(i64::MAX)))]
    pub max_sessions_per_subject: u16,

    /// What to do with a login beyond that limit
    #[arg(long, env = "SESSION_GATEWAY_ON_MAX_SESSIONS", value_name = "WHAT", default_value = "end-oldest")]
    pub on_max_sessions: OnMaxSessions,

    /// Time limit for a request's head to arrive
    #[arg(long, env = "SESSION_GATEWAY_HEADER_TIMEOUT", value_name = "DURATION", default_value = "5s",
          value_parser = duration)]
    pub header_timeout: Duration,

    /// When to close an idle connection; keep it above the idle timeout of Envoy's cluster (1h unless set)
    #[arg(long, env = "SESSION_GATEWAY_IDLE_TIMEOUT", value_name = "DURATION", default_value = "2h",
          value_parser = duration)]
    pub idle_timeout: Duration,

    /// Maximum number of concurrent API connections; more wait to be accepted
    #[arg(long, env = "SESSION_GATEWAY_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "4096")]
    pub max_connections: NonZeroUsize,

    /// Maximum number of API calls in flight; more are refused with 503 at once
    #[arg(long, env = "SESSION_GATEWAY_MAX_CALLS", value_name = "NUMBER", default_value = "512",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_calls: u32,

    /// Time limit for requests under way after SIGTERM
    #[arg(long, env = "SESSION_GATEWAY_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = duration)]
    pub drain_timeout: Duration,

    /// A file with the bearer tokens, instead of SESSION_GATEWAY_TOKEN
    #[arg(long, env = "SESSION_GATEWAY_TOKEN_FILE", value_name = "PATH")]
    pub token_file: Option<PathBuf>,

    /// Threads that serve requests [default: one per core]
    #[arg(long, env = "SESSION_GATEWAY_WORKERS", value_name = "NUMBER")]
    pub workers: Option<NonZeroUsize>,

    /// What to log: off, error, warn, info, debug or trace
    #[arg(long, env = "SESSION_GATEWAY_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,

    /// How to log
    #[arg(long, env = "SESSION_GATEWAY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// What the program does instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the gateway at --admin-listen whether it is alive: exit status 0 if it is, else 1
    Healthcheck,
}

/// What happens to a login of a subject that already has as many sessions as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMaxSessions {
    /// The oldest of them ends.
    EndOldest,
    /// It is refused.
    Refuse,
}

/// The stores that a gateway uses.
pub enum Stores {
    /// Sessions are in this process.
    Memory {
        /// How much memory they may take.
        max_bytes: u64,
    },
    /// They are in memcached.
    Memcached(Start<Memcached>),
}

/// What is wrong with the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoresError {
    /// Only memcached has nodes.
    #[error("--next-store and --previous-store are for changes from memcached to memcached")]
    Memory,
    /// Keys of two layouts have to differ.
    #[error("the layout number has to grow with a change: give the new store layout={0}, or more")]
    Number(u32),
}

impl Flags {
    /// The stores.
    pub fn stores(&self) -> Result<Stores, StoresError> {
        let place = |url: &StoreUrl| match url {
            StoreUrl::Memory { .. } => Err(StoresError::Memory),
            StoreUrl::Memcached { nodes, replicas, layout, transport } => Ok(Place {
                layout: Layout::new(*layout, *replicas, nodes),
                nodes: nodes.iter().map(|node| (node.clone(), Memcached::new(node, *transport))).collect(),
            }),
        };
        let change = |old: &StoreUrl, new: &StoreUrl| {
            let (old, new) = (place(old)?, place(new)?);
            if new.layout.number() <= old.layout.number() {
                return Err(StoresError::Number(u32::from(old.layout.number()) + 1));
            }
            Ok((old, new))
        };
        Ok(match (&self.store, &self.next_store, &self.previous_store) {
            (StoreUrl::Memory { max_bytes }, None, None) => Stores::Memory { max_bytes: *max_bytes },
            (store, Some(next), _) => {
                let (old, new) = change(store, next)?;
                Stores::Memcached(Start::Before { old, new })
            }
            (store, None, Some(previous)) => {
                let (old, new) = change(previous, store)?;
                Stores::Memcached(Start::During { old, new })
            }
            (store, None, None) => Stores::Memcached(Start::Only(place(store)?)),
        })
    }

    /// The limit for a subject's sessions, if there is one.
    #[must_use]
    pub fn session_limit(&self) -> Option<SessionLimit> {
        let policy = match self.on_max_sessions {
            OnMaxSessions::EndOldest => LimitPolicy::EndOldest,
            OnMaxSessions::Refuse => LimitPolicy::Refuse,
        };
        NonZeroUsize::new(self.max_sessions_per_subject.into()).map(|max| SessionLimit { max, policy })
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

fn octal(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or("not a mode like 660")
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 250ms or 1m 30s"))?;
    if duration.is_zero() {
        return Err("must be greater than zero".to_owned());
    }
    Ok(duration)
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.subsec_nanos() > 0 || duration.as_secs() > 86_400 {
        return Err("must be whole seconds, at most a day".to_owned());
    }
    Ok(duration)
}
