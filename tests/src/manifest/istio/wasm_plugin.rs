//! The filter that a `WasmPlugin` results in.

use std::path::Path;

use serde_json::{Value, json};

use super::super::{list, name, namespace, text};
use crate::built;

/// The names of the phases, in the order of the chain of filters. Authorization itself comes after [`AUTHZ`].
const PHASES: [&str; 4] = ["AUTHN", "AUTHZ", "STATS", ""];

pub(super) const AUTHZ: usize = 1;

/// The position of a plugin's phase in the chain.
pub(super) fn phase(plugin: &Value) -> usize {
    let wanted = text(plugin, "/spec/phase");
    PHASES.into_iter().position(|phase| phase == wanted).unwrap_or_else(|| panic!("no phase {wanted}"))
}

/// The filter's name, and the filter.
pub(super) fn filter(plugin: &Value, is_configured_by_struct: bool) -> (String, Value) {
    let spec = &plugin["spec"];
    let own = format!("{}.{}~istio-translated-wasmplugin", namespace(plugin), name(plugin));
    let policy = match text(spec, "/failStrategy") {
        "FAIL_RELOAD" => "FAIL_RELOAD",
        "FAIL_OPEN" => "FAIL_OPEN",
        _ => "FAIL_CLOSED",
    };
    let environment = list(spec, "/vmConfig/env").iter().map(|entry| {
        assert_eq!(text(entry, "/valueFrom"), "HOST", "secrets don't stand in a WasmPlugin");
        entry["name"].clone()
    });
    let configured = &spec["pluginConfig"];
    let configuration = if is_configured_by_struct {
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": configured})
    } else {
        json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configured.to_string()})
    };
    let config = json!({
        "name": own,
        "root_id": text(spec, "/pluginName"),
        "failure_policy": policy,
        "configuration": configuration,
        // No vm_id: all plugins of a proxy share one.
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"remote": {"http_uri": {"uri": spec["url"], "cluster": "_", "timeout": "30s"}, "sha256": ""}},
            "environment_variables": {"host_env_keys": environment.collect::<Vec<Value>>()},
        },
    });
    let filter = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": config});
    (format!("extensions.istio.io/trafficextension/{own}"), filter)
}

/// The module in an image.
pub(super) fn module(uri: &str) -> &'static Path {
    let image = uri.strip_prefix("oci://").and_then(|image| image.rsplit_once(':')).map(|(image, _tag)| image);
    match image.and_then(|image| image.rsplit_once('/')) {
        Some((_, "filter")) => built::filter(),
        Some((_, "noop-filter")) => built::noop_filter(),
        _ => panic!("{uri} is no image of ours"),
    }
}
