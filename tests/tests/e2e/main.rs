//! session-mesh as clients and upstreams meet it: real Envoy, real gateway, real memcached, real Tomcat.
//!
//! One binary, so that it is linked once; a module per topic.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test reports by panicking, in its helper functions, too"
)]

mod adoption;
mod cache;
mod cache_sharing;
mod configuration;
mod copies;
mod creation;
mod deployment_failures;
mod failure_table;
mod gateway_api;
mod hostile_clients;
mod hostile_upstreams;
mod languages;
mod manners;
mod mesh_manifests;
mod names;
mod observability;
mod one_browser;
mod other_filters;
mod outages;
mod path_spellings;
mod promotion;
mod protocols;
mod realms;
mod rotation;
mod rules;
mod secrets;
mod streams;
mod timeouts;
mod tokens;
mod tomcat;
mod tracing;
mod trailers;
mod upgrades;
mod writes;
mod xds;
