"""The processes of a bench: started on a CPU of their own, looked at through /proc, ended with the bench.

topology.py starts the servers here and load.py runs wrk here.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

START_SECONDS = 20.0
STOP_SECONDS = 10.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


class BenchError(Exception):
    """What a person has to be told when a bench can't go on."""


@dataclass(frozen=True)
class Cpus:
    """Where processes run: the Envoy under test alone on one CPU, everything else on the others."""

    under_test: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cpus":
        """With a single CPU everything shares it."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others or {first}))

    @property
    def are_apart(self) -> bool:
        return self.under_test.isdisjoint(self.rest)


def pinned(command: Sequence[str], cpus: frozenset[int]) -> list[str]:
    """The command on these CPUs; it ends with this process, however that ends."""
    cpu_list = ",".join(map(str, sorted(cpus)))
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", cpu_list, *command]


class Server:
    """A process that runs until `stop`; what it prints goes to a log file."""

    def __init__(
        self, name: str, command: Sequence[str], cpus: frozenset[int], folder: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the bench only, which then ends its servers in order.
            self._process = subprocess.Popen(
                pinned(command, cpus),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    def wait_until(self, what: str, probe: Callable[[], T | None]) -> T:
        """The probe's first answer that isn't None. Refused connections are no answer yet."""
        deadline = monotonic() + START_SECONDS
        while monotonic() < deadline:
            self.check_alive()
            try:
                answer = probe()
            except OSError:
                answer = None
            if answer is not None:
                return answer
            sleep(0.02)
        raise self.error(f"was not {what} within {START_SECONDS:.0f} s")

    def error(self, problem: str) -> BenchError:
        """The problem with the end of the server's log."""
        log = self.log().splitlines()[-20:]
        return BenchError("\n".join([f"{self.name} {problem}; its log ends with:", *(f"  {line}" for line in log)]))

    def log(self) -> str:
        """What the server has printed so far."""
        return self._log.read_text(errors="replace")

    def check_alive(self) -> None:
        if self._process.poll() is not None:
            raise self.error(f"ended by itself with status {self._process.returncode}")

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, in steps of a clock tick (10 ms)."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        # proc(5): the command's name may hold spaces, so fields are counted from behind its ")".
        # utime and stime are fields 14 and 15, state (the first one here) is field 3.
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def cpu_nanoseconds(self) -> int:
        """User and system time of all threads so far, exactly. Threads that have ended do not count."""
        # Documentation/scheduler/sched-stats.rst: the first field is the time on a CPU in nanoseconds.
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def resident_bytes(self) -> int:
        """The memory that the server holds right now."""
        # proc_pid_statm(5): pages; the second field is the resident set.
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def machine_busy_seconds() -> float:
    """CPU time that all programs of the machine, and other machines on the same hardware, have used so far."""
    # proc_stat(5): user nice system idle iowait irq softirq steal. Most kernels charge interrupts, which is
    # where loopback traffic arrives, to the interrupted process as well: they are part of what it used.
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
