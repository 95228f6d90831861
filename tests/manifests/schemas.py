"""What says whether a document is a good one: Kubernetes' own schemas, the types of npm's packages for Istio and
Gateway API, and the CRDs as their projects publish them.

All are closed: a key that a schema doesn't name is an error, as it is for `kubectl apply` with strict validation.
What none of them can look at are the CRDs' CEL rules (x-kubernetes-validations), which only an API server evaluates.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from kustomizations import ROOT, Document

# The oldest that the manifests are for (the preStop `sleep`) and the newest that there are schemas of.
KUBERNETES_VERSIONS = ("1.30", "1.37")

# Where a checkout finds CRDs as published, if it does: data that is not this repository's.
PUBLISHED = ROOT.parent / "shared/schemas"

# Kinds that no package has types of, with the reason why that has to do.
WITHOUT_TYPES = {
    "gateway.envoyproxy.io/v1alpha1/EnvoyExtensionPolicy": "only its CRD is published",
    "gateway.envoyproxy.io/v1alpha1/EnvoyPatchPolicy": "only its CRD is published",
    "gateway.envoyproxy.io/v1alpha1/EnvoyProxy": "only its CRD is published",
}

PACKAGES = {
    "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
    "extensions.istio.io": "@kubernetes-models/istio",
    "networking.istio.io": "@kubernetes-models/istio",
    "security.istio.io": "@kubernetes-models/istio",
}


def kind(document: Document) -> str:
    return f"{document['apiVersion']}/{document['kind']}"


def is_kubernetes(document: Document) -> bool:
    """Whether it is one of Kubernetes' own kinds, whose groups have no dot or end in .k8s.io."""
    group, _, version = document["apiVersion"].rpartition("/")
    return group != "gateway.networking.k8s.io" and ("." not in group or group.endswith(".k8s.io")) and bool(version)


def kubernetes_errors(document: Document) -> list[str]:
    """What Kubernetes' own schemas say."""
    errors = []
    for version in KUBERNETES_VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except jsonschema.ValidationError as error:
            errors.append(f"Kubernetes {version}: {error.json_path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            errors.append(error.message)
    return errors


def has_types(document: Document) -> bool:
    return document["apiVersion"].rpartition("/")[0] in PACKAGES


def type_errors(documents: Sequence[Document]) -> list[list[str]]:
    """What npm's packages say of each document: their validators, and the TypeScript compiler with their types."""
    models = os.environ.get("MANIFEST_MODELS")
    if not models:
        raise RuntimeError("MANIFEST_MODELS is not set: ./test.sh installs the npm packages and sets it")
    found = [{"module": f"{PACKAGES[d['apiVersion'].split('/')[0]]}/{kind(d)}", "document": d} for d in documents]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(found, file)
        file.flush()
        # Read from standard input, a script finds its packages from the current folder on.
        command = ["node", "--input-type=module", "-", file.name]
        script = (Path(__file__).parent / "types.mjs").read_text()
        done = subprocess.run(
            command, cwd=models, input=script, capture_output=True, text=True, check=False, timeout=300
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def crd_errors(document: Document, schema: Document) -> list[str]:
    """What a CRD's schema says."""
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]


@cache
def published() -> dict[str, Document]:
    """The schemas of the published CRDs, closed, by kind; none where they aren't there."""
    return {name: closed(schema) for path in sorted(PUBLISHED.glob("*.yaml")) for name, schema in crds(path)}


def crds(path: Path) -> Iterator[tuple[str, Document]]:
    """The kinds that a file of CRDs defines, each with its schema as it stands there."""
    for crd in yaml.safe_load_all(path.read_text()):
        spec = crd["spec"]
        for version in spec["versions"]:
            name = f"{spec['group']}/{version['name']}/{spec['names']['kind']}"
            schema = version["schema"]["openAPIV3Schema"]
            # Every object has these, whether its CRD says so or not.
            properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
            # `metadata` is Kubernetes' own, and open here: CRDs can't say what is in it.
            properties["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
            yield name, schema | {"properties": schema.get("properties", {}) | properties}


def closed(schema: Any) -> Any:
    """The JSON schema that an API server's strict validation amounts to."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: closed(property_) for name, property_ in value.items()}
        elif key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "not"):
            result[key] = closed(value)
        elif not key.startswith("x-kubernetes-"):
            result[key] = value
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and not is_open:
        result["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and "type" in result:
        result["type"] = [result["type"], "null"]
        result.pop("nullable")
    return result
