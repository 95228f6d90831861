"""What tools.sh makes of the machine that it finds."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).with_name("tools.sh")


def need_envoy(said: str) -> subprocess.CompletedProcess[str]:
    """Runs need_envoy, as the commands do, with an Envoy that says this about a filter that is none, and fails."""
    with tempfile.TemporaryDirectory() as folder:
        envoy = Path(folder, "envoy")
        envoy.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        envoy.chmod(0o755)
        script = 'set -euo pipefail; source "$1"; need_envoy; echo "$ENVOY"'
        command = ["bash", "-c", script, "bash", TOOLS]
        return subprocess.run(command, env=os.environ | {"ENVOY": str(envoy)}, capture_output=True, text=True, check=False)


class Envoy(unittest.TestCase):
    def test_one_without_wasm_is_refused(self) -> None:
        refused = need_envoy("Failed to create Wasm VM using envoy.wasm.runtime.v8 runtime. Envoy was compiled without support for it")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("was built without wasm", refused.stderr)

    def test_one_with_wasm_is_taken(self) -> None:
        taken = need_envoy("Wasm VM failed Missing or unknown Proxy-Wasm ABI version")
        self.assertEqual(taken.returncode, 0, taken.stderr)
        self.assertTrue(taken.stdout.strip().endswith("/envoy"))


if __name__ == "__main__":
    unittest.main()
