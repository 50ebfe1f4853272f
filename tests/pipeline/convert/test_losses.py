"""What was lost is said, and held against the limit by its bytes too: a member that isn't GNT is one reject."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import gnt_files
import pytest
from apache_beam.metrics import MetricsFilter
from commands import Run, assert_refused, converted, rows_of
from damaged import findings, reseal

from pipeline import ConvertArchives, Settings, inspect, verify
from schemas.dataset import Card, MemberInput, read_card
from schemas.manifest import LOST_REASONS

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n" * 700
NOISE = bytes(range(1, 256)) * 200
CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good members, a web page, bytes of no kind, one cut to a third, an empty one, one of symbols."""
    folder = tmp_path_factory.mktemp("lost") / "in"
    folder.mkdir()
    for writer in range(1001, 1011):
        (folder / f"{writer}-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of(CHARACTERS, seed=writer)))
    whole = gnt_files.member(gnt_files.records_of(CHARACTERS, seed=1))
    odd = {"1011": HTML, "1012": NOISE, "1013": whole[: len(whole) // 3], "1014": b""}
    for writer, data in odd.items():
        (folder / f"{writer}-c.gnt").write_bytes(data)
    (folder / "1001-f.gnt").write_bytes(gnt_files.member(gnt_files.records_of("AB")))
    return folder


@pytest.fixture(scope="module")
def lossy(folder: Path) -> Path:
    return converted(folder.parent / "lossy", f"--input={folder}", "--max_reject_fraction=0.3")


def entries(data: Path) -> dict[str, MemberInput]:
    return {entry.member: entry for entry in read_card(data).inputs}


def test_four_members_gone_are_more_than_three_rejects(folder: Path, tmp_path: Path, convert: Run) -> None:
    flags = (f"--input={folder}", f"--output={tmp_path}/o", "--max_reject_fraction=0.02")
    status, _, err = convert(*flags)
    assert_refused((status, "", err), "train: expected at most 2.00% of the bytes in no sound record, found ")
    assert f"1011-c.gnt ({len(HTML):,} of {len(HTML):,}, an HTML page)" in err
    assert f"1012-c.gnt ({len(NOISE):,} of {len(NOISE):,}, header_mismatch)" in err
    assert "1011-c.gnt is an HTML page; it is what a download that failed leaves: download it again" in err
    assert not (tmp_path / "o/dataset.json").exists()


def test_nothing_but_empty_members_is_said(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").touch()
    refused = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o")
    assert_refused(refused, "found none among 0; empty, 0 bytes: 1001-c.gnt; download them again")


def test_what_is_no_gnt_alone_is_not_to_be_allowed(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(HTML)
    status, _, err = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o")
    assert_refused((status, "", err), "most of them in 1001-c.gnt; 1001-c.gnt is an HTML page; it is what a download")
    assert "--max_reject_fraction" not in err


def test_the_card_counts_every_lost_byte(folder: Path, lossy: Path) -> None:
    lost: dict[str, int] = {}
    for row in rows_of(lossy):
        if row["reason"] in LOST_REASONS:
            lost[row["member"]] = lost.get(row["member"], 0) + row["source_bytes"]
    found = entries(lossy)
    assert {name: entry.lost_bytes for name, entry in found.items() if entry.lost_bytes} == lost
    assert lost.keys() == {"1011-c.gnt", "1012-c.gnt", "1013-c.gnt"}
    assert lost["1011-c.gnt"] == (folder / "1011-c.gnt").stat().st_size
    assert {name: entry.what for name, entry in found.items() if entry.what} == {"1011-c.gnt": "an HTML page"}
    assert found["1014-c.gnt"].bytes == 0


def test_the_summary_names_them(folder: Path, tmp_path: Path, convert: Run) -> None:
    status, out, err = convert(f"--input={folder}", f"--output={tmp_path}/o", "--max_reject_fraction=0.3")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "empty members, 0 bytes: 1014-c.gnt (train); download them again" in lines
    assert (
        "members without a kept record: 1001-f.gnt (train: 2 outside_class_set), 1011-c.gnt (train: an HTML page), "
        "1012-c.gnt (train: 1 header_mismatch)"
    ) in lines
    (line,) = [line for line in lines if line.startswith("bytes in no sound record: ")]
    assert line.index("1011-c.gnt") < line.index("1012-c.gnt") < line.index("1013-c.gnt")
    assert "truncated)" in line


def test_inspect_and_its_report_name_them(lossy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(lossy)]) == 0
    assert inspect.main([str(lossy), "--html", str(tmp_path / "report.html")]) == 0
    shown, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    for text in (shown, page):
        assert "empty members, 0 bytes: 1014-c.gnt (train)" in text
        assert "1011-c.gnt (train: an HTML page)" in text
        assert "bytes in no sound record: " in text
    assert "passed over: nothing" in shown
    assert inspect.main([str(lossy), "--format=json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["losses"]) == 3


def test_a_good_set_lost_nothing(archives: Path, tmp_path: Path, convert: Run) -> None:
    _, out, _ = convert(f"--input={archives}/train", f"--output={tmp_path}/o")
    assert not any(word in out for word in ("empty members", "without a kept", "no sound record", "passed over"))
    assert inspect.main([f"{tmp_path}/o"]) == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"Rar!\x1a\x07\0" + bytes(3000), "1001-c.gnt is a RAR archive; unpack it with unrar or 7-Zip"),
        (HTML, "1001-c.gnt is an HTML page; it is what a download that failed leaves"),
    ],
)
def test_a_member_that_is_none_is_called_by_its_name(tmp_path: Path, convert: Run, content: bytes, says: str) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(content)
    gnt_files.write_zip(tmp_path / "a.zip", {"1001-c.gnt": content})
    for path in ("1001-c.gnt", "a.zip"):
        for flags in ((), ("--max_reject_fraction=1",)):
            status, out, err = convert(f"--input={tmp_path}/{path}", f"--output={tmp_path}/o", *flags)
            assert_refused((status, out, err), says)
            assert "damaged" not in err


def test_many_members_that_are_none_are_one_line(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "in").mkdir()
    for number in range(150):
        (tmp_path / "in" / f"{number}-c.gnt").write_bytes(HTML[:200])
    status, out, err = convert(f"--input={tmp_path}/in", f"--output={tmp_path}/o")
    assert_refused((status, out, err), "an HTML page and 92 more; it is what")


def test_verify_takes_the_losses_from_the_rows(folder: Path, lossy: Path) -> None:
    assert findings(lossy) == []
    assert verify.main([str(lossy), "--against", str(folder), "--all"]) == 0


def change_member(name: str, **changes: object) -> Callable[[Card], Card]:
    def edit(card: Card) -> Card:
        return replace(card, inputs=[replace(e, **changes) if e.member == name else e for e in card.inputs])

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change_member("1012-c.gnt", lost_bytes=0), "expected lost_bytes 51,000, found 0 on the card"),
        (change_member("1001-c.gnt", lost_bytes=1), "expected lost_bytes 0, found 1 on the card"),
        (change_member("1001-c.gnt", what="a PDF"), "expected what='a PDF' of a member without a sound record only"),
        (change_member("1001-c.gnt", lost_bytes=None), "expected passed_over, and lost_bytes of every member"),
        (lambda card: replace(card, passed_over=None), "expected passed_over, and lost_bytes of every member"),
        (
            lambda card: replace(card, passed_over=replace(card.passed_over, count=3)),
            "expected passed_over to count its kinds",
        ),
    ],
)
def test_verify_finds_another_loss_on_the_card(
    lossy: Path, tmp_path: Path, edit: Callable[[Card], Card], says: str
) -> None:
    copy = tmp_path / "out"
    os.makedirs(copy / "manifest")
    for path in lossy.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(lossy)).write_bytes(path.read_bytes())
    reseal(copy, edit)
    assert any(says in line for line in findings(copy)), findings(copy)


