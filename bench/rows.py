"""The rows of the table: which Envoy, which client, and what has to be seen for the row to be what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from json import loads

from processes import BenchError
from topology import BARE, EXT_AUTHZ, FLOOR, HEADERS, LUA, NOOP, SESSION_DATA, SESSION_MESH, SESSION_MESH_COLD, Envoy, Proxy, get


@dataclass(frozen=True)
class Seen:
    """What the application saw of a request's session; `None` for a header that wasn't there."""

    id: str | None = None
    state: str | None = None
    version: str | None = None
    data: str | None = None
    subject: str | None = None
    cookie: str | None = None

    @property
    def holds_the_data(self) -> bool:
        return self.data is not None and loads(self.data) == SESSION_DATA


@dataclass(frozen=True)
class Sessions:
    """The clients of the rows: cookies that the filter itself has handed out, and what they open."""

    anonymous_cookie: str
    anonymous: Seen
    stored_cookie: str
    stored: Seen


@dataclass(frozen=True)
class Row:
    """One row. `expects` compares what the application saw with what the row's title promises."""

    key: str
    title: str
    proxy: Proxy
    expects: Callable[[Seen, Sessions], bool]
    cookie: Callable[[Sessions], str | None] = lambda _: None
    # The cluster that is called out to once for every request; no row may call a cluster that it doesn't name.
    callout: str | None = None


def is_like_a_session(seen: Seen) -> bool:
    """Whether the session headers are all there, whichever session they are of."""
    return (seen.state, seen.subject) == ("active", "alice") and seen.id is not None and seen.holds_the_data


ROWS = (
    Row("bare", "bare Envoy", BARE, lambda seen, _: seen == Seen()),
    Row("headers", "bare Envoy, sets the five headers", HEADERS, lambda seen, _: is_like_a_session(seen)),
    Row("noop", "do-nothing wasm filter", NOOP, lambda seen, _: seen == Seen()),
    Row(
        "floor",
        "wasm filter, cached's hostcalls only",
        FLOOR,
        lambda seen, _: is_like_a_session(seen) and seen.cookie is None,
        cookie=lambda sessions: sessions.stored_cookie,
    ),
    Row(
        "new",
        "session-mesh, no cookie",
        SESSION_MESH,
        lambda seen, _: seen == Seen(seen.id, "new", "0", "{}") and seen.id is not None,
    ),
    Row(
        "version-0",
        "session-mesh, version-0 token",
        SESSION_MESH,
        lambda seen, sessions: seen == sessions.anonymous,
        cookie=lambda sessions: sessions.anonymous_cookie,
    ),
    Row(
        "cached",
        "session-mesh, cached session",
        SESSION_MESH,
        lambda seen, sessions: seen == sessions.stored,
        cookie=lambda sessions: sessions.stored_cookie,
    ),
    Row(
        "cold",
        "session-mesh, cold read by callout",
        SESSION_MESH_COLD,
        lambda seen, sessions: seen == sessions.stored,
        cookie=lambda sessions: sessions.stored_cookie,
        callout="session_gateway",
    ),
    Row(
        "lua",
        "Envoy's Lua filter, same callout",
        LUA,
        lambda seen, sessions: seen == sessions.stored,
        cookie=lambda sessions: f"session={sessions.stored.id}",
        callout="session_gateway",
    ),
    Row(
        "ext-authz",
        "ext_authz over HTTP",
        EXT_AUTHZ,
        lambda seen, _: is_like_a_session(seen),
        cookie=lambda sessions: sessions.stored_cookie,
        callout="authorizer",
    ),
)


def open_sessions(port: int) -> Sessions:
    """Gets both kinds of session from the filter, as a browser would: a first visit, and a visit that writes."""
    anonymous_cookie = cookie_from(port, "/echo", None)
    anonymous = see(port, anonymous_cookie)
    if anonymous.id is None or (anonymous.version, anonymous.cookie) != ("0", None):
        raise BenchError(f"a visitor's second request should have had a session of version 0: {anonymous}")
    stored_cookie = cookie_from(port, "/write", anonymous_cookie)
    stored = see(port, stored_cookie)
    if stored.id is None or stored.version in (None, "0") or not stored.holds_the_data or stored.cookie is not None:
        raise BenchError(f"the request after a write should have had a stored session: {stored}")
    return Sessions(anonymous_cookie, anonymous, stored_cookie, stored)


def check(row: Row, envoy: Envoy, sessions: Sessions) -> None:
    """Fails unless the application sees what the row is about."""
    seen = see(envoy.port("under_test"), row.cookie(sessions))
    if not row.expects(seen, sessions):
        raise envoy.server.error(f"had the application see {seen}, which is not what row {row.key} is about")


def cookie_from(port: int, path: str, cookie: str | None) -> str:
    answer = get(port, path, cookie)
    set_cookie = answer.headers.get("set-cookie")
    if answer.status != HTTPStatus.OK or set_cookie is None:
        raise BenchError(f"GET {path} through the filter: expected 200 and a set-cookie, got {answer.status}")
    return set_cookie.partition(";")[0]


def see(port: int, cookie: str | None) -> Seen:
    answer = get(port, "/echo", cookie)
    if answer.status != HTTPStatus.OK:
        raise BenchError(f"GET /echo: {answer.status} {answer.body.decode(errors='replace')}")
    header = answer.headers.get
    return Seen(
        id=header("echo-session-id"),
        state=header("echo-session-state"),
        version=header("echo-session-version"),
        data=header("echo-session-data"),
        subject=header("echo-session-subject"),
        cookie=header("echo-cookie"),
    )
