#!/usr/bin/env python3
"""Measures the memory that sessions take in a real memcached and in a real Envoy. Run by scripts/sizing.sh.

memcached: the gateway writes one session of each size; that record, byte for byte, is then stored under many ids, and memcached
says what they take. Envoy: that many new visitors are answered, each of whom gets a session and with it a slot of the cache, and
Envoy says how much more memory is in use.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

LOOPBACK = "127.0.0.1"
DATA_BYTES = (50, 200, 1000, 4000, 8000)
# Enough to make fixed costs negligible.
ITEMS = 20_000
SLOTS_FILLED = 8_000
# The maximum, so that visitors rarely share a slot.
SLOTS = 1_048_576
# Visitors before the measurement, for what Envoy allocates only once.
WARM_UP = 2_000
PIPELINED = 50
PATIENCE_SECONDS = 30.0


class SizingError(Exception):
    """What a person has to be told when a measurement can't go on."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def wait_until(what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise SizingError(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(port: int, path: str) -> bool:
    try:
        return get(port, path)[0] == 200
    except OSError:
        return False


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield process
    except SizingError as error:
        end = log.read_text(errors="replace")[-2000:]
        raise SizingError(f"{error}\n---- end of {log.name} ----\n{end}") from error
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def data_of(size: int, **members: str) -> str:
    """A JSON object of exactly this many bytes, as the gateway writes it."""
    empty = json.dumps({**members, "d": ""}, separators=(",", ":"))
    text = json.dumps({**members, "d": "x" * (size - len(empty))}, separators=(",", ":"))
    assert len(text) == size
    return text


class Memcached:
    """A connection to a memcached, in its text protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=PATIENCE_SECONDS)
        self._reader = self._socket.makefile("rb")

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def get(self, key: str) -> bytes:
        self._socket.sendall(f"get {key}\r\n".encode())
        head = self._reader.readline().split()
        if not head or head[0] != b"VALUE":
            raise SizingError(f"memcached has no {key}")
        value = self._reader.read(int(head[3]))
        self._reader.read(len(b"\r\nEND\r\n"))
        return value

    def put_many(self, keys: list[str], value: bytes) -> None:
        for key in keys:
            self._socket.sendall(f"set {key} 0 3600 {len(value)} noreply\r\n".encode() + value + b"\r\n")

    def statistics(self, what: str = "") -> dict[str, int]:
        self._socket.sendall(f"stats {what}".strip().encode() + b"\r\n")
        found = {}
        while (line := self._reader.readline().split()) and line[0] == b"STAT":
            if line[2].isdigit():
                found[line[1].decode()] = int(line[2])
        return found

    def flush(self) -> None:
        self._socket.sendall(b"flush_all\r\n")
        self._reader.readline()


def session_ids(count: int) -> list[str]:
    return [secrets.token_hex(16) for _ in range(count)]


class Machine:
    """The programs under measurement, and a folder for what they write."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.envoy_program, self.gateway_program, self.filter = arguments.envoy, arguments.gateway, arguments.filter
        self.folder = folder
        self.token = secrets.token_urlsafe(32)

    @contextmanager
    def memcached(self, megabytes: int) -> Iterator[tuple[Memcached, int]]:
        port = free_port()
        command = ["memcached", "-l", LOOPBACK, "-p", str(port), "-U", "0", "-m", str(megabytes)]
        # It refuses to run as root without being told to.
        command += ["-u", "root"] if os.geteuid() == 0 else []
        with running(command, {}, self.folder / "memcached.log"):
            wait_until("memcached listens", lambda: listens(port))
            client = Memcached(port)
            try:
                yield client, port
            finally:
                client.close()

    @contextmanager
    def gateway(self, store: str) -> Iterator[int]:
        port, admin_port = free_port(), free_port()
        command = [
            str(self.gateway_program),
            f"--listen={LOOPBACK}:{port}",
            f"--admin-listen={LOOPBACK}:{admin_port}",
            f"--store={store}",
        ]
        with running(command, {"SESSION_GATEWAY_TOKEN": self.token}, self.folder / "gateway.log"):
            wait_until("the gateway is ready", lambda: answers(admin_port, "/readyz"))
            yield port

    @contextmanager
    def envoy(self, gateway_port: int, data: str, filtered: bool = True) -> Iterator[tuple[int, int, int]]:
        """An Envoy whose every visitor gets a session with this data; its listener's and admin's port, and its process id."""
        port, admin_port = free_port(), free_port()
        file = self.folder / "envoy.json"
        module = self.filter if filtered else None
        file.write_text(json.dumps(envoy_configuration(port, admin_port, gateway_port, module, data)))
        command = [str(self.envoy_program), "-c", str(file), "--concurrency", "1", "--disable-hot-restart"]
        environment = {
            "SESSION_SECRETS": base64.b64encode(secrets.token_bytes(32)).decode(),
            "SESSION_GATEWAY_TOKEN": self.token,
        }
        with running([*command, "--log-level", "warning"], environment, self.folder / "envoy.log") as process:
            wait_until("Envoy is ready", lambda: answers(admin_port, "/ready"))
            yield port, admin_port, process.pid

    def create(self, gateway_port: int, session_id: str, data: str) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, gateway_port, timeout=PATIENCE_SECONDS)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request("PUT", f"/v1/sessions/{session_id}", data, headers)
        status = connection.getresponse().status
        connection.close()
        if status != 201:
            raise SizingError(f"the gateway answered {status}")


