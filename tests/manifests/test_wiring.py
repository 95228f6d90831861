"""python3 -m unittest discover -s tests/manifests: what names something in a manifest names something that is there."""

import unittest
from collections.abc import Iterator, Sequence

import yaml

from kustomizations import Document, Tree, label
from reachability import Pod, may_connect, pods, selects

OVERLAYS = {
    "istio/overlays/ingress-gateway",
    "istio/overlays/envoyfilter",
    "istio/overlays/sidecars",
    "istio/overlays/waypoint",
    "istio/overlays/unix-socket",
    "gateway-api",
}

# Pods that a controller makes, or an application's owner, with the labels that they get.
APPLICATION = Pod("applications", {"app": "red", "session-mesh": "enabled"})
WAYPOINT = Pod("applications", {"gateway.networking.k8s.io/gateway-name": "session-waypoint"})
ENVOY_GATEWAY_PROXY = Pod(
    "envoy-gateway-system",
    {
        "app.kubernetes.io/name": "envoy",
        "gateway.envoyproxy.io/owning-gateway-namespace": "applications",
        "gateway.envoyproxy.io/owning-gateway-name": "session-mesh",
    },
)
OTHERS = (
    Pod("applications", {"app": "red"}),
    Pod("default", {"session-mesh": "enabled", "istio": "session-ingress"}),
    Pod("istio-ingress", {"istio": "ingressgateway"}),
    Pod("session-mesh", {"app": "debug"}),
)


