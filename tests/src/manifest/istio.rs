//! Translates the manifests like Istio's control plane and agent, following Istio's source (1.31):
//!
//! | here | there |
//! |---|---|
//! | which resources a proxy gets | `pilot/pkg/model/policyattachment.go`, `push_context.go` |
//! | a `WasmPlugin`'s filter | `pilot/pkg/model/extensions.go`, `pilot/pkg/config/kube/extensions/translate.go` |
//! | the filters' order, timeouts | `pilot/pkg/networking/core/listener_builder.go`, `listener_waypoint.go` |
//! | patches | `pilot/pkg/networking/core/envoyfilter/` |
//! | clusters | `pilot/pkg/networking/core/cluster.go`, `waypoint.go`, `cluster_traffic_policy.go` |
//! | the module as a local file | `pkg/wasm/convert.go` |
//!
//! There the filters' configuration is discovered from istiod (ECDS); here it is discovered from files.

mod wasm_plugin;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use session::merge_patch;

use self::wasm_plugin::AUTHZ;
use super::backends::host_name;
use super::setup::applications;
use super::{Backends, Manifests, list, namespace, selects, text};
use crate::envoy::Configuration;

const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const ROUTER: &str = "envoy.filters.http.router";

/// A proxy of the mesh.
#[derive(Clone, Debug)]
pub struct Proxy {
    namespace: &'static str,
    labels: Value,
    role: Role,
    is_configured_by_struct: bool,
    authorization: Vec<Value>,
}

/// What a proxy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ingress gateway.
    Gateway,
    /// The sidecar of an application, where requests come in.
    SidecarInbound,
    /// A waypoint, made for the Gateway of this name.
    Waypoint(&'static str),
}

impl Role {
    /// What an `EnvoyFilter` calls it. A waypoint's listeners count as inbound ones.
    const fn context(self) -> &'static str {
        match self {
            Self::Gateway => "GATEWAY",
            Self::SidecarInbound | Self::Waypoint(_) => "SIDECAR_INBOUND",
        }
    }

    const fn listener(self) -> &'static str {
        match self {
            Self::Gateway => "0.0.0.0_8443",
            Self::SidecarInbound => "virtualInbound",
            Self::Waypoint(_) => "main_internal",
        }
    }

    /// What a `WasmPlugin` calls the direction of its traffic.
    const fn mode(self) -> &'static str {
        match self {
            Self::Gateway => "CLIENT",
            Self::SidecarInbound | Self::Waypoint(_) => "SERVER",
        }
    }
}

/// Everything that is put together for one proxy.
struct Draft {
    manager: Value,
    filters: Vec<Value>,
    clusters: Vec<Value>,
    /// Filters' names and what is discovered for them.
    extensions: Vec<(String, Value)>,
}

impl Proxy {
    /// A proxy in a pod of this namespace, with these labels.
    pub const fn new(namespace: &'static str, labels: Value, role: Role) -> Self {
        Self { namespace, labels, role, is_configured_by_struct: false, authorization: Vec::new() }
    }

    /// Gets the configuration of a `WasmPlugin` as a struct instead of a string of JSON.
    pub fn with_struct_configuration(self) -> Self {
        Self { is_configured_by_struct: true, ..self }
    }

    /// Has a filter where those of an `AuthorizationPolicy` are.
    pub fn with_authorization(self, filter: Value) -> Self {
        Self { authorization: vec![filter], ..self }
    }

    /// The Envoy configuration that the manifests result in.
    pub fn configuration(&self, manifests: &Manifests, backends: &Backends, discovered: &Path) -> Configuration {
        let mut draft = self.without_patches(manifests, backends);
        let envoy_filters =
            manifests.all("EnvoyFilter").filter(|filter| self.takes(filter, "/spec/workloadSelector/labels"));
        for filter in envoy_filters {
            for patch in list(filter, "/spec/configPatches").iter().filter(|patch| self.matches(patch)) {
                draft.apply(patch, |cluster| backends.resolve(manifests, cluster));
            }
        }
        draft.finish(self.role, discovered)
    }

