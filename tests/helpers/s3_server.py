"""A real S3 server on the loopback: moto's, with a log of what it was asked for and faults on demand."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from pipeline.storage import flags

BUCKET = "handwriting"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Request:
    """What the server was asked for, and what went over the wire."""

    kind: str
    """GET, HEAD, PUT, LIST, DELETE, or a step of a multipart upload: CREATE, PART, COMPLETE, ABORT."""
    key: str
    begin: int | None
    """First byte of a range; None if it asks for the whole object."""
    status: int
    sent_bytes: int
    received_bytes: int


@dataclass
class Server:
    """The server, its log, and the faults it is told to make."""

    url: str
    client: Any = None
    """boto3's, as the tests look at the bucket."""
    log: list[Request] = field(default_factory=list)
    fault: Callable[[str, str], int | None] | None = None
    """(kind, key) -> the status to answer with instead; 0 drops the connection."""
    torn: int = 0
    """How many answers to GET will end before their last byte."""

    def kinds(self) -> Counter[str]:
        return Counter(request.kind for request in self.log)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """What lies under a prefix, by the rest of its key, read by another client."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key.removeprefix(prefix): self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def empty(self) -> None:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            if keys := [{"Key": found["Key"]} for found in page.get("Contents", [])]:
                self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
        self.log.clear()

    def put(self, key: str, content: bytes) -> None:
        """Into the server's memory, without a request."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, key, content)

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Uploads every file in and below a folder; the URL. The log is empty then."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        self.log.clear()
        return f"s3://{BUCKET}/{prefix}"


def lead_to(server: Server, patches: pytest.MonkeyPatch) -> None:
    """What boto3 takes from the environment leads to the server, which is emptied, and to nothing of the user's."""
    patches.setenv("AWS_CONFIG_FILE", "/nowhere")
    patches.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    patches.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patches.setenv("AWS_ENDPOINT_URL", server.url)
    for name, value in ENVIRONMENT.items():
        patches.setenv(name, value)
    patches.setattr(flags, "_used", flags.StoreFlags())  # an earlier command's, in this process
    server.fault = None
    server.empty()


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        pass


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server with one empty bucket, stopped at the end."""
    application = DomainDispatcherApplication(create_backend_app)
    server = Server("")

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        kind, key = _kind(environ), environ["PATH_INFO"].removeprefix(f"/{BUCKET}").removeprefix("/")
        begin = re.match(r"bytes=(\d+)-", environ.get("HTTP_RANGE", ""))
        status = server.fault(kind, key) if server.fault else None
        if status is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            server.log.append(Request(kind, key, None, status, 0, 0))
            if status == 0:
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError
            start_response(f"{status} Fault", [("Content-Type", "application/xml"), ("Connection", "close")])
            code = {503: "SlowDown", 403: "AccessDenied"}.get(status, "InternalError")
            return [f"<Error><Code>{code}</Code><Message>on demand</Message></Error>".encode()]
        said: list[str] = []

        def start(status: str, *rest: Any) -> Any:
            said.append(status)
            return start_response(status, *rest)

        content = b"".join(application(environ, start))
        received = int(environ.get("CONTENT_LENGTH") or 0)
        sent = 0 if kind == "HEAD" else len(content)
        server.log.append(Request(kind, key, int(begin[1]) if begin else None, int(said[0].split()[0]), sent, received))
        if server.torn and kind == "GET":
            server.torn -= 1
            return _torn(content, environ["werkzeug.socket"])
        return [content]

    http = make_server(host, 0, counted, threaded=True, request_handler=_Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        server.client = boto3.session.Session().client("s3", endpoint_url=server.url, **keys)
        server.client.create_bucket(Bucket=BUCKET)
        server.empty()  # moto's buckets are its process's, whichever server made them
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def _torn(content: bytes, connection: socket.socket) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def _kind(environ: dict[str, Any]) -> str:
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    if "uploadId=" in query:
        return {"PUT": "PART", "POST": "COMPLETE", "DELETE": "ABORT"}[method]
    if method == "POST":
        return "CREATE" if "uploads" in query else "DELETE"
    return "LIST" if "list-type" in query else str(method)
