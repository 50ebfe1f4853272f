"""The report: one file that needs no other, whatever the names in the data hold, and that a browser draws."""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from html_file import HtmlFile

from pipeline.inspect import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(dirty: Path) -> Path:
    path = dirty.parent / "report.html"
    assert main([str(dirty), "--html", str(path)]) == 0
    return path


def test_it_is_one_file_in_which_nothing_runs_and_nothing_is_fetched(report: Path) -> None:
    page = HtmlFile(report.read_text())
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "object", "form", "base"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert sources
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    anchors = {value[1:] for _, name, value in page.attributes if name == "href"}
    assert anchors == set(page.sections)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert report.stat().st_size < 5_000_000


def test_names_in_the_data_are_text(report: Path) -> None:
    html = report.read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;-c.gnt" in html
    assert "<h1>&lt;b&gt;set &amp; more</h1>" in html


def test_every_section_says_what_the_data_holds(report: Path) -> None:
    sections = HtmlFile(report.read_text()).sections
    for said, section in {
        "Leak": "records",
        "identical bitmaps": "records",
        "its picture holds no ink": "suspicious",
        "rejected, blank (1)": "suspicious",
        "the 8 largest bitmaps": "suspicious",
        "700 × 600": "suspicious",
        "label 0, 2 kept": "characters",
        "config.preprocess.crop": "settings",
        "kept records of a character": "charts",
        "width, pixels (bins of": "charts",
        "height, pixels (bins of": "charts",
        "ink, % of a bitmap's pixels (bins of": "charts",
        "binarize": "steps",
    }.items():
        assert said.lower() in sections[section].lower(), said
    assert all(len(words) > 80 for words in sections.values()), {name: len(words) for name, words in sections.items()}


def test_its_pictures_are_the_samples_of_the_shards(dataset: Path, tmp_path: Path) -> None:
    assert main([str(dataset), "--html", str(tmp_path / "report.html")]) == 0
    html = (tmp_path / "report.html").read_text()
    stored = {name: image for shard in dataset.glob("*.tfrecord") for name, image in samples(shard.read_bytes())}
    characters = re.search(r'<section id="characters">.*?</section>', html, flags=re.DOTALL)
    assert characters
    images = re.findall(r'base64,([^"]+)" alt="(.) ([^"]+)"', characters[0])
    assert len(images) == 36 * 4
    for data, _, sample_id in images:
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.tobytes() == stored[sample_id]


def samples(shard: bytes) -> Iterator[tuple[str, bytes]]:
    """(sample_id, raw image) of each Example, by the rules of the format's page."""
    offset = 0
    while offset < len(shard):
        (length,) = struct.unpack_from("<Q", shard, offset)
        example = shard[offset + 12 : offset + 12 + length]
        end = example.rindex(b"\n\x05label") - 2
        yield example[example.rindex(b"\tsample_id") + 16 :].decode(), example[end - 64 * 64 : end]
        offset += length + 16


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the report in")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_it(report: Path, tmp_path: Path, width: int) -> None:
    assert CHROMIUM
    shot = tmp_path / "shot.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = ("--hide-scrollbars", "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}/profile")
    command = [CHROMIUM, *flags.split(), *more, f"--window-size={width},3000", f"--screenshot={shot}", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert shot.exists(), done.stderr[-500:]
    drawn = cv2.imread(str(shot))
    assert drawn.shape[1] == width
    # Nothing is wider than the page: its margin is empty.
    margin = drawn[:, -8:].reshape(-1, 3)
    assert (np.abs(margin.astype(int) - margin[0]).max(axis=1) < 4).all()
    # The funnel's blue and its rejected red, and text all the way down the page.
    for blue, green, red in ((246, 130, 59), (38, 38, 220)):
        assert (np.abs(drawn.astype(int) - (blue, green, red)).max(axis=2) < 8).sum() > 20
    inked = (cv2.cvtColor(drawn, cv2.COLOR_BGR2GRAY) < 90).any(axis=1)
    assert inked[: len(inked) // 2].mean() > 0.2
