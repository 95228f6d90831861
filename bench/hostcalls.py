"""Which calls between Envoy and a wasm filter one request makes, counted in Envoy's own trace."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from results import markdown
from rows import Row, Sessions
from topology import FLOOR, NOOP, SESSION_MESH, SESSION_MESH_COLD, Topology, get

# What makes Envoy log every such call.
TRACE = ("--component-log-level", "wasm:trace")

CALL = re.compile(r"\[(host->vm|vm->host)\] (?:[a-z0-9_]+\.)?([a-z0-9_]+)\(")
LAST_CALLBACK = "proxy_on_delete("
# Envoy calls this in the middle of hostcalls that return bytes: a part of them.
ALLOCATION = "proxy_on_memory_allocate"


def count(topology: Topology, rows: Sequence[Row], sessions: Sessions) -> dict[str, Counter[tuple[str, str]]]:
    """For each row with a wasm filter: how often each call was made, by direction and name."""
    counts = {}
    for row in rows:
        if row.proxy not in (NOOP, FLOOR, SESSION_MESH, SESSION_MESH_COLD):
            continue
        envoy = topology.envoys[row.proxy]
        # A first request may refill a stock of random ids or open a connection; the second one is like all others.
        trace_of_request(topology, row, sessions)
        calls = CALL.findall(trace_of_request(topology, row, sessions))
        envoy.server.check_alive()
        counts[row.key] = Counter((direction, name) for direction, name in calls if name != ALLOCATION)
    return counts


def trace_of_request(topology: Topology, row: Row, sessions: Sessions) -> str:
    """What Envoy logs about one request, up to the end of its stream."""
    envoy = topology.envoys[row.proxy]
    start = len(envoy.server.log())

    def complete() -> str | None:
        trace = envoy.server.log()[start:]
        return trace if LAST_CALLBACK in trace else None

    get(envoy.port("under_test"), "/", row.cookie(sessions))
    return envoy.server.wait_until("through with a request", complete)


def table(counts: Mapping[str, Counter[tuple[str, str]]]) -> str:
    """One line for each call, one column for each row of the bench."""
    lines = []
    for direction, title in (("vm->host", "hostcalls"), ("host->vm", "callbacks")):
        totals = [sum(number for (way, _), number in row.items() if way == direction) for row in counts.values()]
        lines.append([f"**{title}**", *(f"**{total}**" for total in totals)])
        names = dict.fromkeys(name for row in counts.values() for way, name in row if way == direction)
        lines += [[name, *(str(row[direction, name] or "") for row in counts.values())] for name in names]
    return markdown(["call", *counts], lines)
