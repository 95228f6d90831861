"""Load on one Envoy: one run of wrk."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import BenchError, pinned

REPORT = Path(__file__).with_name("report.lua")


@dataclass(frozen=True)
class Load:
    """What wrk saw in one run."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def run_wrk(
    url: str, headers: Sequence[str], connections: int, seconds: float, cpus: frozenset[int], script: Path = REPORT
) -> Load:
    """Asks for `url` on all connections at once until the time is over; fails if any answer was no success."""
    # One thread: on the machines this runs on, wrk never is what limits a row.
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"]
    command += [argument for header in headers for argument in ("--header", header)]
    finished = subprocess.run(
        pinned([*command, "--script", str(script), url], cpus), capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        raise BenchError(f"wrk failed: {finished.stderr.strip() or finished.stdout.strip()}")
    report: dict[str, int] = json.loads(finished.stdout.splitlines()[-1])
    problems = [f"{report[kind]} {kind}" for kind in ("refused", "broken", "timeouts") if report[kind]]
    if problems or report["requests"] == 0:
        raise BenchError(f"of {report['requests']} requests to {url}: {', '.join(problems) or 'none answered'}")
    return Load(
        requests=report["requests"],
        seconds=report["microseconds"] / 1e6,
        p50_ms=report["p50_us"] / 1e3,
        p99_ms=report["p99_us"] / 1e3,
    )
