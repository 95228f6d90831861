"""Whether Envoy's memory stays where it is, however many clients come: `./bench.sh --flood`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from load import REPORT, run_wrk
from processes import BenchError, Cpus
from results import markdown
from topology import LOOPBACK, SESSION_MESH_FEW_SLOTS, Topology

STRANGERS = Path(__file__).with_name("strangers.lua")
MEBIBYTE = 1 << 20
# The first clients fill the slots and the pools of everything on the way. Memory counts from then on.
WARM_UP_SHARE = 0.2
TURN_SECONDS = 2.0
# A machine that is slower than this gets a smaller flood, and is told so.
LIMIT_SECONDS = 480.0


@dataclass(frozen=True)
class Wave:
    """One kind of client, each of whose requests is the first of another one."""

    title: str
    path: str
    script: Path = REPORT


WAVES = (
    Wave("without a cookie", "/"),
    Wave("with a forged token each", "/", STRANGERS),
    # The application writes to the session of each, which thereby gets stored, and cached.
    Wave("with a new stored session each", "/write"),
)


def run(topology: Topology, clients: int, connections: int, cpus: Cpus) -> str:
    """Sends each wave, and says in a table what it did to the memory of Envoy."""
    envoy = topology.envoys[SESSION_MESH_FEW_SLOTS]
    lines = []
    for wave in WAVES:
        url = f"http://{LOOPBACK}:{envoy.port('under_test')}{wave.path}"
        sent, before, deadline = 0, 0, monotonic() + LIMIT_SECONDS
        while sent < clients and monotonic() < deadline:
            sent += run_wrk(url, (), connections, TURN_SECONDS, cpus.rest, wave.script).requests
            envoy.server.check_alive()
            if not before and sent >= clients * WARM_UP_SHARE:
                before = envoy.server.resident_bytes()
        if not before:
            raise BenchError(f"only {sent} clients {wave.title} in {LIMIT_SECONDS:.0f} s: too few to judge memory by")
        after = envoy.server.resident_bytes()
        print(f"{sent} clients {wave.title}: {after / MEBIBYTE:.1f} MiB", file=sys.stderr, flush=True)
        memory = (f"{before / MEBIBYTE:.1f}", f"{after / MEBIBYTE:.1f}", f"{(after - before) / MEBIBYTE:+.1f}")
        lines.append([wave.title, str(sent), *memory])
    return markdown(["clients", "how many", f"MiB after {WARM_UP_SHARE:.0%}", "MiB after all", "growth"], lines)
