"""The kustomizations below envoy/, rendered by kubectl's own kustomize, as `kubectl apply -k` would.

They read two secrets that are not in the repository. So each test run works on a copy of the folder in which
secrets/generate.sh has made them, as a user does first.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = ("istio", "gateway-api")

Document = dict[str, Any]


class Tree:
    """A copy of the manifests, with secrets."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name)
        for name in FOLDERS:
            shutil.copytree(ROOT / "envoy" / name, self.root / name, ignore=shutil.ignore_patterns("*.env"))
        run([self.root / "istio/secrets/generate.sh"])

    def close(self) -> None:
        self._folder.cleanup()

    def kustomizations(self) -> list[str]:
        """All folders that `kubectl apply -k` takes, relative to the root."""
        return sorted(folder for folder, content in self._contents() if content["kind"] == "Kustomization")

    def components(self) -> list[str]:
        """All folders that another kustomization may take as a component."""
        return sorted(folder for folder, content in self._contents() if content["kind"] == "Component")

    def _contents(self) -> Iterator[tuple[str, Document]]:
        for path in self.root.rglob("kustomization.yaml"):
            yield str(path.parent.relative_to(self.root)), yaml.safe_load(path.read_text())

    def render(self, folder: str) -> list[Document]:
        """The documents of a kustomization of this tree."""
        return render(self.root / folder)

    def render_with(self, kustomization: Document) -> list[Document]:
        """The documents of a kustomization that a user writes, in a folder beside those of this tree. It may name
        application.yaml."""
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            shutil.copy(Path(__file__).parent / "application.yaml", folder)
            (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            return render(Path(folder))

    def reached(self, folder: str) -> set[Path]:
        """All files that rendering a kustomization or component reads."""
        base = (self.root / folder).resolve()
        path = base / "kustomization.yaml"
        content = yaml.safe_load(path.read_text())
        files = {path}
        generated = [name for entry in content.get("secretGenerator", []) for name in entry["envs"]]
        patches = [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        for name in [*content.get("resources", []), *content.get("components", []), *generated, *patches]:
            target = (base / name).resolve()
            if target.is_dir():
                files |= self.reached(str(target.relative_to(self.root.resolve())))
            else:
                files.add(target)
        return files


def render(folder: Path) -> list[Document]:
    kubectl = os.environ.get("KUBECTL")
    if not kubectl:
        raise RuntimeError("KUBECTL is not set: ./test.sh installs kubectl and sets it")
    return [document for document in yaml.safe_load_all(run([kubectl, "kustomize", folder])) if document]


def run(command: Sequence[str | Path], **options: Any) -> str:
    """What a command prints; if it fails, what it complains about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


def label(document: Document) -> str:
    """How a document is called in messages."""
    metadata = document.get("metadata", {})
    return f"{document.get('kind')} {metadata.get('namespace', '')}/{metadata.get('name')}"
