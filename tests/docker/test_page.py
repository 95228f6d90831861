"""What a visitor meets: two Tomcats and a Python application, and one session."""

import unittest

from browser import Browser
from stack import stack


class OneSession(unittest.TestCase):
    def setUp(self) -> None:
        self.visitor = Browser(stack().port)

    def test_the_page_turns_red_and_blue_and_the_session_stays(self) -> None:
        pages = [self.visitor.get() for _ in range(8)]
        self.assertEqual({page.status for page in pages}, {200})
        self.assertEqual({page.colour for page in pages}, {"red", "blue"})
        self.assertEqual(len({page.session for page in pages}), 1)
        self.assertRegex(pages[0].session, r"^[0-9a-f]{32}$")
        cookies = [page.headers.get_all("set-cookie", []) for page in pages]
        self.assertEqual([len(lines) for lines in cookies], [1] + [0] * 7)
        self.assertRegex(cookies[0][0], r"^session=[\w-]+; Path=/; HttpOnly; SameSite=Lax$")

    def test_another_visitor_has_another_session(self) -> None:
        self.assertNotEqual(self.visitor.get().session, Browser(stack().port).get().session)

    def test_the_other_cluster_shares_the_session(self) -> None:
        session = self.visitor.get().session
        other = self.visitor.get("/other")
        self.assertEqual((other.colour, other.session, other.visits), ("green", session, "1"))
        # What Python has written is there on both Tomcats with the next request.
        for page in self.visitor.both():
            self.assertEqual((page.session, page.data), (session, '{"visits":1}'))
        self.assertEqual(self.visitor.get("/other").visits, "2")

    def test_a_login_on_one_tomcat_is_one_everywhere(self) -> None:
        before, _ = self.visitor.both()
        id_before = self.visitor.get("/other").session
        token = self.visitor.token
        self.assertEqual(self.visitor.get("/login.jsp").status, 302)
        red, blue = self.visitor.both()
        # Tomcat has taken a new id, as it does at a login, and the other one has followed.
        self.assertEqual(red.session, blue.session)
        self.assertNotEqual(red.session, before.session)
        self.assertEqual((red.user, blue.user), ("alice", "alice"))
        other = self.visitor.get("/other")
        self.assertEqual((other.user, other.session, other.visits), ("alice", id_before, "2"))
        self.assertNotEqual(self.visitor.token, token)
