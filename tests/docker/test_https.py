"""https, as docs/deploy/compose.md says: its two changes of Envoy's configuration, and its override file."""

import re
import ssl
import tempfile
import unittest
from pathlib import Path

import yaml

from browser import Browser
from stack import ROOT, run, stack

DOCUMENT = (ROOT / "docs/deploy/compose.md").read_text()


def snippet(start: str) -> str:
    """The document's YAML that begins with this key."""
    (text,) = (block for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL) if block.startswith(start))
    return text


class Https(unittest.TestCase):
    def test_as_documented(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # Envoy's user, whom the container knows by number only, has to get in.
            folder.chmod(0o755)
            configuration = yaml.safe_load((ROOT / "envoy/compose/envoy.yaml").read_text())
            chain = configuration["static_resources"]["listeners"][0]["filter_chains"][0]
            chain |= yaml.safe_load(snippet("transport_socket:"))
            filters = chain["filters"][0]["typed_config"]["http_filters"]
            filters[0]["typed_config"]["config"]["configuration"]["value"] |= yaml.safe_load(snippet("cookie:"))
            (folder / "compose").mkdir()
            (folder / "compose/envoy-https.yaml").write_text(yaml.safe_dump(configuration))
            (folder / "tls").mkdir()
            certificate, key = folder / "tls/certificate.pem", folder / "tls/key.pem"
            new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=127.0.0.1"
            run("openssl", *new.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
            key.chmod(0o644)
            override = folder / "override.yaml"
            # Paths in an override are relative to the first file.
            override.write_text(snippet("services:").replace("./", f"{folder}/"))
            try:
                self.visit(override, certificate)
            finally:
                stack().compose("up", "--detach", "--no-deps", "--no-build", "envoy")
                stack().await_healthy("envoy")

    def visit(self, override: Path, certificate: Path) -> None:
        stack().compose("up", "--detach", "--no-deps", "--no-build", "envoy", override=override)
        stack().await_healthy("envoy")
        visitor = Browser(stack().port, ssl.create_default_context(cafile=certificate))
        first = visitor.get()
        (cookie,) = first.headers.get_all("set-cookie")
        self.assertRegex(cookie, r"^__Host-session=[\w-]+; Path=/; Secure; HttpOnly; SameSite=Lax$")
        self.assertEqual({page.session for page in visitor.both()}, {first.session})