def of_kind(documents: Sequence[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def keys(document: object, name: str) -> Iterator[object]:
    """All values of a key, however deep."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == name:
                yield value
            yield from keys(value, name)
    elif isinstance(document, list):
        for item in document:
            yield from keys(item, name)


def workloads(documents: Sequence[Document]) -> list[Document]:
    return of_kind(documents, "Deployment") + of_kind(documents, "StatefulSet")


def containers(workload: Document) -> list[Document]:
    spec = workload["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


class Wiring(unittest.TestCase):
    tree: Tree
    overlays: dict[str, list[Document]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.tree = Tree()
        cls.overlays = {folder: cls.tree.render(folder) for folder in OVERLAYS}
        cls.application = cls.tree.render_with(
            {
                "resources": ["application.yaml"],
                "namespace": "applications",
                "components": ["../istio/components/sidecar-environment"],
            }
        )

    @classmethod
    def tearDownClass(cls) -> None:
        cls.tree.close()

    def test_the_overlays_are_all_that_there_are(self) -> None:
        found = {f for f in self.tree.kustomizations() if f.count("/") == 2 and f.startswith("istio/overlays/")}
        self.assertEqual(found | {"gateway-api"}, OVERLAYS)

    def reachable(self, documents: Sequence[Document], name: str, port: int) -> set[str]:
        """Which of all pods may connect to those of a workload."""
        sources = {
            **pods(documents),
            "application": APPLICATION,
            "waypoint": WAYPOINT,
            "envoy-gateway": ENVOY_GATEWAY_PROXY,
            **{str(pod): pod for pod in OTHERS},
        }
        target = pods(documents)[name]
        return {source for source, pod in sources.items() if may_connect(documents, pod, target, port)}

    def test_only_proxies_reach_the_gateway_and_only_the_gateway_reaches_memcached(self) -> None:
        proxies = {
            "istio/overlays/ingress-gateway": "session-ingress",
            "istio/overlays/envoyfilter": "session-ingress",
            "istio/overlays/sidecars": "application",
            "istio/overlays/waypoint": "waypoint",
            "gateway-api": "envoy-gateway",
        }
        for overlay, proxy in proxies.items():
            with self.subTest(overlay):
                documents = self.overlays[overlay]
                self.assertEqual(self.reachable(documents, "session-gateway", 9100), {proxy})
                # The admin port: nothing, until components/prometheus allows it.
                self.assertEqual(self.reachable(documents, "session-gateway", 9101), set())
                self.assertEqual(self.reachable(documents, "memcached", 11211), {"session-gateway"})

    def test_with_a_unix_socket_only_the_pods_that_share_it_reach_memcached(self) -> None:
        documents = self.overlays["istio/overlays/unix-socket"]
        self.assertNotIn("session-gateway", pods(documents))
        self.assertEqual(self.reachable(documents, "memcached", 11211), {"session-ingress"})

    def test_without_an_overlay_nothing_reaches_the_gateway(self) -> None:
        documents = self.tree.render("istio/base")
        self.assertEqual(self.reachable(documents, "session-gateway", 9100), set())
        # Without the policies everything does: the answers above come from the policies.
        without = [document for document in documents if document["kind"] != "NetworkPolicy"]
        self.assertIn("application", self.reachable(without, "session-gateway", 9100))

    def test_components_open_what_they_say_and_nothing_else(self) -> None:
        def rendered(component: str) -> list[Document]:
            resources, components = ["../istio/overlays/ingress-gateway"], [f"../istio/components/{component}"]
            return self.tree.render_with({"resources": resources, "components": components})

        prometheus = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
        istiod = Pod("istio-system", {"app": "istiod"})
        plain, metrics, mesh = self.overlays["istio/overlays/ingress-gateway"], rendered("prometheus"), rendered("mesh")
        gateway = pods(plain)["session-gateway"]
        for documents, may_scrape in [(plain, False), (metrics, True)]:
            self.assertEqual(may_connect(documents, prometheus, gateway, 9101), may_scrape)
            self.assertFalse(may_connect(documents, prometheus, gateway, 9100))
        for documents, is_in_mesh in [(plain, False), (mesh, True)]:
            self.assertEqual(may_connect(documents, gateway, istiod, 15012), is_in_mesh)
            [namespace] = [d for d in of_kind(documents, "Namespace") if d["metadata"]["name"] == "session-mesh"]
            injection = "enabled" if is_in_mesh else "disabled"
            self.assertEqual(namespace["metadata"]["labels"]["istio-injection"], injection)

    def test_the_proxies_have_what_the_filter_takes_from_its_host(self) -> None:
        for overlay, documents in self.overlays.items():
            with self.subTest(overlay):
                plugins = of_kind(documents, "WasmPlugin")
                taken = {entry["name"] for plugin in plugins for entry in plugin["spec"]["vmConfig"]["env"]}
                for names in [*keys(documents, "host_env_keys"), *keys(documents, "hostKeys")]:
                    taken |= set(names)
                self.assertEqual(taken, {"SESSION_SECRETS", "SESSION_GATEWAY_TOKEN"})
                self.assertEqual(self.given(overlay), taken)

    def given(self, overlay: str) -> set[str]:
        """The variables of the proxy's container, each from a Secret that the overlay has in the proxy's namespace."""
        documents = self.overlays[overlay]
        if overlay == "gateway-api":
            namespace = "envoy-gateway-system"
            [proxy] = of_kind(documents, "EnvoyProxy")
            container = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"]
        elif overlay == "istio/overlays/waypoint":
            namespace = "applications"
            [config] = of_kind(documents, "ConfigMap")
            [container] = yaml.safe_load(config["data"]["deployment"])["spec"]["template"]["spec"]["containers"]
        else:
            from_application = overlay == "istio/overlays/sidecars"
            namespace = "applications" if from_application else "istio-ingress"
            every = [c for w in workloads(self.application if from_application else documents) for c in containers(w)]
            [container] = [candidate for candidate in every if candidate["name"] == "istio-proxy"]
        secrets = {
            (secret["metadata"]["name"], key)
            for secret in of_kind(documents, "Secret")
            if secret["metadata"]["namespace"] == namespace
            for key in secret["data"]
        }
        for entry in container["env"]:
            reference = entry["valueFrom"]["secretKeyRef"]
            self.assertIn((reference["name"], reference["key"]), secrets)
        return {entry["name"] for entry in container["env"]}

    def test_the_gateways_get_their_token_and_not_the_signing_secrets(self) -> None:
        for overlay, documents in self.overlays.items():
            every = [container for workload in workloads(documents) for container in containers(workload)]
            [gateway] = [container for container in every if container["name"] == "session-gateway"]
            with self.subTest(overlay):
                self.assertEqual([entry["name"] for entry in gateway["env"]], ["SESSION_GATEWAY_TOKEN"])

    def test_no_secret_stands_in_a_resource_of_the_proxies(self) -> None:
        for overlay, documents in self.overlays.items():
            values = {value for secret in of_kind(documents, "Secret") for value in secret["data"].values()}
            self.assertEqual(len(values), 2, overlay)
            for document in documents:
                if document["kind"] != "Secret":
                    text = yaml.safe_dump(document)
                    self.assertFalse(any(value in text for value in values), label(document))
            for plugin in of_kind(documents, "WasmPlugin"):
                self.assertEqual({entry["valueFrom"] for entry in plugin["spec"]["vmConfig"]["env"]}, {"HOST"})

    def test_services_and_budgets_select_pods_and_ports_are_there(self) -> None:
        for overlay, documents in self.overlays.items():
            for document in of_kind(documents, "Service") + of_kind(documents, "PodDisruptionBudget"):
                with self.subTest(f"{overlay}: {label(document)}"):
                    spec = document["spec"]
                    selector = {"matchLabels": spec["selector"]} if document["kind"] == "Service" else spec["selector"]
                    [workload] = [
                        workload
                        for workload in workloads(documents)
                        if workload["metadata"]["namespace"] == document["metadata"]["namespace"]
                        and selects(selector, workload["spec"]["template"]["metadata"]["labels"])
                    ]
                    names = {port["name"] for container in containers(workload) for port in container.get("ports", [])}
                    for port in spec.get("ports", []):
                        self.assertTrue(isinstance(port.get("targetPort", 0), int) or port["targetPort"] in names)

    def test_hosts_of_istio_resources_are_services(self) -> None:
        for overlay, documents in self.overlays.items():
            services = {
                f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
                for service in of_kind(documents, "Service")
            }
            with self.subTest(overlay):
                for rule in of_kind(documents, "DestinationRule"):
                    self.assertIn(rule["spec"]["host"], services)
                for asked_for in keys(documents, "envoyfilter.istio.io/referenced-services"):
                    self.assertIn(asked_for, services)

    def test_probes_ask_ports_that_are_there(self) -> None:
        probes = 0
        for documents in self.overlays.values():
            for workload in workloads(documents):
                for container in containers(workload):
                    ports = {port["name"] for port in container.get("ports", [])}
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                        action = container.get(probe, {})
                        for target in (action.get("httpGet"), action.get("tcpSocket")):
                            if target:
                                self.assertIn(target["port"], ports, label(workload))
                                probes += 1
        self.assertGreater(probes, len(self.overlays) * 4)

    def test_no_proxy_is_asked_for_what_has_to_be_up_before_it(self) -> None:
        # istiod has istio-proxy answer the probes of all containers, also of those that are started before it
        # (pkg/kube/inject/app_probe.go, patchRewriteProbe).
        early = 0
        for documents in self.overlays.values():
            for workload in workloads(documents):
                template = workload["spec"]["template"]
                if any("startupProbe" in container for container in template["spec"].get("initContainers", [])):
                    annotation = template["metadata"]["annotations"]["sidecar.istio.io/rewriteAppHTTPProbers"]
                    self.assertEqual(annotation, "false", label(workload))
                    early += 1
        self.assertEqual(early, 1)

    def test_the_gateways_know_every_memcached_by_its_pods_name(self) -> None:
        for overlay, documents in self.overlays.items():
            [nodes] = [d for d in of_kind(documents, "StatefulSet") if d["metadata"]["name"] == "memcached"]
            names = [
                f"memcached-{index}.{nodes['spec']['serviceName']}.session-mesh.svc.cluster.local:11211"
                for index in range(nodes["spec"]["replicas"])
            ]
            every = [container for workload in workloads(documents) for container in containers(workload)]
            [gateway] = [container for container in every if container["name"] == "session-gateway"]
            with self.subTest(overlay):
                [store] = [argument for argument in gateway["args"] if argument.startswith("--store=")]
                self.assertEqual(store.split("?")[0], f"--store=memcached://{','.join(names)}")

    def test_memcached_has_room_for_itself_beside_the_items(self) -> None:
        for documents in self.overlays.values():
            [nodes] = [d for d in of_kind(documents, "StatefulSet") if d["metadata"]["name"] == "memcached"]
            [container] = nodes["spec"]["template"]["spec"]["containers"]
            [items] = [int(arg.removeprefix("--memory-limit=")) for arg in container["args"] if "memory-limit" in arg]
            limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
            self.assertGreaterEqual(limit, items + 100)

    def test_an_application_may_be_any_workload_with_the_label(self) -> None:
        [red] = self.application
        self.assertEqual([c["name"] for c in red["spec"]["template"]["spec"]["containers"]], ["istio-proxy", "red"])
        self.assertEqual(red["spec"]["template"]["metadata"]["labels"], {"app": "red", "session-mesh": "enabled"})


if __name__ == "__main__":
    unittest.main()
