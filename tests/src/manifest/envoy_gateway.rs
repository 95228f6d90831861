//! Translates the manifests like Envoy Gateway, following its source (1.9):
//!
//! | here | there |
//! |---|---|
//! | the filter, and where it is on | `internal/xds/translator/wasm.go`, `internal/gatewayapi/envoyextensionpolicy.go` |
//! | the listener | `internal/xds/translator/listener.go` |
//! | patches | `internal/xds/translator/jsonpatch.go`, `internal/utils/jsonpatch/` |
//!
//! There the module comes from Envoy Gateway's own server; here it is a local file.

use serde_json::{Map, Value, json};
use serde_json_path::JsonPath;

use super::setup::applications;
use super::{Backends, Manifests, list, name, namespace, text};
use crate::built;
use crate::envoy::Configuration;

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// The Envoy configuration that a Gateway results in, without its TLS.
pub fn configuration(manifests: &Manifests, gateway: &str, backends: &Backends) -> Configuration {
    let gateway = manifests.one("Gateway", gateway);
    let route = manifests.all("HTTPRoute").find(|route| names(list(route, "/spec/parentRefs"), gateway));
    let route = route.expect("a route belongs to the Gateway");
    let destination = format!("httproute/{}/{}/rule/0", namespace(route), name(route));
    let mut clusters = vec![applications(&destination, backends)];
    let mut listener = listener(gateway, &filters(manifests, gateway), &destination);
    for policy in manifests.all("EnvoyPatchPolicy") {
        assert!(names(&[policy["spec"]["targetRef"].clone()], gateway), "{} is not for the Gateway", name(policy));
        for patch in list(policy, "/spec/jsonPatches") {
            let operation = &patch["operation"];
            assert_eq!(text(operation, "/op"), "add", "of all operations, the manifests use this one");
            match text(patch, "/type") {
                CLUSTER => {
                    let cluster = backends.resolve(manifests, operation["value"].clone());
                    assert_eq!((text(operation, "/path"), &patch["name"]), ("", &cluster["name"]));
                    clusters.push(cluster);
                }
                LISTENER => {
                    assert_eq!(patch["name"], listener["name"], "there is no such listener");
                    add(&mut listener, operation);
                }
                other => panic!("{other} is not among what the manifests patch"),
            }
        }
    }
    Configuration::of(localized(listener), &clusters)
}

/// Whether one of some references is to the Gateway.
fn names(references: &[Value], gateway: &Value) -> bool {
    references.iter().any(|reference| text(reference, "/name") == name(gateway))
}

/// The filters of all policies for the Gateway, by the names that the listener has for them.
fn filters(manifests: &Manifests, gateway: &Value) -> Vec<(String, Value)> {
    let policies = manifests
        .all("EnvoyExtensionPolicy")
        .filter(|policy| namespace(policy) == namespace(gateway) && names(list(policy, "/spec/targetRefs"), gateway));
    let filters = policies.flat_map(|policy| {
        list(policy, "/spec/wasm").iter().enumerate().map(move |(index, wasm)| {
            let id = format!("envoyextensionpolicy/{}/{}/wasm/{index}", namespace(policy), name(policy));
            (format!("envoy.filters.http.wasm/{id}"), filter(&id, wasm))
        })
    });
    filters.collect()
}

fn filter(id: &str, wasm: &Value) -> Value {
    assert_eq!(text(wasm, "/code/type"), "Image");
    let configured = wasm.get("config").map(Value::to_string).unwrap_or_default();
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": wasm["name"],
            "fail_open": wasm["failOpen"],
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configured},
            "vm_config": {
                "vm_id": id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"remote": {"http_uri": {"uri": wasm["code"]["image"]["url"], "cluster": "wasm_cluster"}}},
                "environment_variables": {"host_env_keys": wasm["env"]["hostKeys"]},
            },
        },
    })
}

/// The filters are off in the listener, and on in the routes.
fn listener(gateway: &Value, filters: &[(String, Value)], destination: &str) -> Value {
    let [listener] = list(gateway, "/spec/listeners") else { panic!("the Gateway has one listener") };
    let full_name = format!("{}/{}/{}", namespace(gateway), name(gateway), text(listener, "/name"));
    let mut chain: Vec<Value> =
        filters.iter().map(|(name, config)| json!({"name": name, "disabled": true, "typed_config": config})).collect();
    chain.push(json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": true,
    }}));
    let on = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
    let per_filter: Map<String, Value> = filters.iter().map(|(name, _)| (name.clone(), on.clone())).collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "merge_slashes": true,
        "normalize_path": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": true,
        "http_filters": chain,
        "route_config": {"name": full_name, "virtual_hosts": [{
            "name": full_name, "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"}, "route": {"cluster": destination}, "typed_per_filter_config": per_filter,
            }],
        }]},
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    json!({"name": full_name, "filter_chains": [{"name": full_name, "filters": [filter]}]})
}

/// An `add` whose `jsonPath` says which objects and whose `path` says which member of them.
fn add(document: &mut Value, operation: &Value) {
    let query = JsonPath::parse(text(operation, "/jsonPath")).unwrap_or_else(|error| panic!("{error}"));
    let places: Vec<String> =
        query.query_located(document).locations().map(serde_json_path::NormalizedPath::to_json_pointer).collect();
    assert!(!places.is_empty(), "{query} finds nothing");
    for place in places {
        let target = format!("{place}/{}", text(operation, "/path"));
        let steps = json!([{"op": "add", "path": target, "value": operation["value"]}]);
        let steps: json_patch::Patch = serde_json::from_value(steps).expect("a JSON patch");
        json_patch::patch(document, &steps).unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

/// With the module as a local file.
fn localized(mut listener: Value) -> Value {
    let filters = listener.pointer_mut("/filter_chains/0/filters/0/typed_config/http_filters");
    let filters = filters.and_then(Value::as_array_mut).expect("the listener has filters");
    for filter in filters {
        if let Some(code) = filter.pointer_mut("/typed_config/config/vm_config/code") {
            *code = json!({"local": {"filename": built::filter()}});
        }
    }
    listener
}
