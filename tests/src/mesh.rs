//! The whole setup in one value: store, gateway, two applications, Envoy.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::envoy::{Configuration, Envoy};
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// Everything between a browser and its session.
pub struct Mesh {
    /// In front of everything.
    pub envoy: Envoy,
    /// Keeps the sessions, in memory.
    pub gateway: Gateway,
    /// The application behind every path but `/other/`.
    pub app: Upstream,
    /// The application behind `/other/`.
    pub other: Upstream,
}

impl Mesh {
    /// The setup with the filter's configuration as it stands in `envoy/envoy.yaml`.
    pub fn start() -> Self {
        Self::with(json!({}))
    }

    /// The setup with a JSON merge patch on the filter's configuration.
    pub fn with(plugin: Value) -> Self {
        Self::configured(|envoy| envoy.plugin(plugin))
    }

    /// The setup with a change to Envoy's configuration.
    pub fn configured(change: impl FnOnce(Configuration) -> Configuration) -> Self {
        let gateway = Gateway::start("memory:");
        let (app, other) = (Upstream::start(), Upstream::start());
        let configuration = Configuration::read()
            .cluster("session_gateway", &[gateway.port()])
            .cluster("app", &[app.port()])
            .cluster("other", &[other.port()]);
        let envoy = change(configuration).start();
        Self { envoy, gateway, app, other }
    }

    /// A browser that has never been here.
    pub fn browser(&self) -> Browser {
        Browser::new(self.envoy.port())
    }
}
