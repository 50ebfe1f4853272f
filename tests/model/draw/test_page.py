"""The page in a real browser: strokes by mouse and finger are read as they grow, pictures when they come."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from drawn_shapes import STROKES, picture_of, shapes_recogniser

from model.draw.server import PageServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
DESKTOP, PHONE = (1100, 760), (390, 844)
PATIENCE = 20_000  # milliseconds, of which a read takes some ten


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with PageServer(shapes_recogniser(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(url)
    yield page
    context.close()
    assert not complaints


def draw(page: Page, character: str, shift: float = 0.0) -> None:
    box = page.locator("#field").bounding_box()
    assert box is not None
    for stroke in STROKES[character]:
        points = [(box["x"] + x * box["width"] + shift, box["y"] + y * box["height"] + shift) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=8)
        page.mouse.up()


def expect(page: Page, said: str) -> None:
    """Waits for the answer to the last change, and for what it says."""
    says = "text => !asking && asked === changed && document.getElementById('said').textContent.includes(text)"
    page.wait_for_function(says, arg=said, timeout=PATIENCE)


def first(page: Page) -> str:
    return page.locator("#answers li b").first.inner_text()


@pytest.mark.parametrize("character", list(STROKES))
def test_strokes_are_read(page: Page, character: str) -> None:
    draw(page, character)
    expect(page, f"Read as {character}.")
    assert first(page) == character
    assert page.locator("#answers li span").first.inner_text().endswith(" %")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_answers_before_the_pen_is_lifted(page: Page) -> None:
    box = page.locator("#field").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2, steps=8)
    expect(page, "Read as 一.")
    page.mouse.up()


def test_undo_and_clear(page: Page) -> None:
    draw(page, "十")
    expect(page, "Read as 十.")
    page.get_by_text("Undo").click()
    expect(page, "Read as 一.")
    page.keyboard.press("Control+z")
    expect(page, "Nothing drawn yet.")
    assert page.get_by_text("Undo").is_disabled()
    draw(page, "口")
    expect(page, "Read as 口.")
    page.get_by_text("Clear").click()
    expect(page, "Nothing drawn yet.")
    assert first(page) == ""
    assert page.locator("#seen").get_attribute("src") is None


def test_what_the_network_sees_is_the_drawing(page: Page) -> None:
    draw(page, "十")
    expect(page, "Read as 十.")
    seen: Any = page.evaluate("document.getElementById('seen').src")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(seen.split(",")[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image.shape == (64, 64)
    inner = slice(10, -10)
    assert image[32, inner].max() < 100  # its horizontal stroke, dark from side to side
    assert image[inner, 32].max() < 100
    assert image[16, 16] == 255


def test_a_finger_draws_as_a_mouse_does(page: Page) -> None:
    box = page.locator("#field").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    y = box["y"] + box["height"] / 2
    for kind, x in (("touchStart", 0.1), ("touchMove", 0.5), ("touchMove", 0.9), ("touchEnd", None)):
        points = [] if x is None else [{"x": box["x"] + x * box["width"], "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page, "Read as 一.")
    assert page.evaluate("scrollY") == 0


def test_a_picture_is_read_and_a_stroke_takes_its_place(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "口.png"
    path.write_bytes(cv2.imencode(".png", picture_of("口"))[1].tobytes())
    page.locator("#file").set_input_files(path)
    expect(page, "Read as 口.")
    draw(page, "一")
    expect(page, "Read as 一.")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page: Page, kind: str) -> None:
    png = cv2.imencode(".png", picture_of("口"))[1].tobytes()
    page.evaluate(
        """([kind, bytes]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
            const event = kind === "drop"
                ? new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true})
                : new ClipboardEvent(kind, {clipboardData: files, bubbles: true});
            document.body.dispatchEvent(event);
        }""",
        [kind, list(png)],
    )
    expect(page, "Read as 口.")


def test_what_is_no_picture_gets_a_line(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"nothing")
    page.locator("#file").set_input_files(path)
    expect(page, "can't open this as a picture")


def test_the_page_is_one_file_and_fetches_nothing(page: Page, url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    draw(page, "十")
    expect(page, "Read as 十.")
    assert {address for address in asked if not address.startswith(("data:", "blob:"))} == {url, f"{url}read"}
