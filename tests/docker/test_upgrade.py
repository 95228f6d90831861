"""Another version of the gateway's image, and back again, while a visitor is there."""

import re
import threading
import unittest

from browser import Browser
from stack import GATEWAY, ROOT, Stack, docker, stack


class Upgrade(unittest.TestCase):
    def change_version(self, started: Stack, version: str) -> None:
        before = started.env_file.read_text()
        after = re.sub(r"(?m)^SESSION_MESH_VERSION=.*$", f"SESSION_MESH_VERSION={version}", before)
        started.env_file.write_text(after)

    def test_and_rollback_of_the_gateway(self) -> None:
        started = stack()
        first = started.variables["SESSION_MESH_VERSION"]
        upgraded = f"session-mesh/gateway:{first}-next"
        docker("build", "--quiet", "--target", "gateway", "--label", "upgraded=yes", "--tag", upgraded, ROOT)
        visitor = Browser(started.port)
        session = visitor.get().session
        visitor.get("/other")

        answers, over = [], threading.Event()

        def visit() -> None:
            while not over.is_set():
                page = visitor.get()
                answers.append((page.status, page.session))

        visits = threading.Thread(target=visit)
        visits.start()
        try:
            for version in [f"{first}-next", first]:
                self.change_version(started, version)
                started.compose("up", "--detach", "--no-deps", "--no-build", "gateway")
                started.await_healthy("gateway")
                self.assertEqual(started.container("gateway")["Config"]["Image"], GATEWAY.replace(first, version))
        finally:
            self.change_version(started, first)
            over.set()
            visits.join()
        # Envoy's copy of the session fills the gap.
        self.assertEqual(set(answers), {(200, session)})
        self.assertEqual(visitor.get("/other").visits, "2")
