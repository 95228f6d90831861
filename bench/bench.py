"""The bench that bench.sh runs: rounds over all rows, then the table. See docs/performance.md."""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import copies
import flood
import hostcalls
import overload
from load import Load, run_wrk
from processes import BenchError, Cpus, machine_busy_seconds
from results import Measurement, Summary, summarize, table, verdicts
from rows import ROWS, Row, Sessions, check, open_sessions
from topology import LOOPBACK, SESSION_MESH, SESSION_MESH_FEW_SLOTS, Binaries, Envoy, Topology, missing

# Code that V8 and LuaJIT have not yet compiled for good, and connections to upstreams, belong to no round.
WARM_UP_SECONDS = 2.0
# The share of a machine that others may use before the figures are called doubtful.
FOREIGN_CPU_LIMIT = 0.05
# Besides the requests that were under way when wrk stopped, which Envoy counts and wrk does not: a cached
# session is read again every few seconds.
CALLOUT_TOLERANCE = 0.02


def main() -> None:
    options = parse_arguments()
    # An end from outside goes the way of Ctrl-C: through the context managers that stop what was started.
    signal.signal(signal.SIGTERM, end)
    try:
        run(options)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")


def end(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> None:
    rows = [row for row in ROWS if options.only is None or row.key in options.only or row.key == "bare"]
    cpus = Cpus.of_this_machine()
    binaries = Binaries(
        options.envoy, options.gateway, options.session_mesh_wasm, options.noop_wasm, options.floor_wasm
    )
    if absent := missing(binaries):
        raise BenchError(f"missing: {', '.join(map(str, absent))}; bench.sh builds and installs them")
    if options.overload:
        with tempfile.TemporaryDirectory(prefix="session-mesh-bench-") as folder:
            print(overload.run(options.gateway, options.memcached, options.rounds, options.duration, cpus, Path(folder)))
        return
    if options.copies:
        with tempfile.TemporaryDirectory(prefix="session-mesh-bench-") as folder:
            print(copies.run(options.gateway, options.memcached, options.rounds, cpus, Path(folder)))
        return
    # SESSION_MESH also hands out the cookies of other rows.
    proxies = list(dict.fromkeys([*(row.proxy for row in rows), SESSION_MESH]))
    if options.flood:
        proxies = [SESSION_MESH_FEW_SLOTS]
    with (
        tempfile.TemporaryDirectory(prefix="session-mesh-bench-") as folder,
        Topology(
            binaries,
            proxies,
            cpus,
            Path(folder),
            direct=options.direct,
            http1_callouts=options.http1_callouts,
            envoy_arguments=hostcalls.TRACE if options.hostcalls else (),
        ) as topology,
    ):
        if options.flood:
            print(flood.run(topology, options.flood, options.connections, cpus))
            return
        sessions = open_sessions(topology.envoys[SESSION_MESH].port("under_test"))
        for row in rows:
            check(row, topology.envoys[row.proxy], sessions)
        if options.hostcalls:
            print(hostcalls.table(hostcalls.count(topology, rows, sessions)))
            return
        rounds = measure(options, topology, rows, sessions, cpus)
    summaries = [summarize(row.key, row.title, rounds[row.key], rounds["bare"]) for row in rows]
    print_report(options, cpus, rounds, summaries)
    if options.json:
        report = {
            "machine": machine(),
            "envoy": envoy_version(options.envoy),
            "options": {"rounds": options.rounds, "duration": options.duration, "connections": options.connections}
            | {"direct": options.direct, "http1_callouts": options.http1_callouts},
            "rows": [asdict(one) | {"rounds": [asdict(turn) for turn in rounds[one.key]]} for one in summaries],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(
    options: argparse.Namespace, topology: Topology, rows: Sequence[Row], sessions: Sessions, cpus: Cpus
) -> dict[str, list[Measurement]]:
    """All rounds, by row; the rows take turns."""
    rounds: dict[str, list[Measurement]] = {row.key: [] for row in rows}
    for number in range(options.rounds + 1):
        for row in rows:
            label = f"round {number} of {options.rounds}" if number else "warm-up"
            progress(f"{label}: {row.title}")
            seconds = options.duration if number else min(WARM_UP_SECONDS, options.duration)
            turn = take_turn(topology, row, sessions, options.connections, seconds, cpus)
            if number:
                rounds[row.key].append(turn)
                progress(f"{label}: {row.title}: {turn.cpu_us:.1f} us, {turn.rate:.0f} req/s", ended=True)
    return rounds


def take_turn(
    topology: Topology, row: Row, sessions: Sessions, connections: int, seconds: float, cpus: Cpus
) -> Measurement:
    envoy = topology.envoys[row.proxy]
    cookie = row.cookie(sessions)
    url = f"http://{LOOPBACK}:{envoy.port('under_test')}/"
    headers = [f"Cookie: {cookie}"] if cookie else []

    # Asking Envoy for its counters costs Envoy CPU: outside of the window in which its CPU is read.
    before = counters(envoy)
    foreign = foreign_cpu_seconds(topology)
    cpu = envoy.server.cpu_seconds()
    load = run_wrk(url, headers, connections, seconds, cpus.rest)
    cpu = envoy.server.cpu_seconds() - cpu
    foreign = foreign_cpu_seconds(topology) - foreign
    grown = {name: value - before.get(name, 0) for name, value in counters(envoy).items()}

    for server in topology.servers:
        server.check_alive()
    return Measurement(
        requests=load.requests,
        seconds=load.seconds,
        cpu_seconds=cpu,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        callouts=checked_callouts(row, grown, load, connections),
        foreign_cpu_seconds=max(foreign, 0.0),
    )


def counters(envoy: Envoy) -> dict[str, int]:
    return envoy.counters(r"^(http\.under_test\.downstream_rq_[1-5]xx|cluster\.[a-z_]*\.upstream_rq_total)$")


def checked_callouts(row: Row, grown: dict[str, int], load: Load, connections: int) -> int:
    """How many callouts a turn made; fails if it made others than the row says, or had answers other than 2xx."""
    others = {name: count for name, count in grown.items() if name.endswith(("1xx", "3xx", "4xx", "5xx")) and count}
    if others:
        raise BenchError(f"row {row.key}: answers other than 2xx: {others}")
    total = 0
    for cluster in ("session_gateway", "authorizer"):
        count = grown.get(f"cluster.{cluster}.upstream_rq_total", 0)
        expected = load.requests if cluster == row.callout else 0
        if abs(count - expected) > CALLOUT_TOLERANCE * load.requests + connections:
            raise BenchError(f"row {row.key}: {count} calls to {cluster}, expected {expected}")
        total += count
    return total


def foreign_cpu_seconds(topology: Topology) -> float:
    """The machine's CPU time so far, less that of the bench, its servers and its wrk runs."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return machine_busy_seconds() - own - sum(server.cpu_seconds() for server in topology.servers)


def print_report(
    options: argparse.Namespace, cpus: Cpus, rounds: dict[str, list[Measurement]], summaries: Sequence[Summary]
) -> None:
    turns = [turn for turns in rounds.values() for turn in turns]
    cores = len(cpus.under_test | cpus.rest)
    foreign = sum(turn.foreign_cpu_seconds for turn in turns) / sum(turn.seconds for turn in turns) / cores
    placed = (
        "Envoy under test alone on one CPU, wrk, upstream and gateway on the others"
        if cpus.are_apart
        else "one CPU for everything: rates and latencies are not Envoy's"
    )
    answers = "answered by the Envoy under test itself" if options.direct else "proxied to a second Envoy"
    print()
    print(table(summaries))
    print()
    print(f"Medians of {options.rounds} interleaved rounds of {options.duration} s; {options.connections} connections,")
    callouts = "HTTP/1.1" if options.http1_callouts else "HTTP/2"
    print(f"HTTP/1.1, {answers}, callouts over {callouts}; {placed}.")
    print("CPU is that of the whole Envoy process (1 worker), user and system. 'over bare' and the ratios compare")
    print("within a round; ± is half the distance between the quartiles. ext_authz asks an Envoy that grants at once.")
    print(f"Machine: {machine()}; Envoy {envoy_version(options.envoy)}.")
    print(f"Other programs and machines used {foreign:.1%} of it.")
    for line in verdicts(summaries):
        print(f"Target: {line}.")
    if foreign > FOREIGN_CPU_LIMIT:
        print("The machine was not idle: measure again before you trust small differences.")


def machine() -> str:
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    models = [fact.partition(":")[2].strip() for fact in facts if fact.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else platform.machine()}, Linux {platform.release()}"


def envoy_version(binary: Path) -> str:
    """Such as 1.40.0."""
    finished = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    # The output ends with the commit, the version, the state of the source, the build and the TLS library.
    _, _, version = finished.stdout.rpartition("version: ")
    return version.strip().split("/")[1] if version.count("/") > 1 else "of an unknown version"


def progress(text: str, *, ended: bool = False) -> None:
    """On a terminal one line that changes; elsewhere only what is worth keeping."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if ended else "", file=sys.stderr, flush=True)
    elif ended:
        print(text, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    keys = [row.key for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="./bench.sh",
        description="Measures what the session filter costs in Envoy, next to what else could be done there.",
        epilog="rows:\n" + "\n".join(f"  {row.key:<10} {row.title}" for row in ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, unit, default, what in (
        ("rounds", "N", 7, "measured rounds"),
        ("duration", "SECONDS", 4, "length of a row's turn in a round"),
        ("connections", "N", 32, "open connections"),
    ):
        help_text = f"{what} (default {default})"
        parser.add_argument(f"--{name}", type=positive, metavar=unit, default=default, help=help_text)
    parser.add_argument("--direct", action="store_true", help="let the Envoy under test answer instead of an upstream")
    parser.add_argument(
        "--http1-callouts", action="store_true", help="make all callouts over HTTP/1.1 instead of HTTP/2"
    )
    parser.add_argument(
        "--only", type=lambda text: chosen(text, keys), metavar="ROW,...", help="only these rows, and bare Envoy"
    )
    parser.add_argument(
        "--hostcalls", action="store_true", help="measure nothing: list the calls between Envoy and the wasm filters"
    )
    parser.add_argument(
        "--flood",
        type=positive,
        nargs="?",
        const=1_000_000,
        metavar="CLIENTS",
        help="measure no time: send so many clients of each kind (default 1000000), and watch Envoy's memory",
    )
    parser.add_argument(
        "--overload",
        action="store_true",
        help="measure no filter: ask a gateway alone for up to 3 times as many lookups as it can serve",
    )
    parser.add_argument(
        "--copies",
        action="store_true",
        help="measure no filter: what a second copy of each session costs the gateway and memcached",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures of all rounds to FILE")
    # bench.sh says where things are.
    for name in ("envoy", "gateway", "memcached", "session-mesh-wasm", "noop-wasm", "floor-wasm"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def chosen(text: str, keys: Sequence[str]) -> list[str]:
    wanted = text.split(",")
    if unknown := [key for key in wanted if key not in keys]:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)} (there are {', '.join(keys)})")
    return wanted


if __name__ == "__main__":
    main()
