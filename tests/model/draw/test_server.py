"""The page's server: it reads what it is sent, on this machine, for its own page alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import cv2
import numpy as np
import pytest
from drawn_shapes import picture_of, shapes_recogniser

from model.draw.server import MAX_PICTURE_BYTES, PageServer
from schemas.errors import UserError


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with PageServer(shapes_recogniser(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server: PageServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


@pytest.mark.parametrize("shape", ["一", "十", "口"])
def test_a_picture_is_read(server: PageServer, shape: str) -> None:
    png = cv2.imencode(".png", picture_of(shape))[1].tobytes()
    status, content = ask(server, "POST", "/read", png, Origin=f"http://127.0.0.1:{server.server_port}")
    answer = json.loads(content)
    assert status == 200
    assert answer["candidates"][0][0] == shape
    assert answer["recognised"] is True
    assert answer["seen"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no picture", "the picture: expected a picture"),
        (b"", "the picture: expected a picture"),
        (cv2.imencode(".png", np.full((40, 40), 255, np.uint8))[1].tobytes(), "found a blank picture"),
    ],
)
def test_what_is_no_character_gets_its_line(server: PageServer, body: bytes, said: str) -> None:
    status, content = ask(server, "POST", "/read", body)
    assert status == 200
    assert said in json.loads(content)["error"]


def test_a_foreign_page_may_not_ask(server: PageServer) -> None:
    """Any page the user has open can send a request here, and can give this address a name of its own."""
    png = cv2.imencode(".png", picture_of("十"))[1].tobytes()
    assert ask(server, "POST", "/read", png, Origin="https://elsewhere.example")[0] == 403
    assert ask(server, "POST", "/read", png, Host="elsewhere.example")[0] == 403
    assert ask(server, "GET", "/", Host=f"elsewhere.example:{server.server_port}")[0] == 403
    assert ask(server, "GET", "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_what_it_does_not_serve_it_refuses(server: PageServer) -> None:
    assert ask(server, "GET", "/../pyproject.toml")[0] == 404
    assert ask(server, "POST", "/elsewhere")[0] == 404
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("POST", "/read")
    connection.putheader("Content-Length", str(MAX_PICTURE_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_taken_port_is_one_line(server: PageServer) -> None:
    with pytest.raises(UserError, match=f"can't listen on 127.0.0.1, port {server.server_port}: .*--port"):
        PageServer(shapes_recogniser(), server.server_port)
