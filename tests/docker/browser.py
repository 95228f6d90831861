"""A visitor of the page, with a cookie jar."""

import http.cookiejar
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPMessage

# Longer than Envoy takes to give up a dead upstream and to try the other one.
TIMEOUT = 30


def found(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    return match.group(1) if match else "-"


@dataclass(frozen=True)
class Page:
    """What one of the demo's applications has answered."""

    status: int
    headers: HTTPMessage
    text: str

    @property
    def colour(self) -> str:
        return found(r'<body class="(\w+)">', self.text)

    @property
    def session(self) -> str:
        return found(r'<code id="session">([^<]*)</code>', self.text)

    @property
    def user(self) -> str:
        return found(r'<dd id="user">([^<]*)</dd>', self.text)

    @property
    def visits(self) -> str:
        """What the Python application has counted, as it shows it itself."""
        return found(r'<dd id="visits">(\d+)</dd>', self.text)

    @property
    def data(self) -> str:
        """The session's data, as Tomcat's page shows it."""
        return found(r'<code id="data">([^<]*)</code>', self.text).replace("&#34;", '"')


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


class Browser:
    """One visitor."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.jar = http.cookiejar.CookieJar()
        handlers = [urllib.request.HTTPCookieProcessor(self.jar), urllib.request.HTTPSHandler(context=tls), NoRedirect]
        self.opener = urllib.request.build_opener(*handlers)

    def get(self, path: str = "/") -> Page:
        try:
            answer = self.opener.open(self.url + path, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Page(answer.status, answer.headers, answer.read().decode())

    def both(self) -> tuple[Page, Page]:
        """The page as either Tomcat shows it, the red one first."""
        pages: dict[str, Page] = {}
        for _ in range(10):
            page = self.get()
            if page.status != 200:
                raise AssertionError(f"{page.status}: {page.text}")
            pages[page.colour] = page
            if {"red", "blue"} <= pages.keys():
                return pages["red"], pages["blue"]
        raise AssertionError(f"only {' and '.join(pages)} in ten visits")

    @property
    def token(self) -> str:
        """The session cookie's value."""
        return next(cookie.value or "" for cookie in self.jar if cookie.name == "session")
