//! Real processes for the end-to-end tests in `tests/e2e`.
//!
//! Every value here owns what it has started and stops it on drop. If a test fails, the logs of its processes are
//! printed. Nothing is shared between tests, so they run in parallel. A tool that can't be started fails the test, with
//! a sentence that says how to get it.
//!
//! | module | gives |
//! |---|---|
//! | [`manifest`] | the Kubernetes manifests, and the Envoys that control planes derive from them |
//! | [`mesh`] | a gateway, two upstreams and an Envoy in front of them, wired up |
//! | [`envoy`], [`gateway`], [`memcached`] | each of the processes alone |
//! | [`tomcat`], [`php`], [`express`], [`django`] | applications with their own sessions |
//! | [`upstream`] | an application whose response the request determines |
//! | [`http`], [`browser`], [`traffic`] | clients: byte-exact, with a cookie jar, and many at once without pause |
//! | [`connection`], [`http2`] | clients that work step by step: HTTP/1.1, and HTTP/2 |
//! | [`scripted`], [`detour`] | servers and ways to servers that misbehave as a test says |
//! | [`built`] | the filter and the gateway, built from the current sources |
//! | [`acceptor`], [`process`], [`ports`], [`wait`] | the parts that these are built from |

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "a harness ends the test that uses it: that is how it reports"
)]

pub mod acceptor;
pub mod browser;
pub mod built;
pub mod connection;
pub mod detour;
pub mod django;
pub mod envoy;
pub mod express;
pub mod gateway;
pub mod http;
pub mod http2;
pub mod manifest;
pub mod memcached;
pub mod mesh;
pub mod php;
pub mod ports;
pub mod process;
pub mod scripted;
pub mod tomcat;
pub mod traffic;
pub mod upstream;
pub mod wait;
