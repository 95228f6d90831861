"""python3 -m unittest discover -s tests/manifests: every manifest, rendered, against every schema there is for it."""

import copy
import unittest
from collections.abc import Callable

import yaml

from kustomizations import Document, Tree, label, run
from schemas import (
    PUBLISHED,
    WITHOUT_TYPES,
    crd_errors,
    has_types,
    is_kubernetes,
    kind,
    kubernetes_errors,
    published,
    type_errors,
)

WITHOUT_CRDS = "a checkout alone has no CRDs; the types of the packages were made from those of an earlier release"

# What each component is taken into here.
COMPONENTS = {
    "istio/components/mesh": {"resources": ["../istio/overlays/ingress-gateway"]},
    "istio/components/prometheus": {"resources": ["../istio/overlays/ingress-gateway"]},
    "istio/components/sidecar-environment": {"resources": ["application.yaml"], "namespace": "applications"},
}


class Manifests(unittest.TestCase):
    """Everything, rendered once."""

    tree: Tree
    renderings: dict[str, list[Document]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.tree = Tree()
        cls.renderings = {folder: cls.tree.render(folder) for folder in cls.tree.kustomizations()}
        for component, around in COMPONENTS.items():
            kustomization = {**around, "components": [f"../{component}"]}
            cls.renderings[component] = cls.tree.render_with(kustomization)
        # Most documents are in several renderings.
        everything = [document for rendering in cls.renderings.values() for document in rendering]
        cls.documents = [d for index, d in enumerate(everything) if d not in everything[:index]]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.tree.close()

    def first(self, name: str) -> Document:
        """A copy of some document of a kind."""
        return copy.deepcopy(next(document for document in self.documents if document["kind"] == name))

    def test_all_kustomizations_and_components_are_rendered(self) -> None:
        self.assertEqual(set(COMPONENTS), set(self.tree.components()))
        self.assertIn("istio/overlays/ingress-gateway", self.renderings)
        self.assertIn("gateway-api", self.renderings)

    def test_no_file_is_left_out(self) -> None:
        roots = [folder for folder in self.tree.kustomizations() if folder.startswith("istio/overlays/")]
        roots += ["gateway-api", *self.tree.components()]
        reached = set().union(*(self.tree.reached(folder) for folder in roots))
        others = {"istio/secrets/generate.sh", "istio/secrets/.gitignore"}
        reached |= {(self.tree.root / name).resolve() for name in others}
        self.assertEqual(reached, {path.resolve() for path in self.tree.root.rglob("*") if path.is_file()})

    def test_kubernetes_kinds_fit_its_own_schemas(self) -> None:
        kinds = set()
        for document in filter(is_kubernetes, self.documents):
            with self.subTest(label(document)):
                self.assertEqual(kubernetes_errors(document), [])
                kinds.add(document["kind"])
        self.assertLessEqual(
            {"Deployment", "StatefulSet", "Service", "Secret", "PodDisruptionBudget", "NetworkPolicy"}, kinds
        )

    def test_other_kinds_fit_the_types_of_the_packages(self) -> None:
        typed = [document for document in self.documents if has_types(document)]
        for document, errors in zip(typed, type_errors(typed), strict=True):
            with self.subTest(label(document)):
                self.assertEqual(errors, [])
        self.assertLessEqual(
            {"WasmPlugin", "EnvoyFilter", "PeerAuthentication", "HTTPRoute"}, {d["kind"] for d in typed}
        )

    @unittest.skipUnless(PUBLISHED.is_dir(), WITHOUT_CRDS)
    def test_other_kinds_fit_the_crds_as_published(self) -> None:
        for document in self.documents:
            if is_kubernetes(document):
                continue
            with self.subTest(label(document)):
                schema = published().get(kind(document))
                if schema is None:
                    self.assertIn(kind(document), WITHOUT_TYPES, "there must be a schema of it somewhere")
                else:
                    self.assertEqual(crd_errors(document, schema), [])

    def test_every_kind_has_a_schema(self) -> None:
        for document in self.documents:
            known = is_kubernetes(document) or has_types(document) or kind(document) in WITHOUT_TYPES
            self.assertTrue(known, label(document))

    def test_an_envoy_proxys_container_is_kubernetes_own(self) -> None:
        # Its CRD is not among the published ones here; what matters of it is a part of a container.
        proxy = self.first("EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]
        deployment = self.first("Deployment")
        container = {"name": "envoy", "image": "envoy", **proxy["container"]}
        deployment["spec"]["template"]["spec"]["containers"] = [container]
        deployment["spec"]["replicas"] = proxy["replicas"]
        self.assertEqual(set(proxy), {"replicas", "container"})
        self.assertEqual(kubernetes_errors(deployment), [])

    def test_what_a_waypoint_is_changed_by_is_kubernetes_own(self) -> None:
        config = next(d for d in self.documents if d["kind"] == "ConfigMap" and "deployment" in d["data"])
        # The keys that istiod takes (pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go, supportedOverlays).
        self.assertEqual(set(config["data"]), {"deployment", "podDisruptionBudget"})
        patch = yaml.safe_load(config["data"]["deployment"])
        deployment = self.first("Deployment")
        [container] = patch["spec"]["template"]["spec"].pop("containers")
        self.assertEqual(container["name"], "istio-proxy")
        self.assertEqual(patch["spec"].pop("template"), {"spec": {}})
        self.assertEqual((set(patch), set(patch["spec"])), ({"spec"}, {"replicas"}))
        deployment["spec"] |= patch["spec"]
        deployment["spec"]["template"]["spec"]["containers"] = [{"image": "auto", **container}]
        self.assertEqual(kubernetes_errors(deployment), [])
        budget = self.first("PodDisruptionBudget")
        budget["spec"] |= yaml.safe_load(config["data"]["podDisruptionBudget"])["spec"]
        self.assertEqual(kubernetes_errors(budget), [])

    # That the schemas find anything at all.

    def wrong(self, name: str, change: Callable[[Document], object]) -> Document:
        document = self.first(name)
        change(document)
        return document

    def test_kubernetes_schemas_refuse_what_is_wrong(self) -> None:
        def container(document: Document) -> Document:
            return document["spec"]["template"]["spec"]["containers"][0]

        wrong = [
            self.wrong("Deployment", lambda d: container(d).update(redinessProbe={})),
            self.wrong("Deployment", lambda d: container(d)["resources"]["limits"].update(memory=["1Gi"])),
            self.wrong("Deployment", lambda d: d["spec"].pop("selector")),
            self.wrong("Service", lambda d: d["spec"]["ports"][0].update(port="http")),
            self.wrong("NetworkPolicy", lambda d: d["spec"].update(podSelectors={})),
            self.wrong("PodDisruptionBudget", lambda d: d["spec"].update(minAvailabe=1)),
        ]
        for document in wrong:
            with self.subTest(label(document)):
                self.assertEqual(len(kubernetes_errors(document)), 2, "one for each version")

    def test_types_and_crds_refuse_what_is_wrong(self) -> None:
        def patch(document: Document) -> Document:
            return document["spec"]["configPatches"][0]["patch"]

        def env(document: Document) -> Document:
            return document["spec"]["vmConfig"]["env"][0]

        wrong = [
            self.wrong("WasmPlugin", lambda d: d["spec"].update(failStrategy="RELOAD")),
            self.wrong("WasmPlugin", lambda d: d["spec"].update(failPolicy="FAIL_RELOAD")),
            self.wrong("WasmPlugin", lambda d: d["spec"].pop("url")),
            self.wrong("WasmPlugin", lambda d: d["spec"].update(priority="first")),
            self.wrong("WasmPlugin", lambda d: env(d).update(valueFrom="SECRET")),
            self.wrong("WasmPlugin", lambda d: env(d).update(secretKeyRef={})),
            self.wrong("EnvoyFilter", lambda d: patch(d).update(operation="INSERT")),
            self.wrong("EnvoyFilter", lambda d: patch(d).update(config={})),
            self.wrong("PeerAuthentication", lambda d: d["spec"]["mtls"].update(mode="ON")),
            self.wrong("HTTPRoute", lambda d: d["spec"]["rules"][0]["backendRefs"][0].update(port=0)),
            self.wrong("HTTPRoute", lambda d: d["spec"]["rules"][0].update(backendRef=[])),
        ]
        for document, errors in zip(wrong, type_errors(wrong), strict=True):
            with self.subTest(label(document)):
                self.assertNotEqual(errors, [])
                if PUBLISHED.is_dir():
                    self.assertNotEqual(crd_errors(document, published()[kind(document)]), [])

    @unittest.skipUnless(PUBLISHED.is_dir(), WITHOUT_CRDS)
    def test_crds_of_envoy_gateway_refuse_what_is_wrong(self) -> None:
        wrong = [
            self.wrong("EnvoyExtensionPolicy", lambda d: d["spec"]["wasm"][0].update(failStrategy="FAIL_RELOAD")),
            self.wrong("EnvoyExtensionPolicy", lambda d: d["spec"]["wasm"][0]["code"].update(type="OCI")),
            self.wrong("EnvoyExtensionPolicy", lambda d: d["spec"]["wasm"][0].pop("code")),
            self.wrong("EnvoyPatchPolicy", lambda d: d["spec"]["jsonPatches"][0]["operation"].update(op="insert")),
            self.wrong("EnvoyPatchPolicy", lambda d: d["spec"]["jsonPatches"][0].update(patch={})),
        ]
        for document in wrong:
            with self.subTest(label(document)):
                self.assertNotEqual(crd_errors(document, published()[kind(document)]), [])

    def test_without_the_secrets_nothing_is_rendered(self) -> None:
        tree = Tree()
        self.addCleanup(tree.close)
        secrets = tree.root / "istio/secrets"
        (secrets / "gateway-token/gateway-token.env").unlink()
        with self.assertRaisesRegex(RuntimeError, "gateway-token.env"):
            tree.render("istio/overlays/ingress-gateway")
        # Existing secrets stay: a second run must not log all users out.
        kept = (secrets / "session-secrets/session-secrets.env").read_text()
        run([secrets / "generate.sh"])
        self.assertEqual((secrets / "session-secrets/session-secrets.env").read_text(), kept)


if __name__ == "__main__":
    unittest.main()
