"""python3 -m unittest discover -s tests/manifests: what the documents show is rendered and checked, too."""

import re
import textwrap
import unittest

import yaml

from kustomizations import ROOT, Document, Tree, label
from schemas import has_types, is_kubernetes, kubernetes_errors, type_errors

DOCUMENTS = ("istio", "envoy-gateway")


def blocks(name: str) -> list[Document]:
    """The YAML that a document shows."""
    text = (ROOT / "docs/deploy" / f"{name}.md").read_text()
    found = re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.S | re.M)
    return [yaml.safe_load(textwrap.dedent(block)) for block in found]


class Documents(unittest.TestCase):
    def setUp(self) -> None:
        self.tree = Tree()
        self.addCleanup(self.tree.close)

    def rendered(self, name: str) -> list[list[Document]]:
        """What the kustomizations of a document render to, with the checkout where this tree is."""
        found = []
        for block in blocks(name):
            if block.get("kind") == "Kustomization":
                for key in ("resources", "components"):
                    block[key] = [path.replace("session-mesh/envoy/", "../") for path in block.get(key, [])]
                found.append(self.tree.render_with(block))
        return found

    def test_the_kustomizations_render_and_change_what_they_mean_to(self) -> None:
        [ingress, application] = self.rendered("istio")
        [envoy_gateway] = self.rendered("envoy-gateway")
        for documents in (ingress, envoy_gateway):
            deployments = [document for document in documents if document["kind"] == "Deployment"]
            [gateway] = [d for d in deployments if d["metadata"]["name"] == "session-gateway"]
            [container] = gateway["spec"]["template"]["spec"]["containers"]
            self.assertEqual(container["image"], "registry.example.com/session-mesh/gateway:0.1.0")
        self.assertIn("istio-proxy", [c["name"] for c in application[0]["spec"]["template"]["spec"]["containers"]])
        for documents in (ingress, application, envoy_gateway):
            for document in filter(is_kubernetes, documents):
                self.assertEqual(kubernetes_errors(document), [], label(document))

    def test_resources_that_are_shown_fit_their_types(self) -> None:
        shown = [block for name in DOCUMENTS for block in blocks(name) if "apiVersion" in block and has_types(block)]
        self.assertEqual([block["kind"] for block in shown], ["AuthorizationPolicy"])
        self.assertEqual(type_errors(shown), [[]])

    def test_what_is_shown_for_a_container_is_what_the_manifests_have(self) -> None:
        [values] = [block for block in blocks("istio") if "envVarFrom" in block]
        [proxy] = [
            container
            for document in self.tree.render("istio/overlays/ingress-gateway")
            if document["kind"] == "Deployment"
            for container in document["spec"]["template"]["spec"]["containers"]
            if container["name"] == "istio-proxy"
        ]
        self.assertEqual(values["envVarFrom"], proxy["env"])


if __name__ == "__main__":
    unittest.main()