def envoy_configuration(
    port: int, admin_port: int, gateway_port: int, module: Path | None, data: str
) -> dict[str, object]:
    """No upstream: Envoy's own answers carry the patch, as an application's would."""

    def address(at: int) -> dict[str, object]:
        return {"socket_address": {"address": LOOPBACK, "port_value": at}}

    types = "type.googleapis.com/envoy.extensions.filters"
    session_filter = {
        "name": "session-mesh",
        "typed_config": {
            "@type": f"{types}.http.wasm.v3.Wasm",
            "config": {
                "name": "session-mesh",
                "vm_config": {
                    "vm_id": "session-mesh",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": str(module)}},
                    "environment_variables": {"host_env_keys": ["SESSION_SECRETS", "SESSION_GATEWAY_TOKEN"]},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.Struct",
                    "value": {
                        "gateway": {"cluster": "session_gateway", "timeout": "10s"},
                        "cache": {"slots": SLOTS, "ttl": "10m"},
                    },
                },
            },
        },
    }
    router = {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200},
        "response_headers_to_add": [{"header": {"key": "x-session-patch", "value": data}}],
    }
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [session_filter, router] if module else [router],
    }
    listener = {
        "name": "ingress",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": address(gateway_port)}}
    cluster = {
        "name": "session_gateway",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "session_gateway", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {
        "admin": {"address": address(admin_port)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def visit(port: int, visitors: int) -> None:
    """Requests of that many visitors who have never been there, over one connection."""
    request = b"GET / HTTP/1.1\r\nhost: sizing.test\r\n\r\n"
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE_SECONDS) as connection:
        reader = connection.makefile("rb")
        for start in range(0, visitors, PIPELINED):
            count = min(PIPELINED, visitors - start)
            connection.sendall(request * count)
            for _ in range(count):
                read_answer(reader)


def read_answer(reader: BinaryIO) -> None:
    status = reader.readline().split()
    headers = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    reader.read(int(headers.get(b"content-length", b"0")))
    if status[1:2] != [b"200"] or b"set-cookie" not in headers:
        raise SizingError(f"Envoy answered {status}, with {sorted(headers)}")


def allocated(admin_port: int) -> int:
    """The bytes in use in Envoy's heap, as its allocator counts them."""
    return int(json.loads(get(admin_port, "/memory")[1])["allocated"])


def resident(pid: int) -> int:
    """The bytes of memory that a process has (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SizingError(f"process {pid} has no memory")


def measure_memcached(machine: Machine) -> None:
    print("| data | record | item | in its slab | sessions in 1 GB |")
    print("|---|---|---|---|---|")
    with ExitStack() as stack:
        memcached, port = stack.enter_context(machine.memcached(1024))
        gateway = stack.enter_context(machine.gateway(f"memcached://{LOOPBACK}:{port}"))
        for size in DATA_BYTES:
            session_id = secrets.token_hex(16)
            machine.create(gateway, session_id, data_of(size))
            row(f"{size} bytes", memcached, memcached.get(f"sm:s:{session_id}"), "sm:s:")
        session_id, before = secrets.token_hex(16), memcached.statistics()["curr_items"]
        machine.create(gateway, session_id, data_of(200, user="alice"))
        if memcached.statistics()["curr_items"] != before + 2:
            raise SizingError("a login writes a session and a record of its subject")
        logged_in = memcached.get(f"sm:s:{session_id}")
        row("200 bytes, logged in", memcached, logged_in, "sm:s:")
        subject = base64.urlsafe_b64encode(hashlib.sha256(b"alice").digest()).decode().rstrip("=")
        row("and, once for each user", memcached, memcached.get(f"sm:u:{subject}"), "sm:u:" + "x" * 11)


def row(name: str, memcached: Memcached, record: bytes, prefix: str) -> None:
    """Stores a record often, and prints what it takes."""
    before, slabs_before = memcached.statistics(), memcached.statistics("slabs")
    memcached.put_many([prefix + session_id for session_id in session_ids(ITEMS)], record)
    wait_until("all are stored", lambda: memcached.statistics()["curr_items"] == before["curr_items"] + ITEMS)
    after, slabs = memcached.statistics(), memcached.statistics("slabs")
    item = (after["bytes"] - before["bytes"]) / ITEMS
    used = [key for key in slabs if key.endswith(":used_chunks")]
    growth = {key: slabs[key] - slabs_before.get(key, 0) for key in used}
    in_slab = sum(count * slabs[key.replace("used_chunks", "chunk_size")] for key, count in growth.items()) / ITEMS
    print(f"| {name} | {len(record)} | {item:.0f} | {in_slab:.0f} | {2**30 / in_slab:,.0f} |")


def measure_capacity(machine: Machine) -> None:
    """How many sessions a small memcached takes until it evicts the first, against what the slabs promise."""
    megabytes, size = 64, 200
    with ExitStack() as stack:
        memcached, port = stack.enter_context(machine.memcached(megabytes))
        gateway = stack.enter_context(machine.gateway(f"memcached://{LOOPBACK}:{port}"))
        session_id = secrets.token_hex(16)
        machine.create(gateway, session_id, data_of(size))
        record = memcached.get(f"sm:s:{session_id}")
        while memcached.statistics()["evictions"] == 0:
            memcached.put_many([f"sm:s:{one}" for one in session_ids(1000)], record)
        count = memcached.statistics()["curr_items"]
    print()
    print(f"A memcached with -m {megabytes} took {count:,} sessions of {size} bytes before it evicted one.")


def measure_slots(machine: Machine) -> None:
    print()
    print("| data | per slot | 65536 slots | 8192 slots |")
    print("|---|---|---|---|")
    for size in DATA_BYTES:
        with ExitStack() as stack:
            gateway = stack.enter_context(machine.gateway("memory:"))
            port, admin_port, _ = stack.enter_context(machine.envoy(gateway, data_of(size)))
            visit(port, WARM_UP)
            before = allocated(admin_port)
            visit(port, SLOTS_FILLED)
            slot = (allocated(admin_port) - before) / SLOTS_FILLED
        print(f"| {size} bytes | {slot:.0f} | {65536 * slot / 2**20:.0f} MB | {8192 * slot / 2**20:.0f} MB |")


def measure_filter(machine: Machine) -> None:
    """What the filter takes in an Envoy with one worker before the first request."""
    taken = {}
    for filtered in (True, False):
        with machine.envoy(free_port(), data_of(50), filtered) as (_, _, pid):
            taken[filtered] = resident(pid) / 2**20
    print()
    print(f"Envoy takes {taken[True]:.0f} MB with the filter, {taken[False]:.0f} MB without.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("envoy", "gateway", "filter"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(parser.parse_args(), Path(folder))
        try:
            measure_memcached(machine)
            measure_capacity(machine)
            measure_slots(machine)
            measure_filter(machine)
        except SizingError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
