"""What a gateway still serves when it is asked for more than it can: `./bench.sh --overload`.

The gateway is alone on one CPU, with one worker. First h2load asks as fast as it gets answers, which shows the most that is
served; then it asks at fixed rates, whatever comes back (an open loop), as many Envoys would.
"""

import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from processes import BenchError, Cpus, Server, pinned
from results import markdown
from topology import LOOPBACK, free_port, get

CLIENTS = 32
STREAMS = 100
# The closed loop keeps the gateway busy without making anything wait for long.
CLOSED_STREAMS = 4
LOADS = (0.5, 1.0, 2.0, 3.0)
FILTER_TIMEOUT_MS = 250.0
SESSION = "00112233445566778899aabbccddeeff"


@dataclass(frozen=True)
class Seen:
    """What came back in one run; rates are per second."""

    asked: float
    served: float
    refused: float
    p50_ms: float
    p99_ms: float


def run(gateway: Path, memcached: str, rounds: int, seconds: int, cpus: Cpus, folder: Path) -> str:
    """Overloads a gateway on each store, and says in a table what it served."""
    lines = []
    # With one copy and with two: a session with two copies is on both of its nodes.
    nodes = [free_port() for _ in range(3)]
    one, two, three = (f"{LOOPBACK}:{port}" for port in nodes)
    stores = {
        "memory": "memory:",
        "memcached": f"memcached://{one}",
        "memcached, two copies": f"memcached://{two},{three}?replicas=2",
    }
    with ExitStack() as stack:
        for port in nodes:
            node_command = [memcached, "-u", "nobody", "-l", LOOPBACK, "-p", str(port), "-t", "1"]
            stack.callback(Server(f"memcached-{port}", node_command, cpus.rest, folder, {}).stop)
        for name, store in stores.items():
            lines += overload(gateway, name, store, rounds, seconds, cpus, folder)
    head = ["store, load", "asked/s", "served/s", "of the best", "refused/s", "p50 ms", "p99 ms"]
    return markdown(head, lines)


def overload(
    gateway: Path, name: str, store: str, rounds: int, seconds: int, cpus: Cpus, folder: Path
) -> list[list[str]]:
    """One line for the best and one for each load, of medians over the rounds, which interleave the loads."""
    token = secrets.token_urlsafe(24)
    port, admin_port = free_port(), free_port()
    listen = ["--listen", f"{LOOPBACK}:{port}", "--admin-listen", f"{LOOPBACK}:{admin_port}"]
    command = [str(gateway), "--store", store, "--workers", "1", *listen]
    env = {"SESSION_GATEWAY_TOKEN": token}
    server = Server(f"gateway-{name}", command, cpus.under_test, folder, env)
    try:
        server.wait_until("ready", lambda: get(admin_port, "/readyz").status == 200 or None)
        server.wait_until("able to store", lambda: create(port, token))
        load = Load(port, token, seconds, cpus.rest, folder)
        best: list[Seen] = []
        open_loop: dict[float, list[Seen]] = {times: [] for times in LOADS}
        for number in range(1, rounds + 1):
            best.append(load.closed())
            for times, seen in open_loop.items():
                seen.append(load.open(times * median(one.served for one in best)))
                server.check_alive()
            print(f"{name}: round {number} of {rounds}", file=sys.stderr, flush=True)
    finally:
        server.stop()
    most = median(one.served for one in best)
    rows = [(f"{name}, as fast as answered", best), *((f"{name}, {times:g}x", seen) for times, seen in open_loop.items())]
    return [line(title, seen, most) for title, seen in rows]


def line(title: str, seen: Sequence[Seen], most: float) -> list[str]:
    served = median(one.served for one in seen)
    p99 = median(one.p99_ms for one in seen)
    rates = (median(one.asked for one in seen), served, median(one.refused for one in seen))
    asked, _, refused = (f"{rate:.0f}" for rate in rates)
    mark = "" if p99 < FILTER_TIMEOUT_MS else " (!)"
    return [
        title,
        asked,
        f"{served:.0f}",
        f"{served / most:.0%}",
        refused,
        f"{median(one.p50_ms for one in seen):.1f}",
        f"{p99:.1f}{mark}",
    ]


def create(port: int, token: str) -> bool | None:
    """Stores the session that is asked for. `None` as long as the gateway can't."""
    connection = HTTPConnection(LOOPBACK, port, timeout=10)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    data = '{"user":"alice","cart":{"items":2,"total":"18.40"},"theme":"dark"}'
    connection.request("PUT", f"/v1/sessions/{SESSION}", data, headers)
    status = connection.getresponse().status
    connection.close()
    if status not in (201, 409, 503):
        raise BenchError(f"the gateway answered {status} to the creation of a session")
    return status != 503 or None


class Load:
    """Lookups as the filter makes them, over HTTP/2."""

    def __init__(self, port: int, token: str, seconds: int, cpus: frozenset[int], folder: Path) -> None:
        self._url = f"http://{LOOPBACK}:{port}/v1/sessions/{SESSION}?touch"
        self._headers = ("-H", f"authorization: Bearer {token}", "-H", "session-touch-after: 60")
        self._seconds = seconds
        self._cpus = cpus
        self._log = folder / "h2load.log"

    def closed(self) -> Seen:
        """Asks again with each answer."""
        return self._run(["-m", str(CLOSED_STREAMS)])

    def open(self, rate: float) -> Seen:
        """Asks so many times a second."""
        return self._run(["-m", str(STREAMS), "--rps", f"{rate / CLIENTS:.1f}"])

    def _run(self, options: Sequence[str]) -> Seen:
        self._log.unlink(missing_ok=True)
        command = ["h2load", "-c", str(CLIENTS), "-D", str(self._seconds), "--warm-up-time", "1"]
        command += [*options, "--log-file", str(self._log), *self._headers, self._url]
        # h2load's log knows each answer; its own figures mix those that were served with those that were refused.
        finished = subprocess.run(pinned(command, self._cpus), capture_output=True, text=True, check=False)
        if finished.returncode != 0 or not self._log.exists():
            raise BenchError(f"h2load failed: {finished.stderr.strip() or finished.stdout.strip()}")
        answers = [tuple(map(int, row.split("\t"))) for row in self._log.read_text().splitlines()]
        took = sorted(micros for _, status, micros in answers if status == 200)
        refused = sum(1 for _, status, _ in answers if status == 503)
        if strange := {status for _, status, _ in answers} - {200, 503}:
            raise BenchError(f"the gateway answered {', '.join(map(str, sorted(strange)))}")
        if not took:
            raise BenchError(f"the gateway served none of {len(answers)} calls")
        return Seen(
            asked=len(answers) / self._seconds,
            served=len(took) / self._seconds,
            refused=refused / self._seconds,
            p50_ms=took[len(took) // 2] / 1e3,
            p99_ms=took[len(took) * 99 // 100] / 1e3,
        )
