#!/usr/bin/env python3
"""One of the demo's applications: a page in one colour that counts a visitor's visits.

    upstream.py --port PORT --colour red|blue|green [--address ADDRESS] [--path PATH]

It stores nothing and uses no session library. The x-session-* request headers say who the visitor is and
how often they have been here; the response's x-session-patch header updates the count. Started by demo.sh
and envoy/docker-compose.yaml.
"""

import argparse
import html
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from string import Template

# The empty icon keeps browsers from requesting /favicon.ico, which would take the other application's turn.
PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>$colour: session-mesh</title>
<style>
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; color: #fff; font: 1.1rem/1.5 system-ui, sans-serif }
  .red { background: #b3202a } .blue { background: #1f4fa8 } .green { background: #1d6b3a }
  main { padding: 2rem; max-width: 44rem }
  h1 { font-size: 4rem; line-height: 1; margin: 0 0 2rem }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .5rem 1.5rem; margin: 0 0 2rem }
  dt { opacity: .8 } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere }
  code { font: inherit; font-family: ui-monospace, monospace }
</style>
<body class="$colour">
<main>
  <h1>$colour</h1>
  <dl>
    <dt>session</dt><dd><code id="session">$session</code></dd>
    <dt>visits</dt><dd id="visits">$visits</dd>
    <dt>user</dt><dd id="user">$user</dd>
    <dt>state</dt><dd>$state</dd>
    <dt>served by</dt><dd>$server</dd>
  </dl>
  <p>Reload: the colour changes, the session stays the same.</p>
</main>
</html>
""")


def visits_so_far(session_data: str) -> int:
    """The counter in the x-session-data header; 0 if there is none."""
    try:
        visits = json.loads(session_data).get("visits", 0)
    except (ValueError, AttributeError):
        return 0
    return visits if isinstance(visits, int) else 0


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    colour = ""
    path_served = "/"

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != self.path_served:
            self.answer(404, "text/plain; charset=utf-8", "no such page\n")
            return
        visits = visits_so_far(self.headers.get("x-session-data", "")) + 1
        page = PAGE.substitute(
            colour=self.colour,
            session=html.escape(self.headers.get("x-session-id", "none")),
            visits=visits,
            user=html.escape(self.headers.get("x-session-subject", "not logged in")),
            state=html.escape(self.headers.get("x-session-state", "none")),
            server=f"{self.colour} on port {self.server.server_port}",
        )
        self.answer(200, "text/html; charset=utf-8", page, {"x-session-patch": json.dumps({"visits": visits})})

    def answer(self, status: int, content_type: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-cache")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Envoy writes the access log."""


def main() -> None:
    parser = argparse.ArgumentParser(description="one of the demo's applications")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--colour", choices=["red", "blue", "green"], required=True)
    parser.add_argument("--address", default="127.0.0.1", help="where it listens")
    parser.add_argument("--path", default="/", help="where its page is")
    arguments = parser.parse_args()
    Upstream.colour, Upstream.path_served = arguments.colour, arguments.path
    ThreadingHTTPServer((arguments.address, arguments.port), Upstream).serve_forever()


if __name__ == "__main__":
    main()
