#!/usr/bin/env python3
"""Photographs the demo's two pages with one browser: screenshots.py URL FOLDER. Run by screenshots.sh.

Speaks the DevTools protocol over Chromium's pipe (`--remote-debugging-pipe`): one browser for both visits, since a session
cookie ends with it.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZE = {"width": 640, "height": 400, "deviceScaleFactor": 1, "mobile": False}


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, profile: str) -> None:
        to_browser, self._to_browser = os.pipe()
        self._from_browser, from_browser = os.pipe()
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]

        def pipes() -> None:
            # Chromium reads from 3 and writes to 4.
            for end, place in ((os.dup(to_browser), 3), (os.dup(from_browser), 4)):
                os.dup2(end, place)

        self._process = subprocess.Popen(
            ["chromium", *arguments, "--remote-debugging-pipe"],
            preexec_fn=pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._unread = b""
        self._last = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", **SIZE)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method and returns its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == self._last)
        if "error" in answer:
            raise SystemExit(f"screenshots: {method}: {answer['error']['message']}")
        return answer["result"]

    def visit(self, url: str) -> str:
        """Opens a page; its text."""
        self.call("Page.navigate", url=url)
        self._until(lambda message: message.get("method") == "Page.loadEventFired")
        text = self.call("Runtime.evaluate", expression="document.body.className + ' ' + document.body.innerText")
        return str(text["result"]["value"])

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _until(self, is_wanted: Any) -> dict[str, Any]:
        while True:
            while b"\0" not in self._unread:
                read = os.read(self._from_browser, 1 << 16)
                if not read:
                    raise SystemExit("screenshots: chromium has ended")
                self._unread += read
            message, _, self._unread = self._unread.partition(b"\0")
            if is_wanted(decoded := json.loads(message)):
                return decoded


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    ids = {}
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            # The first visit gets its id with its answer; from the second on there is a session.
            browser.visit(url)
            for _ in range(10):
                text = browser.visit(url)
                colour = text.split()[0]
                found = re.search(r"\b[0-9a-f]{32}\b", text)
                ids[colour] = found.group() if found else None
                (folder / f"{colour}.png").write_bytes(browser.picture())
                if len(ids) == 2:
                    break
        finally:
            browser.close()
    if len(ids) != 2 or len(set(ids.values())) != 1 or None in ids.values():
        sys.exit(f"screenshots: the pages do not show one session: {ids}")
    print(f"{folder}: {' and '.join(sorted(ids))}, one session")


if __name__ == "__main__":
    main()
