"""A server for the tests of a provider whose API is its own: JSON in, JSON out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pinnacle.testing.answers import Refuse
from pinnacle.testing.door import HOST

if TYPE_CHECKING:
    from typing import Self


class JsonServer:
    """Answers what is posted to any path of ``url``, for as long as its context lasts::

        with JsonServer(lambda path, body: {"text": body["prompt"].upper()}) as server:
            model = Parrot("parrot", base_url=server.url)

    ``answer``: what is sent as JSON for the path and the body of a request; it may raise `Refuse` for
    another status, and runs in a thread for each connection. ``requests`` are those that came, in order.
    """

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        self.requests: list[tuple[str, Any]] = []
        self._answer = answer
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        self.url = f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="pinnacle-json-server")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, body))
                try:
                    status, headers, answer = 200, {}, outer._answer(self.path, body)
                except Refuse as refused:
                    status, headers, answer = refused.status, refused.headers, refused.body
                raw = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "content-type": "application/json", "content-length": len(raw)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Nothing is written to the terminal."""

        return Handler
