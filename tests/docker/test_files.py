"""The files say what their origins say, and a start without secrets explains itself. No container is needed."""

import base64
import itertools
import re
import stat
import tempfile
import unittest
from pathlib import Path
from typing import Any

import yaml

from stack import COMPOSE_FILE, COMPOSES, ROOT, VERSION, compose, run, variables

BY_NAME = {
    "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
    "dns_refresh_rate": "1s",
}
ENV_EXAMPLE = ROOT / "envoy/.env.example"


class EnvoyConfiguration(unittest.TestCase):
    """envoy/compose/envoy.yaml is envoy/envoy.yaml with these changes, and no others."""

    def test_is_in_step(self) -> None:
        expected: Any = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
        manager = expected["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        wasm = manager["http_filters"][0]["typed_config"]["config"]
        wasm["vm_config"]["code"]["local"]["filename"] = "/plugin.wasm"
        settings = wasm["configuration"]["value"]
        settings["cookie"] = {"name": "session", "secure": False}
        settings["create"] = "eager"
        settings["upstream"] = {"cookie": "JSESSIONID"}
        hosts = {
            "session_gateway": [("gateway", 9100)],
            "app": [("tomcat1", 8080), ("tomcat2", 8080)],
            "other": [("other", 8083)],
        }
        clusters = expected["static_resources"]["clusters"]
        self.assertEqual({cluster["name"] for cluster in clusters}, hosts.keys())
        for cluster in clusters:
            del cluster["type"]
            cluster["cluster_type"] = {"name": "envoy.cluster.dns", "typed_config": BY_NAME}
            endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            for endpoint, (host, port) in zip(endpoints, hosts[cluster["name"]], strict=True):
                endpoint["endpoint"]["address"]["socket_address"] = {"address": host, "port_value": port}
        self.maxDiff = None
        actual = yaml.safe_load((ROOT / "envoy/compose/envoy.yaml").read_text())
        self.assertEqual(actual, expected, "a change of envoy/envoy.yaml belongs into envoy/compose/envoy.yaml, too")


class Versions(unittest.TestCase):
    def test_are_in_step(self) -> None:
        cargo = (ROOT / "Cargo.toml").read_text()
        tools = (ROOT / "scripts/tools.sh").read_text()
        arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
        self.assertEqual(arguments["RUST_VERSION"], re.findall(r'^rust-version = "(.+)"$', cargo, re.MULTILINE)[0])
        self.assertEqual(arguments["ENVOY_VERSION"], re.findall(r"^ENVOY_VERSION=(.+)$", tools, re.MULTILINE)[0])


class Variables(unittest.TestCase):
    def test_the_example_has_every_variable_with_its_default(self) -> None:
        used = dict(re.findall(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", COMPOSE_FILE.read_text()))
        self.assertEqual(variables(ENV_EXAMPLE), {**used, "COMPOSE_PROJECT_NAME": "session-mesh"})
        self.assertEqual(used["SESSION_MESH_VERSION"], VERSION)

    def test_a_start_without_a_secret_names_it_and_says_how_to_make_one(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            complete = Path(folder) / "complete"
            run(ROOT / "scripts/docker-env.sh", complete)
            for version, name in itertools.product(COMPOSES, ["SESSION_SECRETS", "SESSION_GATEWAY_TOKEN"]):
                compose(complete, "config", "--quiet", version=version)
                incomplete = Path(folder) / name
                incomplete.write_text(re.sub(rf"^{name}=.*$", f"{name}=", complete.read_text(), flags=re.MULTILINE))
                refused = compose(incomplete, "up", version=version, check=False)
                self.assertNotEqual(refused.returncode, 0)
                self.assertIn(f"{name} is not set. Run scripts/docker-env.sh once", refused.stderr)
                self.assertIn("openssl rand -base64 32", refused.stderr)

    def test_fresh_secrets(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            seen = set()
            for name in ["one", "two"]:
                file = Path(folder) / name
                run(ROOT / "scripts/docker-env.sh", file)
                self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
                written = variables(file)
                for secret in ["SESSION_SECRETS", "SESSION_GATEWAY_TOKEN"]:
                    self.assertEqual(len(base64.b64decode(written.pop(secret), validate=True)), 32)
                    seen.add(variables(file)[secret])
                self.assertEqual(written.items() - variables(ENV_EXAMPLE).items(), set())
            self.assertEqual(len(seen), 4)
            before = file.read_text()
            again = run(ROOT / "scripts/docker-env.sh", file, check=False)
            self.assertNotEqual(again.returncode, 0)
            self.assertIn("is there already", again.stderr)
            self.assertEqual(file.read_text(), before)
            self.assertEqual(sorted(path.name for path in Path(folder).iterdir()), ["one", "two"])
