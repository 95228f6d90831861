//! The gateway's real code, with simulated memcacheds, links, clocks and random numbers.
//!
//! One thread, virtual time, one seed: the same seed replays the same run, byte for byte. A run of a minute takes some
//! milliseconds. The seam is the [`Store`](session_gateway::store::Store) trait, below the sessions and the copies and
//! above the protocol: what decides about sessions are memcached's semantics and messages that are late or lost, and
//! both are modelled here. (`turmoil` and `madsim` replace sockets, which costs a hundred times as much for each
//! operation; that the protocol is spoken correctly is tested with real memcacheds.)
//!
//! | module | does |
//! |---|---|
//! | [`plan`] | draws from a seed who does what when, and what fails |
//! | [`node`] | is a memcached |
//! | [`link`](mod@link) | is the way from a gateway to a node |
//! | [`world`] | runs a plan |
//! | [`checker`] | knows what the answers may be |
//! | [`shrink`] | makes a plan that fails as short as possible |
//! | [`campaign`] | runs many plans |

pub mod campaign;
pub mod checker;
pub mod link;
pub mod node;
pub mod plan;
pub mod shrink;
pub mod world;
