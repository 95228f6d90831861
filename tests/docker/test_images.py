"""The images: what is in them, who runs them, how large they are."""

import hashlib
import io
import json
import sys
import tarfile
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from stack import ENVOY, FILTER, GATEWAY, ROOT, docker, inspect, run, stack

MEGABYTE = 1_000_000


def files(image: str) -> dict[str, bytes]:
    """The regular files of all of an image's layers, and nothing that Docker adds when it runs."""
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        docker("save", "--output", archive, image)
        found = {}
        with tarfile.open(archive) as saved:
            manifest = json.load(saved.extractfile("manifest.json"))
            for name in manifest[0]["Layers"]:
                with tarfile.open(fileobj=io.BytesIO(saved.extractfile(name).read())) as layer:
                    regular = (member for member in layer if member.isfile())
                    found |= {"/" + member.name: layer.extractfile(member).read() for member in regular}
        return found


class Gateway(unittest.TestCase):
    def setUp(self) -> None:
        stack()

    def test_is_the_program_and_nothing_else(self) -> None:
        content = files(GATEWAY)
        self.assertEqual(list(content), ["/session-gateway"])
        size = len(content["/session-gateway"])
        print(f"{GATEWAY}: {size / MEGABYTE:.1f} MB", file=sys.stderr)
        self.assertLess(size, 8 * MEGABYTE)

    def test_runs_as_an_unprivileged_user_and_has_a_health_check(self) -> None:
        config = inspect(GATEWAY)["Config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", "/session-gateway", "healthcheck"])
        self.assertEqual(config["Entrypoint"], ["/session-gateway"])

    def test_without_a_token_it_says_what_is_missing(self) -> None:
        refused = run("docker", "run", "--rm", "--read-only", "--network", "none", GATEWAY, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no bearer token: set SESSION_GATEWAY_TOKEN", refused.stderr)


class Filter(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        stack()
        cls.content = files(FILTER)

    def test_is_the_module_where_istio_and_envoy_gateway_look_for_it(self) -> None:
        self.assertEqual(list(self.content), ["/plugin.wasm"])
        print(f"{FILTER}: {len(self.content['/plugin.wasm']) / MEGABYTE:.1f} MB", file=sys.stderr)

    def test_is_one_layer(self) -> None:
        self.assertEqual(len(inspect(FILTER)["RootFS"]["Layers"]), 1)

    def test_is_what_envoy_runs(self) -> None:
        running = stack().compose("exec", "-T", "envoy", "sha256sum", "/plugin.wasm").split()[0]
        self.assertEqual(running, hashlib.sha256(self.content["/plugin.wasm"]).hexdigest())


class Envoy(unittest.TestCase):
    def test_is_not_run_by_root(self) -> None:
        stack()
        self.assertEqual(inspect(ENVOY)["Config"]["User"], "65532:65532")
