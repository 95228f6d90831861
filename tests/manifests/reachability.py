"""Who may connect to whom, by a rendering's NetworkPolicies: https://kubernetes.io/docs/concepts/services-networking/network-policies/

As much of their rules as the manifests use: pods and namespaces by matchLabels, ports by number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kustomizations import Document


@dataclass(frozen=True)
class Pod:
    namespace: str
    labels: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.namespace}/{dict(self.labels)}"


def pods(documents: Sequence[Document]) -> dict[str, Pod]:
    """The pods of each Deployment and StatefulSet, by its name."""
    return {
        document["metadata"]["name"]: Pod(
            document["metadata"]["namespace"], document["spec"]["template"]["metadata"]["labels"]
        )
        for document in documents
        if document["kind"] in ("Deployment", "StatefulSet")
    }


def may_connect(documents: Sequence[Document], source: Pod, target: Pod, port: int) -> bool:
    """Whether both sides' policies let `source` open a TCP connection to `target`."""
    return _allowed(documents, "Egress", source, target, port) and _allowed(
        documents, "Ingress", target, source, port
    )


def _allowed(documents: Sequence[Document], direction: str, subject: Pod, peer: Pod, port: int) -> bool:
    policies = [policy for policy in _policies_of(documents, subject) if direction in policy["policyTypes"]]
    rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return not policies or any(
        _matches_port(rule, port) and any(_matches_peer(wanted, subject, peer) for wanted in rule[peers])
        for policy in policies
        for rule in policy.get(rules, [])
    )


def _policies_of(documents: Sequence[Document], pod: Pod) -> Iterator[Document]:
    for document in documents:
        if document["kind"] == "NetworkPolicy" and document["metadata"]["namespace"] == pod.namespace:
            if selects(document["spec"]["podSelector"], pod.labels):
                yield document["spec"]


def _matches_port(rule: Document, port: int) -> bool:
    return any(entry["port"] == port and entry["protocol"] == "TCP" for entry in rule["ports"])


def _matches_peer(wanted: Document, subject: Pod, peer: Pod) -> bool:
    if "namespaceSelector" in wanted:
        # The label that Kubernetes itself puts on every namespace.
        in_namespace = selects(wanted["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace})
    else:
        in_namespace = peer.namespace == subject.namespace
    return in_namespace and selects(wanted["podSelector"], peer.labels)


def selects(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a selector (empty: everything) takes what has these labels."""
    unknown = set(selector) - {"matchLabels"}
    if unknown:
        raise NotImplementedError(f"{unknown} in a selector")
    return selector.get("matchLabels", {}).items() <= labels.items()
