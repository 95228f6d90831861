"""What a bench runs against: an Envoy per filter under test, and behind them the application and the gateway.

All of them stay up for the whole bench, so that a row's turn in a round costs no start and no cold cache;
the ones whose turn it isn't are idle.
"""

import base64
import http.client
import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Self

from processes import BenchError, Cpus, Server

TEMPLATES = Path(__file__).with_name("envoy")
LOOPBACK = "127.0.0.1"

# What the measured session holds: a login and a cart, as an upstream would keep them.
SESSION_DATA: dict[str, object] = {"user": "alice", "cart": {"items": 2, "total": "18.40"}, "theme": "dark"}

SESSION_MESH_CONFIGURATION: dict[str, object] = {
    # The other callouts wait as long. A full CPU makes them slow; that is a number here and not a failure.
    "gateway": {"cluster": "session_gateway", "timeout": "5s"},
    "create": "lazy",
}
# Every request reads its session by a callout that is its own, and fills the cache with the answer: a miss, each time.
ALWAYS_READ: dict[str, object] = {"rules": [{"path_prefix": "/", "session": "strict"}]}
FEW_SLOTS: dict[str, object] = {"cache": {"slots": 4096}}
# A cluster's options for HTTP/2; without any, Envoy speaks HTTP/1.1.
HTTP2: dict[str, object] = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


@dataclass(frozen=True)
class Binaries:
    """What bench.sh has built or installed."""

    envoy: Path
    gateway: Path
    session_mesh_wasm: Path
    noop_wasm: Path
    floor_wasm: Path


@dataclass(frozen=True)
class Proxy:
    """An Envoy under test: the same for all rows but for its filter, and for ours its configuration."""

    name: str
    filter: str
    configuration: Mapping[str, object] = field(default_factory=dict, hash=False)
    # Whether Envoy itself sets the session headers.
    sets_headers: bool = False


