//! What a cluster's DNS and its Services would lead to: the processes that a test has started.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Manifests, list, name, namespace, selects, text};

/// Where the processes of a test are.
#[derive(Clone, Debug)]
pub struct Backends {
    /// The session gateway's port.
    pub gateway: u16,
    /// The session gateway's unix socket.
    pub socket: PathBuf,
    /// The two applications behind every route.
    pub applications: [u16; 2],
}

impl Backends {
    /// The endpoints of a Service's port, as Envoy has them: those of the pods that it selects. Of all pods, only the
    /// session gateway's run.
    pub(crate) fn endpoints(&self, manifests: &Manifests, service: &Value, port: &Value) -> Value {
        let is_gateway = manifests.all("Deployment").any(|deployment| {
            name(deployment) == "session-gateway"
                && namespace(deployment) == namespace(service)
                && selects(&service["spec"]["selector"], &deployment["spec"]["template"]["metadata"]["labels"])
                && listens(deployment, port)
        });
        let endpoint = json!({"endpoint": {"address": address(self.gateway)}});
        json!([{"lb_endpoints": if is_gateway { vec![endpoint] } else { vec![] }}])
    }

    /// A cluster as a manifest has it, with the addresses in it replaced by those that they stand for here.
    pub(crate) fn resolve(&self, manifests: &Manifests, mut cluster: Value) -> Value {
        let endpoints = cluster.pointer_mut("/load_assignment/endpoints").and_then(Value::as_array_mut);
        for group in endpoints.expect("the cluster says where it leads to") {
            let members = group.get_mut("lb_endpoints").and_then(Value::as_array_mut);
            for member in members.expect("the cluster has endpoints") {
                let place = member.pointer_mut("/endpoint/address").expect("an endpoint has an address");
                *place = self.replacement(manifests, place);
            }
        }
        cluster
    }

    fn replacement(&self, manifests: &Manifests, wanted: &Value) -> Value {
        let socket = text(wanted, "/pipe/path");
        if !socket.is_empty() {
            assert_shared(manifests, socket);
            return json!({"pipe": {"path": self.socket}});
        }
        let (host, port) = (text(wanted, "/socket_address/address"), &wanted["socket_address"]["port_value"]);
        let mut services = manifests.all("Service");
        let service =
            services.find(|service| host_name(service) == host).unwrap_or_else(|| panic!("no Service {host}"));
        let mut ports = list(service, "/spec/ports").iter();
        let port =
            ports.find(|offered| &offered["port"] == port).unwrap_or_else(|| panic!("{host} has no port {port}"));
        let endpoints = self.endpoints(manifests, service, port);
        endpoints.pointer("/0/lb_endpoints/0/endpoint/address").expect("the Service leads to the gateway").clone()
    }
}

/// The name that the cluster's DNS has for a Service.
pub(crate) fn host_name(service: &Value) -> String {
    format!("{}.{}.svc.cluster.local", name(service), namespace(service))
}

pub(crate) fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// Whether the gateway serves its API on the container's port that a Service's port names.
fn listens(deployment: &Value, port: &Value) -> bool {
    let container = container(deployment, "/spec/template/spec/containers");
    let mut ports = list(container, "/ports").iter();
    let target = ports.find(|offered| offered["name"] == port["targetPort"]);
    let target = target.unwrap_or_else(|| panic!("no container has a port {}", port["targetPort"]));
    list(container, "/args").contains(&format!("--listen=0.0.0.0:{}", target["containerPort"]).into())
}

/// Fails unless gateway and proxy are containers of one pod that share the folder with the socket.
fn assert_shared(manifests: &Manifests, socket: &str) {
    let (folder, _) = socket.rsplit_once('/').expect("the socket's path is absolute");
    let mut deployments = manifests.all("Deployment");
    let pod = deployments.find_map(|deployment| {
        let pod = deployment.pointer("/spec/template/spec")?;
        (!list(pod, "/initContainers").is_empty()).then_some(pod)
    });
    let pod = pod.expect("a pod has the gateway as a sidecar");
    let gateway = container(pod, "/initContainers");
    assert_eq!(text(gateway, "/restartPolicy"), "Always");
    assert!(
        list(gateway, "/args").contains(&format!("--listen=unix:{socket}").into()),
        "no process listens on {socket}"
    );
    let proxy = list(pod, "/containers").iter().find(|container| container["name"] == "istio-proxy");
    let volume = |container: &Value| {
        let mut mounts = list(container, "/volumeMounts").iter();
        let mount = mounts.find(|mount| mount["mountPath"] == folder);
        mount.unwrap_or_else(|| panic!("{folder} is not mounted"))["name"].clone()
    };
    let shared = volume(gateway);
    assert_eq!(volume(proxy.expect("the pod has a proxy")), shared);
    assert!(list(pod, "/volumes").iter().any(|volume| volume["name"] == shared && volume["emptyDir"].is_object()));
}

/// The container of the session gateway.
fn container<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    let mut containers = list(value, pointer).iter();
    containers.find(|container| container["name"] == "session-gateway").expect("there is a session-gateway")
}
