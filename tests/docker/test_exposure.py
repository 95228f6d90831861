"""What can be reached from where, what the containers may do, and where no secret shows up."""

import re
import unittest

from browser import Browser
from stack import ENVOY, FILTER, GATEWAY, docker, eventually, inspect, run, stack

# Says whether a connection can be made, in a container that has Python.
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"


class Ports(unittest.TestCase):
    def test_only_the_page_is_published_and_for_this_machine_only(self) -> None:
        published = {}
        for service in stack().services:
            ports = stack().container(service)["NetworkSettings"]["Ports"]
            published |= {(service, port): bindings for port, bindings in ports.items() if bindings}
        self.assertEqual(published, {("envoy", "10000/tcp"): [{"HostIp": "127.0.0.1", "HostPort": "10000"}]})


class Networks(unittest.TestCase):
    def reaches(self, host: str, port: int) -> bool:
        """Whether an application can connect to that."""
        container = stack().container("other")["Id"]
        command = ["docker", "exec", container, "python", "-c", CONNECT, host, str(port)]
        return run(*command, check=False).returncode == 0

    def test_an_application_reaches_envoy_and_applications_only(self) -> None:
        self.assertTrue(self.reaches("envoy", 10000))
        self.assertTrue(self.reaches("tomcat1", 8080))
        for service, port in [("gateway", 9100), ("gateway", 9101), ("memcached1", 11211), ("memcached2", 11211)]:
            address = stack().address(service)
            self.assertFalse(self.reaches(service, port), service)
            self.assertFalse(self.reaches(address, port), service)

    def test_envoys_admin_page_is_for_envoys_container_only(self) -> None:
        self.assertFalse(self.reaches("envoy", 9901))


class Confinement(unittest.TestCase):
    def test_no_container_has_more_rights_than_it_needs(self) -> None:
        for service in stack().services:
            with self.subTest(service):
                container = stack().container(service)
                self.assertTrue(container["HostConfig"]["ReadonlyRootfs"])
                self.assertGreater(container["HostConfig"]["Memory"], 0)
                with open(f"/proc/{container['State']['Pid']}/status", encoding="ascii") as file:
                    status = dict(re.findall(r"^(\w+):\t(.*)$", file.read(), re.MULTILINE))
                self.assertNotIn("0", status["Uid"].split())
                self.assertEqual((int(status["CapEff"], 16), status["NoNewPrivs"]), (0, "1"))


class Secrets(unittest.TestCase):
    def test_are_in_no_log_and_in_no_image(self) -> None:
        started = stack()
        visitor = Browser(started.port)
        tokens = set()
        for path in ["/", "/login.jsp", "/other"]:
            page = visitor.get(path)
            tokens.add(visitor.token)
        secrets = tokens | {started.variables["SESSION_SECRETS"], started.variables["SESSION_GATEWAY_TOKEN"]}
        images = (ENVOY, FILTER, GATEWAY)
        texts = {image: docker("history", "--no-trunc", image) + str(inspect(image)) for image in images}
        # Envoy writes its access log every ten seconds.
        eventually("the visits are in the log", lambda: f"session={page.session}" in started.logs())
        texts["the logs"] = started.logs()
        for where, text in texts.items():
            for secret in secrets:
                self.assertNotIn(secret, text, where)
