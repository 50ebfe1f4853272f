"""What stands behind the page: an HTTP server on the loopback interface that reads one picture a request."""

from __future__ import annotations

import json
import re
import socketserver
import sys
import threading
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from model.answers.picture import decode_bytes
from model.answers.reading import Recogniser, prepared
from model.report.page import data_uri
from schemas.errors import UserError

HOST = "127.0.0.1"
MAX_PICTURE_BYTES = 64 << 20  # 64 MiB
_PICTURE = "the picture"
_NAMES = (HOST, "localhost")
"""What the page may be called by: under any other name a foreign page could ask."""


class PageServer(ThreadingHTTPServer):
    """Bound to this machine alone. Raises UserError where the port is taken."""

    daemon_threads = True

    def __init__(self, recogniser: Recogniser, port: int) -> None:
        page = (resources.files("model.draw") / "page.html").read_text("utf-8")
        self.page = page.replace("<!--network-->", escape(f"It knows {len(recogniser.classes):,} characters.")).encode()
        self.recogniser = recogniser
        self.lock = threading.Lock()  # one picture at a time: two at once would share the same cores
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"can't listen on {HOST}, port {port}: {error.strerror or error}; name another --port, 0 for any"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def server_bind(self) -> None:
        """As HTTPServer's, without asking for this machine's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that was closed meanwhile is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def read(self, content: bytes) -> dict[str, object]:
        """The page's answer to a picture file: its candidates, or what is wrong with it."""
        try:
            entry = prepared(decode_bytes(content, _PICTURE), _PICTURE)
        except UserError as error:
            entry = error
        with self.lock:
            (reading,) = self.recogniser.answers([entry])
        if isinstance(reading, UserError):
            return {"error": str(reading)}
        return {
            "candidates": reading.candidates,
            "recognised": reading.recognised,
            "seen": data_uri(reading.image),
        }


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds a connection may stay idle

    def do_GET(self) -> None:
        if not self._is_own():
            return
        if self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        else:
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        if not self._is_own():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/read" or not re.fullmatch("[0-9]{1,12}", length):
            self._refuse(HTTPStatus.NOT_FOUND, "not found\n")
        elif int(length) > MAX_PICTURE_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large\n")
        else:
            answer = self.server.read(self.rfile.read(int(length)))
            self._answer(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _is_own(self) -> bool:
        """Whether the request comes from the page; a foreign one is refused."""
        own = [f"{name}:{self.server.server_port}" for name in _NAMES]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in own and (origin is None or origin in [f"http://{name}" for name in own]):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "only the page itself may ask\n")
        return False

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # the rest of the request isn't read
        self._answer(status, "text/plain", text.encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a line for every stroke would bury the address."""
