"""The containers of envoy/docker-compose.yaml, brought up once for all tests of this folder.

Run by scripts/docker-test.sh, which gives them a Docker engine of their own.
"""

import atexit
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "envoy/docker-compose.yaml"
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
FILTER = f"session-mesh/filter:{VERSION}"
GATEWAY = f"session-mesh/gateway:{VERSION}"
ENVOY = f"session-mesh/envoy:{VERSION}"
# Both generations of docker-compose read the file; one of them runs it.
COMPOSES = {"1": "docker-compose", "2": os.environ["DOCKER_TEST_COMPOSE_2"]}
COMPOSE = os.environ["DOCKER_TEST_COMPOSE"]
# How long a condition may take to come true. Generous: it only matters when something is broken.
PATIENCE = 120
# A build compiles everything once.
BUILD_PATIENCE = 1800


def run(*command: str | Path, check: bool = True, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Runs a command; one that fails fails the test, with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done


def variables(file: Path) -> dict[str, str]:
    """What a file in the form of envoy/.env sets."""
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def docker(*arguments: str | Path, **options: Any) -> str:
    return run("docker", *arguments, **options).stdout


def inspect(thing: str) -> Any:
    return json.loads(docker("inspect", thing))[0]


def eventually(what: str, condition: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.1)


def compose(
    env_file: Path, *arguments: str, version: str = COMPOSE, override: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """docker-compose with the variables of that file only, and with the changes in another one."""
    files = [f"--file={file}" for file in (COMPOSE_FILE, override) if file]
    return run(COMPOSES[version], *files, "--env-file", env_file, *arguments, **options)


@dataclass
class Stack:
    """The running containers."""

    env_file: Path
    port: int

    @property
    def variables(self) -> dict[str, str]:
        return variables(self.env_file)

    def compose(self, *arguments: str, **options: Any) -> str:
        return compose(self.env_file, *arguments, **options).stdout

    @functools.cached_property
    def services(self) -> list[str]:
        return self.compose("config", "--services").split()

    def container(self, service: str) -> Any:
        """What Docker knows about the service's container."""
        # By its labels, as docker-compose finds it, which takes a second each time.
        labels = {"project": self.variables["COMPOSE_PROJECT_NAME"], "service": service}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        return inspect(docker("ps", "--all", "--quiet", *filters).strip())

    def address(self, service: str) -> str:
        """The container's address, which this machine reaches as the host of the engine."""
        networks = self.container(service)["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"]

    def is_healthy(self, service: str) -> bool:
        return self.container(service)["State"]["Health"]["Status"] == "healthy"

    def await_healthy(self, *services: str) -> None:
        for service in services or self.services:
            try:
                eventually(f"{service} is healthy", functools.partial(self.is_healthy, service))
            except AssertionError as error:
                error.add_note(self.compose("logs", "--no-color", "--tail", "20", service))
                raise

    def crash(self, service: str) -> None:
        """Kills the container's main process, as a bug or a lack of memory would: Docker starts it again."""
        before = self.container(service)
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def is_back() -> bool:
            now = self.container(service)
            return now["RestartCount"] > before["RestartCount"] and now["State"]["Running"]

        eventually(f"{service} is started again", is_back)
        self.await_healthy(service)

    @contextmanager
    def killed(self, *services: str) -> Iterator[None]:
        """While these are killed, and stay so; afterwards they are started again."""
        self.compose("kill", *services)
        try:
            yield
        finally:
            self.compose("start", *services)
            self.await_healthy(*services)

    def logs(self) -> str:
        return self.compose("logs", "--no-color")

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "1")


def build(target: str, image: str) -> None:
    """Builds one of the Dockerfile's images, as its first lines say."""
    docker("build", "--target", target, "--tag", image, ROOT, patience=BUILD_PATIENCE)


@functools.cache
def start() -> Stack | AssertionError:
    """Starts everything, as docs/deploy/compose.md says."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    env_file = folder / "env"
    run(ROOT / "scripts/docker-env.sh", env_file)
    # The engine's network is its own, so no port is taken.
    started = Stack(env_file, port=10000)
    try:
        build("filter", FILTER)
        up = ["up", "--detach"]
        if COMPOSE == "1":
            up.append("--build")
        else:
            # It builds by a plugin of Docker that Debian doesn't have.
            build("gateway", GATEWAY)
            build("envoy", ENVOY)
        atexit.register(started.down)
        started.compose(*up, patience=BUILD_PATIENCE)
        started.await_healthy()
    except AssertionError as error:
        return error
    return started


def stack() -> Stack:
    """The running containers; started at the first call. What could not be started is not tried again."""
    outcome = start()
    if isinstance(outcome, AssertionError):
        raise AssertionError("the containers could not be started") from outcome
    return outcome
