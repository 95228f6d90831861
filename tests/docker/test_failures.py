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
    """Somebody stops it, and starts it later."""

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


class OneMemcachedDies(unittest.TestCase):
    """Its sessions are lost, as there is one copy of each; the other node's live on.

    Of visitors who have not logged in: a user has a record beside the sessions, which may be on another node.
    """

    def dies(self, node: str) -> None:
        started = stack()
        on: dict[str, Session] = {}
        # Which node a session belongs to is decided by its id.
        while on.keys() != set(NODES):
            session = Session(started.port, user="nobody")
            on[next(node for node in NODES if has(started, node, session.id))] = session
        lost = on.pop(node)
        (kept,) = on.values()
        with started.killed(node):
            # Nobody is logged out: a change of a session that is out of reach is refused, and its cookie stays.
            refused = lost.visitor.get("/other")
            self.assertEqual((refused.status, refused.headers["set-cookie"]), (503, None))
            self.assertEqual(kept.faults(), [])
        await_service(started)
        # The node is back, and empty.
        self.assertEqual(kept.faults(), [])
        eventually("the loss is known", lambda: lost.visitor.get("/other").session not in ("-", lost.id))
        self.assertEqual(lost.visitor.get("/other").visits, "2")
        self.assertEqual(Session(started.port).faults(), [])

    def test_memcached1(self) -> None:
        self.dies("memcached1")

    def test_memcached2(self) -> None:
        self.dies("memcached2")