def test_verify_finds_another_kind_than_the_archive_says(
    folder: Path, lossy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card(lossy)
    edited = change_member("1011-c.gnt", what="a PDF")(card)
    before = (lossy / "dataset.json").read_text()
    try:
        (lossy / "dataset.json").write_text(edited.to_json())
        assert verify.main([str(lossy), "--against", str(folder)]) == 1
    finally:
        (lossy / "dataset.json").write_text(before)
    assert "expected what='an HTML page', as the archive says, found 'a PDF'" in capsys.readouterr().out


def test_an_engine_counts_what_the_card_does(folder: Path, tmp_path: Path) -> None:
    settings = Settings([str(folder)], str(tmp_path / "out"), max_reject_fraction=0.3, num_shards={"train": 3})
    with beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as root:
        _ = root | ConvertArchives(settings)
    found = root.result.metrics().query(MetricsFilter().with_namespace("hwdb"))["counters"]
    counted = Counter[str]()
    for counter in found:
        counted[counter.key.metric.name] += counter.committed
    counts = read_card(tmp_path / "out").splits["train"].counts
    assert set(counts.rejected) >= {"truncated", "header_mismatch"}
    assert counted == {
        "kept": counts.kept,
        **{f"dropped {reason}": records for reason, records in counts.dropped.items()},
        **{f"rejected {reason}": records for reason, records in counts.rejected.items()},
    }
