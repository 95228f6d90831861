//! A gateway, two applications, and the Envoy that manifests result in.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Backends;
use crate::browser::Browser;
use crate::envoy::{Configuration, Envoy};
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// Running processes.
pub struct Setup {
    /// In front of the applications.
    pub envoy: Envoy,
    /// Keeps the sessions, in memory.
    pub gateway: Gateway,
    /// The applications, which take turns.
    pub applications: [Upstream; 2],
    /// What Envoy discovers, in files.
    _discovered: TempDir,
}

impl Setup {
    /// Starts all of it. `envoy` makes Envoy's configuration from where the others are, with what it is to discover in
    /// files of a folder.
    pub fn start(envoy: impl FnOnce(&Backends, &TempDir) -> Configuration) -> Self {
        let gateway = Gateway::start("memory:");
        let applications = [Upstream::start(), Upstream::start()];
        let backends = Backends {
            gateway: gateway.port(),
            socket: gateway.socket().clone(),
            applications: [applications[0].port(), applications[1].port()],
        };
        let discovered = tempfile::tempdir().expect("a temporary folder can be made");
        let envoy = envoy(&backends, &discovered).start();
        Self { envoy, gateway, applications, _discovered: discovered }
    }

    /// A browser that has never been here.
    pub fn browser(&self) -> Browser {
        Browser::new(self.envoy.port())
    }
}

/// The cluster of the applications, round robin.
pub(crate) fn applications(name: &str, backends: &Backends) -> Value {
    let endpoints = backends.applications.map(|port| json!({"endpoint": {"address": super::backends::address(port)}}));
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}
