"""--origin: whose handwriting it is, on the card and wherever that is repeated; nothing is claimed without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import converted
from html_file import HtmlFile

from pipeline import Settings, inspect, verify
from schemas.dataset import read_card
from schemas.errors import UserError

HOMEPAGE = "https://nlpr.ia.ac.cn/databases/handwriting/home.html"


@pytest.mark.parametrize(
    ("flags", "said", "terms"),
    [
        (["--origin=casia"], "CASIA-HWDB", ["academic", "ICDAR", "Pattern Recognition", "Benchmarking", HOMEPAGE]),
        (["--origin=drawn"], "drawn by hwdb sample", []),
        ([], "isn't on the card", []),
    ],
)
def test_the_card_its_side_file_and_the_report_say_the_same(
    flags: list[str], said: str, terms: list[str], archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = converted(tmp_path / "set", f"--input=test={archives}/test", *flags)
    assert inspect.main([str(folder), "--html", str(tmp_path / "report.html")]) == 0
    assert verify.main([str(folder)]) == 0, capsys.readouterr().out
    origin = read_card(folder).origin
    assert bool(origin and origin.name == said) == bool(flags)
    report = HtmlFile((tmp_path / "report.html").read_text()).sections["origin"]
    card = json.dumps(json.loads((folder / "dataset.json").read_text()).get("origin", "isn't on the card"))
    side = (folder / "dataset_info.json").read_text()
    for text in (report, card):
        assert said in text
        assert "\\x0a" not in text  # lines that were shown as a control character
    for text in (report, card, side):
        assert all(term in text for term in terms)
        assert ("CASIA" in text) == (HOMEPAGE in text) == bool(terms)


def test_an_origin_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--origin mine: expected casia or drawn"):
        Settings(inputs=["x"], output="y", origin="mine")
