"""The inspect command: its figures, SQL and errors, each against a count of the test's own."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gnt_files
import numpy as np
import pytest
from commands import Run, converted
from inspected import originals, tagged

# The summary


def test_the_summary_counts_what_the_archives_hold(dataset: Path, archives: Path, inspect: Run) -> None:
    status, out, _ = inspect(dataset, "--format", "json")
    assert status == 0
    facts = json.loads(out)
    records = {
        split: [r for name, r in originals(archives).items() if name.startswith(split)] for split in ("train", "test")
    }
    for split, own in records.items():
        shown = facts["splits"][split]
        assert shown["counts"]["read"] == len(own)
        assert shown["counts"]["dropped"] == {"outside_class_set": len(own) // 20}
        assert shown["source_bytes"] == sum(p.stat().st_size for p in (archives / split).iterdir())
        assert shown["shard_bytes"] == sum(p.stat().st_size for p in dataset.glob(f"{split}-*.tfrecord"))
        widths = [bitmap.shape[1] for _, _, bitmap in own]
        assert shown["width_pixels"] == {"least": min(widths), "median": float(np.median(widths)), "most": max(widths)}
        ink = [100 * np.mean(bitmap < 255) for _, _, bitmap in own]
        assert shown["ink_percent"]["most"] == pytest.approx(max(ink))
    assert facts["without_records"] == 3754 - 38
    assert facts["rarest"][0][1] == facts["commonest"][0][1] == 4
    assert facts["missing"] == facts["shared_writers"] == facts["identical"]["examples"] == []
    _, text, _ = inspect(dataset)
    assert [line.split() for line in text.splitlines() if line.startswith("kept")] == [["kept", "114", "38"]]
    assert "not recognised as one of CASIA's archives" in text


def test_the_summary_tells_leaks_gaps_and_shared_writers(dirty: Path, inspect: Run) -> None:
    facts = json.loads(inspect(dirty, "--format", "json")[1])
    assert facts["identical"]["across"] == 2
    assert facts["identical"]["within"] == {"train": 1, "test": 0}
    assert facts["identical"]["labelled_differently"] == 0
    assert ["test/1-c.gnt/0", "train/1-c.gnt/0", 2] in facts["identical"]["examples"]
    assert facts["shared_writers"] == [["1", "test, train"]]
    gaps = {(one["split"], one["writer"]): (one["characters"], one["examples"]) for one in facts["missing"]}
    kept = {"啊", "阿", "唉", "哎", "挨"}  # of train: the blank 埃 is nobody's
    assert gaps["train", "1"] == (2, "挨哎")
    assert gaps["train", "<img src=x onerror=alert(1)>"] == (len(kept) - 3, "啊唉")
    status, text, _ = inspect(dirty)
    assert status == 0
    assert "LEAK, bitmaps in more than one split: 2" in text
    assert "  blank" in text
    assert "its picture holds no ink" in text


def test_a_label_on_two_equal_bitmaps_can_differ(tmp_path: Path, inspect: Run) -> None:
    bitmap = gnt_files.strokes(1)
    (tmp_path / "1-c.gnt").write_bytes(gnt_files.member(tagged([("啊", bitmap), ("阿", bitmap), ("啊", bitmap)])))
    facts = json.loads(inspect(converted(tmp_path / "set", f"--input={tmp_path}"), "--format=json")[1])
    assert facts["identical"]["labelled_differently"] == 1
    assert facts["identical"]["within"] == {"train": 2}


def test_real_handwriting_repeats_as_often_as_its_bytes_do(real: Path, tmp_path: Path, inspect: Run) -> None:
    folder = converted(tmp_path / "set", f"--input={real}/20-characters")
    characters = set((folder / "classes.txt").read_text().split())
    seen = Counter(
        (bitmap.shape, bitmap.tobytes())
        for path in (real / "20-characters").glob("*.gnt")
        for _, tag, bitmap in gnt_files.parse(path.read_bytes())
        if tag.decode("gbk") in characters
    )
    repeated = sum(n - 1 for n in seen.values())
    assert repeated > 0
    assert json.loads(inspect(folder, "--format=json")[1])["identical"]["within"] == {"train": repeated}


# SQL


def test_the_question_of_the_readme_has_its_answer(dataset: Path, archives: Path, inspect: Run) -> None:
    sql = "SELECT writer, member, record_index, source_offset FROM manifest WHERE char = '硷' ORDER BY writer"
    expected = sorted(
        (name.split("/")[1][:4], name.split("/")[1], int(name.split("/")[2]), offset)
        for name, (offset, tag, _) in originals(archives).items()
        if tag == gnt_files.tag("硷")
    )
    assert len(expected) == 4
    as_json = json.loads(inspect(dataset, "--sql", sql, "--format", "json")[1])
    assert [tuple(row.values()) for row in as_json] == expected
    as_csv = list(csv.reader(io.StringIO(inspect(dataset, "--sql", sql, "--format", "csv")[1])))
    assert as_csv[0] == ["writer", "member", "record_index", "source_offset"]
    assert [tuple(row) for row in as_csv[1:]] == [tuple(map(str, row)) for row in expected]
    as_table = inspect(dataset, "--sql", sql)[1].splitlines()
    assert [tuple(line.split()) for line in as_table[1:]] == [tuple(map(str, row)) for row in expected]


def test_a_table_ends_somewhere_and_an_empty_answer_is_one(dataset: Path, inspect: Run) -> None:
    _, out, _ = inspect(dataset, "--sql", "SELECT 7 AS n FROM manifest, range(100)")
    assert len(out.splitlines()) == 1 + 500 + 1
    assert "… and 15,500 more rows" in out
    assert json.loads(inspect(dataset, "--sql", "FROM manifest WHERE false", "--format=json")[1]) == []
    assert json.loads(inspect(dataset, "--sql", "SELECT 'nan'::FLOAT AS x, [1] AS y", "--format=json")[1]) == [
        {"x": None, "y": [1]}
    ]
    assert "\x1b" not in inspect(dataset, "--sql", "SELECT chr(27) AS escape")[1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{part}'",
        "SELECT * FROM glob('/*')",
        "COPY manifest TO '{target}'",
        "COPY (SELECT 1 AS x) TO '{part}'",
        "WITH x AS (COPY (SELECT 1 AS x) TO '{part}') SELECT 1",
        "EXPORT DATABASE '{target}'",
        "ATTACH '{target}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT * FROM secret_frame",
        "SELECT 1; COPY manifest TO '{target}'",
    ],
)
def test_sql_sees_the_manifest_and_nothing_else(dataset: Path, tmp_path: Path, inspect: Run, sql: str) -> None:
    secret, target = tmp_path / "secret.csv", tmp_path / "target"
    secret.write_text("password\nhunter2\n")
    secret_frame = __import__("pandas").DataFrame({"password": ["hunter2"]})
    part = sorted((dataset / "manifest").iterdir())[0]
    before = part.read_bytes()
    status, out, err = inspect(dataset, "--sql", sql.format(secret=secret, target=target, part=part))
    assert status == 2, out
    assert len(err.splitlines()) == 1
    assert "hunter2" not in out + err
    assert not target.exists()
    assert part.read_bytes() == before
    assert len(secret_frame)


# Errors


def test_what_is_wrong_is_said_in_one_line(dataset: Path, tmp_path: Path, inspect: Run) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    sorted((broken / "manifest").iterdir())[0].write_bytes(b"PAR1 no PAR1")
    lacking = tmp_path / "lacking"
    shutil.copytree(dataset, lacking)
    sorted((lacking / "manifest").iterdir())[1].unlink()
    for arguments, said in {
        (tmp_path,): "expected dataset.json, found none",
        (tmp_path / "none",): "expected the folder of a data set, found none",
        (broken,): "python -m pipeline.verify says what is damaged",
        (broken, "--sql", "SELECT count(*) FROM manifest"): "pipeline.verify",
        (lacking,): "expected a part of the manifest, found none",
        (dataset, "--sql", "SELECT nope FROM manifest"): "DESCRIBE manifest lists its columns",
        (dataset, "--format", "csv"): "expected --sql with it",
        (dataset, "--against", "x.zip"): "expected show, --html or --checksums with it",
        (dataset, "--sql", "SELECT 1", "--index"): "not allowed with",
        (dataset, "show"): "expected either SAMPLE_IDs or --char",
        (dataset, "show", "train/1001-c.gnt/999"): "expected a sample_id like t",
        (dataset, "show", "--char", "云"): "expected records of char 云, found none",
        (dataset, "show", "--char", "啊", "--output", "x.jpg"): "ends in .png",
        ("diff", dataset): "arguments are required",
        ("diff", dataset, tmp_path): "expected dataset.json",
        (): "arguments are required",
    }.items():
        status, out, err = inspect(*arguments)
        assert (status, out) == (2, ""), arguments
        assert len(err.splitlines()) == 1, err
        assert said in err, arguments


def test_without_duckdb_it_says_how_to_get_it(dataset: Path, inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for arguments in ([], ["--sql", "SELECT 1"], ["--html", "x.html"], ["--index"]):
        status, _, err = inspect(dataset, *arguments)
        assert status == 2
        assert "pip install '.[inspect]'" in err


def test_help_waits_for_no_library() -> None:
    code = (
        "import sys; from pipeline.inspect import main\n"
        "for a in (['--help'], ['x', 'show', '--help'], ['diff', '--help']):\n"
        "    try: main(a)\n"
        "    except SystemExit as e: assert e.code == 0\n"
        "heavy = {'duckdb', 'pyarrow', 'numpy', 'cv2', 'rich', 'apache_beam'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--sql QUERY" in done.stdout
