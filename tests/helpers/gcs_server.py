"""As much of Google Cloud Storage's JSON interface as pyarrow's client asks for, on the loopback: one bucket in a dict.

In a process of its own: pyarrow asks whether a file is closed, which is a request, without letting other threads go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "handwriting"
_PAGE = 100
_TIME = "2020-01-01T00:00:00.000Z"


@dataclass
class Server:
    url: str
    objects: MutableMapping[str, bytes]
    log: MutableSequence[tuple[str, str, str]]
    """(LIST, LOOK, GET, DELETE, CREATE or PUT; the key; what range)"""
    faults: MutableMapping[str, int]
    """Kind -> the status to answer with instead."""


@contextmanager
def running() -> Iterator[Server]:
    context = get_context("fork")
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    with context.Manager() as shared:
        server = Server(f"http://127.0.0.1:{http.server_port}", shared.dict(), shared.list(), shared.dict())
        process = context.Process(target=_serve, args=(http, server), daemon=True)
        process.start()
        http.socket.close()
        try:
            yield server
        finally:
            process.terminate()
            process.join()


def _serve(http: ThreadingHTTPServer, server: Server) -> None:
    begun: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, content: bytes | dict[str, Any] = b"", **headers: str) -> None:
            body = json.dumps(content).encode() if isinstance(content, dict) else content
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # what was begun is often not read to its end
                self.wfile.write(body)

        def asked(self, kind: str, key: str) -> bool:
            """Whether it is to be answered: there is a bucket, and no fault on demand."""
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.log.append((kind, key, self.headers.get("Range") or ""))
            status = server.faults.get(kind)
            if f"/b/{BUCKET}/o" not in self.path:
                status = 404
            if status:
                self.answer(status, {"error": {"code": status, "message": "on demand"}})
            return not status

        def do_GET(self) -> None:
            query, key = self.query, self.key
            if key is None:
                if self.asked("LIST", query.get("prefix", "")):
                    self.list(query.get("prefix", ""), query.get("delimiter", ""), query.get("pageToken") or "")
            elif self.asked("GET" if query.get("alt") else "LOOK", key):
                if key not in server.objects:
                    self.answer(404, {"error": {"code": 404, "message": "not found"}})
                elif not query.get("alt"):
                    self.answer(200, _resource(key))
                else:
                    self.send(server.objects[key])

        def send(self, content: bytes) -> None:
            given = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            begin, end = (int(given[1]), int(given[2] or len(content)) + 1) if given else (0, len(content))
            part = content[begin:end]
            if given and not part:
                self.answer(416)
            elif given:
                self.answer(206, part, **{"Content-Range": f"bytes {begin}-{begin + len(part) - 1}/{len(content)}"})
            else:
                self.answer(200, part)

        def list(self, prefix: str, delimiter: str, token: str) -> None:
            keys = [key for key in sorted(server.objects.keys()) if key.startswith(prefix) and key > token]
            if delimiter:
                keys = [key for key in keys if delimiter not in key[len(prefix) :]]
            page = {"kind": "storage#objects", "items": [_resource(key) for key in keys[:_PAGE]]}
            self.answer(200, {**page, "nextPageToken": keys[_PAGE - 1]} if len(keys) > _PAGE else page)

        def do_DELETE(self) -> None:
            if self.asked("DELETE", self.key or ""):
                self.answer(204 if server.objects.pop(self.key or "", None) is not None else 404)

        def do_POST(self) -> None:
            key = self.query["name"]
            if self.asked("CREATE", key):
                begun[key] = b""
                self.answer(200, Location=f"{server.url}{self.path}&upload_id={len(server.log)}")

        def do_PUT(self) -> None:
            key = self.query["name"]
            if self.asked("PUT", key):
                begun[key] += self.body
                if self.headers["Content-Range"].endswith("/*"):
                    self.answer(308, Range=f"bytes=0-{len(begun[key]) - 1}")
                else:
                    server.objects[key] = begun.pop(key)
                    self.answer(200, _resource(key))

        @property
        def query(self) -> dict[str, str]:
            return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

        @property
        def key(self) -> str | None:
            found = re.fullmatch(r"/storage/v1/b/[^/]+/o/(.+)", urlsplit(self.path).path)
            return unquote(found[1]) if found else None

    def _resource(key: str) -> dict[str, Any]:
        size, generation = str(len(server.objects[key])), "1"
        times = {"timeCreated": _TIME, "updated": _TIME}
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": key,
            "size": size,
            "generation": generation,
            **times,
        }

    http.RequestHandlerClass = Handler
    http.serve_forever()