    fn without_patches(&self, manifests: &Manifests, backends: &Backends) -> Draft {
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ingress",
            "normalize_path": true,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "use_remote_address": self.role == Role::Gateway,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "stream_idle_timeout": "0s",
            "route_config": {"name": "applications", "virtual_hosts": [{
                "name": "applications", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "applications", "timeout": "0s"}}],
            }]},
        });
        let mut plugins: Vec<&Value> = manifests.all("WasmPlugin").filter(|plugin| self.takes_plugin(plugin)).collect();
        // The highest priority first; of equal ones, the older.
        plugins.sort_by_key(|plugin| {
            (wasm_plugin::phase(plugin), -plugin["spec"]["priority"].as_i64().unwrap_or_default())
        });
        let before_authorization = plugins.iter().filter(|plugin| wasm_plugin::phase(plugin) <= AUTHZ).count();
        let extensions: Vec<(String, Value)> =
            plugins.into_iter().map(|plugin| wasm_plugin::filter(plugin, self.is_configured_by_struct)).collect();
        let discovered = extensions.iter().map(|(name, _)| {
            json!({"name": name, "config_discovery": {
                "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
            }})
        });
        let mut filters: Vec<Value> = discovered.collect();
        filters.splice(before_authorization..before_authorization, self.authorization.iter().cloned());
        filters.push(json!({"name": ROUTER, "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}));
        let services = manifests.all("Service").filter(|service| self.sees(manifests, service));
        let outbound = services.flat_map(|service| {
            let ports = list(service, "/spec/ports").iter();
            ports.map(move |port| {
                outbound_cluster(manifests, service, port, &backends.endpoints(manifests, service, port))
            })
        });
        Draft {
            manager,
            filters,
            clusters: outbound.chain([applications("applications", backends)]).collect(),
            extensions,
        }
    }

    /// Whether it gets a resource of its namespace: by labels, or as a waypoint by `targetRefs`, and by nothing else.
    fn takes(&self, resource: &Value, selector: &str) -> bool {
        let is_taken = match self.role {
            Role::Waypoint(gateway) => list(resource, "/spec/targetRefs").iter().any(|target| {
                text(target, "/group") == "gateway.networking.k8s.io"
                    && text(target, "/kind") == "Gateway"
                    && text(target, "/name") == gateway
            }),
            _ => {
                resource.pointer("/spec/targetRefs").is_none()
                    && selects(resource.pointer(selector).unwrap_or(&Value::Null), &self.labels)
            }
        };
        is_taken && namespace(resource) == self.namespace
    }

    fn takes_plugin(&self, plugin: &Value) -> bool {
        let matches = list(plugin, "/spec/match");
        let is_matched = matches.is_empty() || matches.iter().any(|entry| text(entry, "/mode") == self.role.mode());
        is_matched && self.takes(plugin, "/spec/selector/matchLabels")
    }

    /// Whether it has clusters for a Service. A waypoint has none for what is not behind it, but for what an
    /// `EnvoyFilter` asks for.
    fn sees(&self, manifests: &Manifests, service: &Value) -> bool {
        let annotation = "/metadata/annotations/envoyfilter.istio.io~1referenced-services";
        let asked_for = || {
            let mut filters =
                manifests.all("EnvoyFilter").filter(|filter| self.takes(filter, "/spec/workloadSelector/labels"));
            filters.any(|filter| text(filter, annotation).split(',').any(|host| host == host_name(service)))
        };
        !matches!(self.role, Role::Waypoint(_)) || asked_for()
    }

    fn matches(&self, patch: &Value) -> bool {
        let context = patch.pointer("/match/context").and_then(Value::as_str).unwrap_or("ANY");
        let listener = text(patch, "/match/listener/name");
        let filter = text(patch, "/match/listener/filterChain/filter/name");
        (context == "ANY" || context == self.role.context())
            && (listener.is_empty() || listener == self.role.listener())
            && (filter.is_empty() || filter == MANAGER)
    }
}

impl Draft {
    /// Applies one patch of an `EnvoyFilter`; `resolve` replaces the addresses of a cluster.
    fn apply(&mut self, patch: &Value, resolve: impl Fn(Value) -> Value) {
        let value = patch["patch"]["value"].clone();
        match (text(patch, "/applyTo"), text(patch, "/patch/operation")) {
            ("NETWORK_FILTER", "MERGE") => {
                let (Value::Object(manager), Value::Object(change)) =
                    (&mut self.manager, value["typed_config"].clone())
                else {
                    panic!("a patch of the connection manager has a typed_config");
                };
                assert_eq!(manager.get("@type"), change.get("@type"));
                merge_patch::apply(manager, change);
            }
            ("HTTP_FILTER", "INSERT_FIRST") => self.filters.insert(0, value),
            ("CLUSTER", "ADD") => self.clusters.push(resolve(value)),
            ("EXTENSION_CONFIG", "ADD") => {
                self.extensions.push((text(&value, "/name").to_owned(), value["typed_config"].clone()));
            }
            other => panic!("{other:?} is not among what the manifests use"),
        }
    }

    /// The agent's part: the module is a local file, and what the control plane would send is in files.
    fn finish(mut self, role: Role, discovered: &Path) -> Configuration {
        for (index, (name, config)) in self.extensions.iter_mut().enumerate() {
            let code = config.pointer_mut("/config/vm_config/code").expect("the filter has code");
            *code = json!({"local": {"filename": wasm_plugin::module(text(code, "/remote/http_uri/uri"))}});
            let file = discovered.join(format!("{index}.json"));
            let extension = json!({
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": name, "typed_config": config,
            });
            let answer = json!({"version_info": "1", "resources": [extension]});
            fs::write(&file, answer.to_string()).expect("the temporary folder can be written to");
            let filter = self.filters.iter_mut().find(|filter| text(filter, "/name") == name.as_str());
            let source = filter.and_then(|filter| filter.pointer_mut("/config_discovery/config_source"));
            let Some(Value::Object(source)) = source else { panic!("no filter discovers {name}") };
            assert!(source.remove("ads").is_some(), "{name} is discovered from istiod");
            source.insert("path_config_source".to_owned(), json!({"path": file}));
        }
        let Value::Object(mut manager) = self.manager else { panic!("the connection manager is an object") };
        manager.insert("http_filters".to_owned(), self.filters.into());
        let listener = json!({
            "name": role.listener(),
            "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
        });
        Configuration::of(listener, &self.clusters)
    }
}

fn outbound_cluster(manifests: &Manifests, service: &Value, port: &Value, endpoints: &Value) -> Value {
    let host = host_name(service);
    let name = format!("outbound|{}||{host}", port["port"]);
    let mut rules = manifests.all("DestinationRule").filter(|rule| text(rule, "/spec/host") == host);
    let connect_timeout =
        rules.find_map(|rule| duration(text(rule, "/spec/trafficPolicy/connectionPool/tcp/connectTimeout")));
    let most = u32::MAX;
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": connect_timeout.unwrap_or_else(|| "10s".to_owned()),
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most,
        }]},
    })
}

/// A duration as Istio writes it (`100ms`, `20s`), as Envoy reads it.
fn duration(written: &str) -> Option<String> {
    match written.strip_suffix("ms") {
        Some(milliseconds) => Some(format!("0.{:0>3}s", milliseconds.parse::<u16>().ok()?)),
        None => written.ends_with('s').then(|| written.to_owned()),
    }
}
