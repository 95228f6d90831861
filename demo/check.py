#!/usr/bin/env python3
"""Visits the demo as a browser would, prints what it saw, and exits 0 if every visit had the same session, else 1.

    check.py URL [--counts]

With --counts the pages must show a counter that goes up by one per visit. Used by demo.sh --check.
"""

import argparse
import http.cookiejar
import re
import sys
import urllib.request
from dataclasses import dataclass

VISITS = 8


@dataclass
class Visit:
    colour: str
    session: str
    visits: str
    cookies: int


def found(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    return match.group(1) if match else "-"


def visit(browser: urllib.request.OpenerDirector, url: str) -> Visit:
    with browser.open(url, timeout=10) as response:
        page = response.read().decode()
        cookies = len(response.headers.get_all("set-cookie", []))
    return Visit(
        colour=found(r'<body class="(\w+)">', page),
        session=found(r'<code id="session">([^<]*)</code>', page),
        visits=found(r'<dd id="visits">(\d+)</dd>', page),
        cookies=cookies,
    )


def faults(seen: list[Visit], counts: bool) -> list[str]:
    """What is wrong with these visits, in words."""
    wrong = []
    if {visit.colour for visit in seen} != {"red", "blue"}:
        wrong.append("only one of the applications has answered")
    if len({visit.session for visit in seen}) != 1:
        wrong.append("the session id has changed")
    if seen[0].cookies != 1:
        wrong.append(f"the first response has {seen[0].cookies} Set-Cookie lines")
    if counts and [visit.visits for visit in seen] != [str(number + 1) for number in range(len(seen))]:
        wrong.append("the counter missed a visit")
    if not counts and any(visit.cookies for visit in seen[1:]):
        wrong.append("a later response sets a cookie although nothing was written")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="visits the demo and says whether every visit had the same session")
    parser.add_argument("url")
    parser.add_argument("--counts", action="store_true", help="the pages show a visit counter")
    arguments = parser.parse_args()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    seen = []
    for number in range(VISITS):
        seen.append(visit(browser, arguments.url))
        last = seen[-1]
        print(f"{number + 1:2}  {last.colour:5} session {last.session}  visits {last.visits:2}  cookies set {last.cookies}")
    wrong = faults(seen, arguments.counts)
    for fault in wrong:
        print(f"wrong: {fault}", file=sys.stderr)
    if not wrong:
        print(f"one session over {VISITS} visits, served by red and by blue")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
