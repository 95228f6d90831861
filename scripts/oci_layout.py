#!/usr/bin/env python3
"""Writes an image of single files as an OCI image layout.

    oci_layout.py FOLDER TAG IMAGE.json

IMAGE.json is a list with one object for each platform: `architecture`, `files` (path in the image: path here),
`config` (the image's configuration: User, Env, Entrypoint, …) and `labels`. There is one layer, as a Dockerfile with
`FROM scratch` and `COPY` would make it, but the same bytes each time: no times, no owners, no order of a file system.
The format is https://github.com/opencontainers/image-spec, version 1.1. Run by release.sh.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Layout:
    """A layout that is being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))

    def blob(self, media_type: str, content: bytes) -> dict[str, Any]:
        """Writes a blob; its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        (self._folder / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(self, media_type: str, document: Any) -> dict[str, Any]:
        """Writes a JSON document as a blob; its descriptor."""
        return self.blob(media_type, json.dumps(document, sort_keys=True, separators=(",", ":")).encode())

    def image(self, image: dict[str, Any]) -> dict[str, Any]:
        """Writes the image of one platform; the descriptor of its manifest."""
        layer = tar(image["files"])
        config = {
            "architecture": image["architecture"],
            "os": "linux",
            "config": image["config"] | {"Labels": image["labels"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.document(CONFIG, config),
            "layers": [self.blob(LAYER, gzip.compress(layer, mtime=0))],
            "annotations": image["labels"],
        }
        platform = {"os": "linux", "architecture": image["architecture"]}
        return self.document(MANIFEST, manifest) | {"platform": platform}

    def finish(self, tag: str, images: list[dict[str, Any]]) -> None:
        """Names what was written."""
        if len(images) == 1:
            named = images[0]
        else:
            named = self.document(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": images})
        named = named | {"annotations": {"org.opencontainers.image.ref.name": tag}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}
        (self._folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


def tar(files: dict[str, str]) -> bytes:
    """The files as a tar archive, owned by root and as old as the epoch."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for name, path in sorted(files.items()):
            content = Path(path).read_bytes()
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755 if os.access(path, os.X_OK) else 0o644
            out.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__.split("\n\n")[1].strip())
    layout = Layout(Path(sys.argv[1]))
    images = json.loads(Path(sys.argv[3]).read_text())
    layout.finish(sys.argv[2], [layout.image(image) for image in images])


if __name__ == "__main__":
    main()
