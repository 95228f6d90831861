//! Envoy with a configuration that is not `envoy/envoy.yaml`, such as one that a control plane would make.

use serde_json::{Value, json};

use super::Configuration;
use crate::ports;

impl Configuration {
    /// One listener, these clusters, and an admin page, each on a free port.
    pub fn of(mut listener: Value, clusters: &[Value]) -> Self {
        if let Some(listener) = listener.as_object_mut() {
            listener.insert("address".to_owned(), socket(ports::free()));
        }
        let value = json!({
            // Without it Envoy discovers nothing.
            "node": {"id": "test", "cluster": "test"},
            "admin": {"address": socket(ports::free())},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        });
        Self { value, ..Self::read() }
    }
}

fn socket(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
