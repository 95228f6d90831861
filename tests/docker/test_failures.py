"""Containers die, one after the other, and sessions live."""

import socket
import unittest

from browser import Browser
from stack import Stack, eventually, stack

NODES = ("memcached1", "memcached2")


class Session:
    """A visitor who may have logged in, and whose visits Python has counted."""

    def __init__(self, port: int, user: str = "alice") -> None:
        self.visitor, self.user = Browser(port), user
        self.visitor.get("/login.jsp" if user == "alice" else "/")
        green = self.visitor.get("/other")
        # Tomcat has an id of its own after a login; those who keep no sessions see the mesh's.
        self.id, self.visits, self.tomcat_id = green.session, int(green.visits), self.visitor.get().session

    def faults(self) -> list[str]:
        """What is not as it was, in words: to both Tomcats and to Python, which counts on."""
        seen = [(page.colour, page.session, page.user) for page in self.visitor.both()]
        green = self.visitor.get("/other")
        seen.append((green.colour, green.session, green.user, green.visits))
        self.visits += 1
        expected = [
            ("red", self.tomcat_id, self.user),
            ("blue", self.tomcat_id, self.user),
            ("green", self.id, self.user, str(self.visits)),
        ]
        return [f"{now} instead of {before}" for now, before in zip(seen, expected, strict=True) if now != before]


def serves(port: int) -> bool:
    """Whether a new visitor gets a session and all three applications."""
    visitor = Browser(port)
    try:
        visitor.both()
    except AssertionError:
        return False
    return visitor.get("/other").status == 200


def await_service(stack: Stack) -> None:
    """Until Envoy has noticed that everything is there again: a healthy container may have another address."""
    eventually("new visitors are served", lambda: serves(stack.port))


def has(stack: Stack, node: str, session: str) -> bool:
    """Whether the memcached node has that session, as itself says."""
    with socket.create_connection((stack.address(node), 11211), timeout=10) as connection:
        connection.sendall(f"mg sm:s:{session} t\r\n".encode())
        return connection.recv(100).startswith(b"HD")


class OneContainerDies(unittest.TestCase):
    """A crash: the container is started again by Docker."""

    def setUp(self) -> None:
        self.stack = stack()
        self.session = Session(self.stack.port)

    def crash(self, service: str) -> None:
        self.assertEqual(self.session.faults(), [])
        self.stack.crash(service)
        await_service(self.stack)
        self.assertEqual(self.session.faults(), [])

    def test_envoy(self) -> None:
        self.crash("envoy")

    def test_gateway(self) -> None:
        self.crash("gateway")

    def test_tomcat1(self) -> None:
        self.crash("tomcat1")

    def test_tomcat2(self) -> None:
        self.crash("tomcat2")

    def test_other(self) -> None:
        self.crash("other")


class OneContainerStaysAway(unittest.TestCase):
    """It is stopped, and started again later."""

    def setUp(self) -> None:
        self.stack = stack()
        self.session = Session(self.stack.port)

    def test_tomcat1(self) -> None:
        visitor = self.session.visitor
        with self.stack.killed("tomcat1"):
            pages = [visitor.get() for _ in range(4)]
            seen = {(page.status, page.colour, page.session) for page in pages}
            self.assertEqual(seen, {(200, "blue", self.session.tomcat_id)})
        await_service(self.stack)
        self.assertEqual(self.session.faults(), [])

    def test_other(self) -> None:
        with self.stack.killed("other"):
            self.assertEqual(self.session.visitor.get("/other").status, 503)
            self.assertEqual({page.session for page in self.session.visitor.both()}, {self.session.tomcat_id})
        await_service(self.stack)
        self.assertEqual(self.session.faults(), [])

    def test_gateway(self) -> None:
        """Pages are served with Envoy's copy of the session; a change is refused, and nobody is logged out."""
        visitor = self.session.visitor
        self.assertEqual(self.session.faults(), [])
        with self.stack.killed("gateway"):
            for page in visitor.both():
                self.assertEqual((page.session, page.user), (self.session.tomcat_id, "alice"))
            refused = visitor.get("/other")
            self.assertEqual((refused.status, refused.headers["x-session-error"]), (503, "store-unavailable"))
            self.assertIsNone(refused.headers["set-cookie"])
        await_service(self.stack)
        self.assertEqual(self.session.faults(), [])

    def test_gateway_and_envoy(self) -> None:
        """Without a gateway and without a copy there are no pages, but nobody is logged out either."""
        visitor = self.session.visitor
        with self.stack.killed("gateway"):
            self.stack.crash("envoy")
            refused = visitor.get()
            self.assertEqual((refused.status, refused.headers["retry-after"]), (503, "1"))
            self.assertIsNone(refused.headers["set-cookie"])
        await_service(self.stack)
        self.assertEqual(self.session.faults(), [])


class MemcachedsDie(unittest.TestCase):
    """One after the other. Each session is on both, so no user notices."""

    def test_in_turn(self) -> None:
        started = stack()
        session = Session(started.port)
        for node in NODES:
            with started.killed(node):
                # The gateway finds out with the first requests that it asks.
                await_service(started)
                self.assertEqual(session.faults(), [])
            await_service(started)
            # The node is back, and empty: a session that is used is stored on it again.
            eventually("the copy is back", lambda node=node: not session.faults() and has(started, node, session.id))