BARE = Proxy("bare", "none.yaml")
HEADERS = Proxy("headers", "none.yaml", sets_headers=True)
FLOOR = Proxy("floor", "floor.yaml")
NOOP = Proxy("noop", "noop.yaml")
SESSION_MESH = Proxy("session-mesh", "session-mesh.yaml", SESSION_MESH_CONFIGURATION)
SESSION_MESH_COLD = Proxy("session-mesh-cold", "session-mesh.yaml", SESSION_MESH_CONFIGURATION | ALWAYS_READ)
SESSION_MESH_FEW_SLOTS = Proxy("session-mesh-few-slots", "session-mesh.yaml", SESSION_MESH_CONFIGURATION | FEW_SLOTS)
LUA = Proxy("lua", "lua.yaml")
EXT_AUTHZ = Proxy("ext-authz", "ext-authz.yaml")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(port: int, path: str, cookie: str | None = None) -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path, headers={"cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    finally:
        connection.close()


class Envoy:
    """A running Envoy with one worker; its ports are free ones that it chose itself."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        config: str,
        cpus: frozenset[int],
        folder: Path,
        env: Mapping[str, str],
    ) -> None:
        config_file = folder / f"{name}.yaml"
        config_file.write_text(config)
        self._admin_file = folder / f"{name}.admin"
        arguments = ["--config-path", str(config_file), "--concurrency", "1", "--disable-hot-restart"]
        arguments += ["--log-level", "warn", "--admin-address-path", str(self._admin_file)]
        self.server = Server(f"envoy-{name}", [*command, *arguments], cpus, folder, env)

    def wait_until_ready(self) -> None:
        self._admin_port = self.server.wait_until("listening", self._read_admin_port)
        self.server.wait_until("ready", lambda: get(self._admin_port, "/ready").status == HTTPStatus.OK or None)

    def port(self, listener: str) -> int:
        listeners = json.loads(get(self._admin_port, "/listeners?format=json").body)["listener_statuses"]
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners}
        return int(ports[listener])

    def counters(self, pattern: str) -> dict[str, int]:
        stats = json.loads(get(self._admin_port, f"/stats?format=json&filter={pattern}").body)["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "value" in stat}

    def _read_admin_port(self) -> int | None:
        address = self._admin_file.read_text() if self._admin_file.exists() else ""
        return int(address.rpartition(":")[2]) if address else None


class Topology:
    """Starts everything; leaving it as a context stops it."""

    def __init__(
        self,
        binaries: Binaries,
        proxies: Sequence[Proxy],
        cpus: Cpus,
        folder: Path,
        *,
        direct: bool,
        http1_callouts: bool,
        envoy_arguments: Sequence[str] = (),
    ) -> None:
        self._binaries, self._proxies, self._cpus, self._folder, self._direct = binaries, proxies, cpus, folder, direct
        self._callout_protocol = json.dumps({} if http1_callouts else HTTP2)
        self._envoy_command = [str(binaries.envoy), *envoy_arguments]
        # Those of the filter and the gateway; new for each bench, in no file and no command line.
        self._env = {
            "SESSION_SECRETS": base64.b64encode(secrets.token_bytes(32)).decode(),
            "SESSION_GATEWAY_TOKEN": secrets.token_hex(16),
        }
        self._stack = ExitStack()
        self.servers: list[Server] = []
        self.envoys: dict[Proxy, Envoy] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        gateway_port = self._start_gateway()
        # A template's quotes are single ones, which JSON doesn't have outside of strings.
        session_data = json.dumps(SESSION_DATA)
        application_routes = render("application-routes.yaml", {"session_data": session_data})
        upstream = self._start_envoy(
            "upstream",
            render("upstream.yaml", {"application_routes": application_routes, "session_data": session_data}),
            self._cpus.rest,
        )
        upstream.wait_until_ready()
        session_headers = render("session-headers.yaml", {"session_data": session_data})
        for proxy in self._proxies:
            http_filter = render(
                f"filters/{proxy.filter}",
                {
                    "noop_wasm": str(self._binaries.noop_wasm),
                    "floor_wasm": str(self._binaries.floor_wasm),
                    "session_mesh_wasm": str(self._binaries.session_mesh_wasm),
                    "session_mesh_configuration": json.dumps(proxy.configuration),
                },
            )
            config = render(
                "proxy.yaml",
                {
                    "routes": application_routes if self._direct else render("upstream-route.yaml", {}),
                    "filter": http_filter,
                    "request_headers": session_headers if proxy.sets_headers else "",
                    "callout_protocol": self._callout_protocol,
                    "upstream_port": str(upstream.port("application")),
                    "authorizer_port": str(upstream.port("authorizer")),
                    "gateway_port": str(gateway_port),
                },
            )
            self.envoys[proxy] = self._start_envoy(proxy.name, config, self._cpus.under_test)
        for envoy in self.envoys.values():
            envoy.wait_until_ready()

    def _start_gateway(self) -> int:
        port, admin_port = free_port(), free_port()
        command = [str(self._binaries.gateway), "--store", "memory:"]
        command += ["--listen", f"{LOOPBACK}:{port}", "--admin-listen", f"{LOOPBACK}:{admin_port}"]
        gateway = self._keep(Server("session-gateway", command, self._cpus.rest, self._folder, self._env))
        gateway.wait_until("ready", lambda: get(admin_port, "/readyz").status == HTTPStatus.OK or None)
        return port

    def _start_envoy(self, name: str, config: str, cpus: frozenset[int]) -> Envoy:
        envoy = Envoy(name, self._envoy_command, config, cpus, self._folder, self._env)
        self._keep(envoy.server)
        return envoy

    def _keep(self, server: Server) -> Server:
        self._stack.callback(server.stop)
        self.servers.append(server)
        return server


def render(template: str, values: Mapping[str, str]) -> str:
    """A template of bench/envoy/. A place that has a line for itself takes several lines, all indented like it."""
    lines = []
    for line in (TEMPLATES / template).read_text().splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        try:
            filled = Template(line.lstrip()).substitute(values)
        except (KeyError, ValueError) as error:
            raise BenchError(f"bench/envoy/{template}: {line.strip()}: {error!r}") from error
        lines += [indent + part for part in filled.splitlines() or [""]]
    return "\n".join(lines) + "\n"


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


def missing(binaries: Binaries) -> list[Path]:
    """The files that are not there."""
    return [path for path in vars(binaries).values() if not os.access(path, os.R_OK)]
