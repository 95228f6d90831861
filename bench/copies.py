"""What a second copy costs: `./bench.sh --copies`.

A gateway on one memcached with one copy, and one on two memcacheds with two copies. They take turns in small portions, in
shuffled order within each round, so that whatever else the machine does meets all of them alike. A difference is the median
of those within a round, with the standard error of a median.
"""

import json
import random
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from math import pi, sqrt
from pathlib import Path
from statistics import median, stdev
from time import perf_counter

from processes import BenchError, Cpus, Server
from results import markdown
from topology import LOOPBACK, SESSION_DATA, free_port, get

SESSION = "00112233445566778899aabbccddeeff"
PORTION = 300
# A method, headers, and a body.
CALLS = {
    "read": ("GET", {}, None),
    "change": ("PATCH", {"content-type": "application/merge-patch+json"}, '{"n":1}'),
}


@dataclass(frozen=True)
class Portion:
    """Of one call: CPU time of the gateway and of its memcacheds, and the median time to the answer."""

    gateway_us: float
    nodes_us: float
    wall_us: float


class Setup:
    """A gateway, its memcacheds, and a client with one connection."""

    def __init__(
        self, copies: int, gateway: Path, memcached: str, cpus: Cpus, folder: Path, stack: ExitStack
    ) -> None:
        self._ports = [free_port() for _ in range(copies)]
        self._nodes = [
            self._keep(stack, Server(f"memcached-{copies}-{port}", node_command(memcached, port), cpus.rest, folder, {}))
            for port in self._ports
        ]
        store = f"memcached://{','.join(f'{LOOPBACK}:{port}' for port in self._ports)}?replicas={copies}"
        token = secrets.token_urlsafe(24)
        port, admin_port = free_port(), free_port()
        listen = ["--listen", f"{LOOPBACK}:{port}", "--admin-listen", f"{LOOPBACK}:{admin_port}"]
        command = [str(gateway), "--store", store, "--workers", "1", *listen]
        env = {"SESSION_GATEWAY_TOKEN": token}
        self._gateway = self._keep(stack, Server(f"gateway-{copies}", command, cpus.under_test, folder, env))
        self._gateway.wait_until("ready", lambda: get(admin_port, "/readyz").status == 200 or None)
        self._connection = HTTPConnection(LOOPBACK, port, timeout=10)
        self._token = token
        headers = {"content-type": "application/json"}
        self._gateway.wait_until("able to store", lambda: self._send("PUT", headers, data()) in (201, 409) or None)

    @staticmethod
    def _keep(stack: ExitStack, server: Server) -> Server:
        stack.callback(server.stop)
        return server

    def portion(self, call: str) -> Portion:
        """Makes a call many times, one after the other."""
        gateway, nodes = self._gateway.cpu_nanoseconds(), self._node_nanoseconds()
        took = []
        for _ in range(PORTION):
            begun = perf_counter()
            self.make(call)
            took.append(perf_counter() - begun)
        gateway, nodes = self._gateway.cpu_nanoseconds() - gateway, self._node_nanoseconds() - nodes
        return Portion(gateway / PORTION / 1e3, nodes / PORTION / 1e3, median(took) * 1e6)

    def make(self, call: str) -> None:
        if (status := self._send(*CALLS[call])) != 200:
            raise self._gateway.error(f"answered {status} to a {call}")

    def operations(self, call: str) -> list[tuple[int, int]]:
        """How often each node is read from and written to for a call, apart from what the gateway does by itself."""
        calls = 100
        before = [counts(port) for port in self._ports]
        begun = perf_counter()
        for _ in range(calls):
            self.make(call)
        took = perf_counter() - begun
        made = [difference(counts(port), was) for port, was in zip(self._ports, before, strict=True)]
        # What a gateway does for its nodes without being asked is measured as long, and taken off.
        before = [counts(port) for port in self._ports]
        begun = perf_counter()
        while perf_counter() - begun < took:
            pass
        idle = [difference(counts(port), was) for port, was in zip(self._ports, before, strict=True)]
        return [
            (round((some[0] - none[0]) / calls), round((some[1] - none[1]) / calls))
            for some, none in zip(made, idle, strict=True)
        ]

    def _node_nanoseconds(self) -> int:
        return sum(node.cpu_nanoseconds() for node in self._nodes)

    def _send(self, method: str, headers: dict[str, str], body: str | None) -> int:
        authorized = {**headers, "authorization": f"Bearer {self._token}"}
        self._connection.request(method, f"/v1/sessions/{SESSION}", body, authorized)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


def run(gateway: Path, memcached: str, rounds: int, cpus: Cpus, folder: Path) -> str:
    """Measures both, and says in a table what the second copy adds."""
    with ExitStack() as stack:
        setups = [Setup(copies, gateway, memcached, cpus, folder, stack) for copies in (1, 2)]
        turns = [(copies, call) for copies in range(len(setups)) for call in CALLS]
        seen: dict[tuple[int, str], list[Portion]] = {turn: [] for turn in turns}
        for number in range(rounds + 1):
            for copies, call in random.sample(turns, len(turns)):
                portion = setups[copies].portion(call)
                # The first round warms up.
                if number:
                    seen[copies, call].append(portion)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        operations = {(copies, call): setups[copies].operations(call) for copies, call in turns}
    lines = [line for call in CALLS for line in lines_of(call, seen[0, call], seen[1, call], operations)]
    return markdown(["call", "copies", "gateway us", "memcached us", "answer us", "reads, writes of each node"], lines)


def lines_of(
    call: str, one: Sequence[Portion], two: Sequence[Portion], operations: dict[tuple[int, str], list[tuple[int, int]]]
) -> list[list[str]]:
    """A line for each number of copies. The second one has the differences."""
    fields = ("gateway_us", "nodes_us", "wall_us")
    first = [f"{median(getattr(portion, field) for portion in one):.0f}" for field in fields]
    second = [
        difference_of([getattr(portion, field) for portion in one], [getattr(portion, field) for portion in two])
        for field in fields
    ]
    shown = [", ".join(f"{reads}+{writes}" for reads, writes in operations[copies, call]) for copies in (0, 1)]
    return [[call, "1", *first, shown[0]], ["", "2", *second, shown[1]]]


def difference_of(one: Sequence[float], two: Sequence[float]) -> str:
    """The median of paired differences, with its standard error."""
    differences = [second - first for first, second in zip(one, two, strict=True)]
    error = sqrt(pi / 2) * stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else float("nan")
    return f"{median(differences):+.0f} ± {error:.0f}"


def counts(port: int) -> tuple[int, int]:
    """How many reads and writes a memcached has had."""
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        connection.sendall(b"stats\r\n")
        text = b""
        while not text.endswith(b"END\r\n"):
            if not (more := connection.recv(65536)):
                raise BenchError("memcached closed the connection")
            text += more
    stats = dict(line.split()[1:3] for line in text.decode().splitlines() if line.startswith("STAT"))
    return int(stats["cmd_get"]), int(stats["cmd_set"])


def difference(now: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
    return now[0] - before[0], now[1] - before[1]


def node_command(memcached: str, port: int) -> list[str]:
    return [memcached, "-u", "nobody", "-l", LOOPBACK, "-p", str(port), "-t", "1"]


def data() -> str:
    return json.dumps(SESSION_DATA)
