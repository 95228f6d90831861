//! Changes to `envoy/envoy.yaml` around the filter: the listener's options, other filters, routes, clusters.

use serde_json::{Value, json};

use super::{Configuration, merge};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

impl Configuration {
    /// Changes the HTTP connection manager by a JSON merge patch.
    pub fn manager(mut self, patch: Value) -> Self {
        merge(self.at(MANAGER), patch);
        self
    }

    /// Changes the Wasm filter's own options (`PluginConfig`) by a JSON merge patch.
    pub fn wasm(mut self, patch: Value) -> Self {
        merge(self.filter(""), patch);
        self
    }

    /// Puts routes before those of the file.
    pub fn routes(mut self, routes: Vec<Value>) -> Self {
        self.list("route_config/virtual_hosts/0/routes").splice(0..0, routes);
        self
    }

    /// Puts a filter behind the session filter, in front of the router.
    pub fn filter_behind(mut self, filter: Value) -> Self {
        self.list("http_filters").insert(1, filter);
        self
    }

    /// Puts a filter in front of the session filter. The last change: the others look for the session filter first.
    pub fn filter_in_front(mut self, filter: Value) -> Self {
        self.list("http_filters").insert(0, filter);
        self
    }

    /// Changes a cluster by a JSON merge patch.
    pub fn cluster_options(self, name: &str, patch: Value) -> Self {
        self.patch_cluster(name, patch)
    }

    /// Takes a cluster away.
    pub fn without_cluster(mut self, name: &str) -> Self {
        let clusters = self.at("/static_resources/clusters").as_array_mut().expect("a list of clusters");
        clusters.retain(|cluster| cluster.get("name").and_then(Value::as_str) != Some(name));
        self
    }

    /// Takes Envoy's own name away, which it needs for xDS.
    pub fn without_node(mut self) -> Self {
        merge(&mut self.value, json!({"node": null}));
        self
    }

    /// Sets one of Envoy's runtime values.
    pub fn runtime(mut self, key: &str, value: &Value) -> Self {
        let layer = json!({"name": "test", "static_layer": {key: value}});
        merge(&mut self.value, json!({"layered_runtime": {"layers": [layer]}}));
        self
    }

    fn list(&mut self, pointer: &str) -> &mut Vec<Value> {
        self.at(&format!("{MANAGER}/{pointer}")).as_array_mut().expect("a list")
    }
}
