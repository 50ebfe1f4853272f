"""What the command does beside bytes: splits, fractions, class lists, broken records."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import gnt_files
import pytest
from commands import Run, rows_of

from pipeline import verify
from schemas.dataset import STAGING_FOLDER, read_card


def test_a_good_run_prints_its_table_and_nothing_else(archives: Path, tmp_path: Path, convert: Run) -> None:
    status, out, err = convert(f"--input={archives}/train", f"--input=test={archives}/test", f"--output={tmp_path}/o")
    assert (status, err) == (0, "")
    table = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert table["train"] == ["test"]
    assert table["kept"] == ["114", "38"]
    assert table["dropped"] == ["6", "2"]
    assert re.search(r"^  outside_class_set +6 +2$", out, flags=re.MULTILINE)
    assert "outside_class_set: its character isn't in the class list" in out
    assert table["writers"] == ["3", "1"]
    assert not (tmp_path / "o" / STAGING_FOLDER).exists()


def test_validation_takes_whole_writers_and_always_the_same(tmp_path: Path, convert: Run) -> None:
    for writer in range(1001, 1041):
        path = tmp_path / "in" / f"{writer}-c.gnt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gnt_files.member(gnt_files.records_of("啊阿", seed=writer)))
        symbols = tmp_path / "in" / f"{writer}-f.gnt"
        symbols.write_bytes(gnt_files.member(gnt_files.records_of("A", seed=writer)))
    chosen = []
    for out, fraction in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
        status, _, _ = convert(
            f"--input={tmp_path}/in", f"--output={tmp_path}/{out}", f"--validation_fraction={fraction}"
        )
        assert status == 0
        by_split = {(row["writer"], row["split"]) for row in rows_of(tmp_path / out)}
        assert len(by_split) == 40
        chosen.append({writer for writer, split in by_split if split == "validation"})
    assert chosen[0] == chosen[1] < chosen[2]
    assert 4 <= len(chosen[0]) <= 16


def test_sample_fraction_drops_by_hash_evenly_over_shards(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃挨" * 150)))
    flags = ("--sample_fraction=0.5", "--num_shards=train=4")
    status, _, _ = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o", *flags)
    assert status == 0
    reasons = Counter(row["reason"] for row in rows_of(tmp_path / "o"))
    assert reasons.keys() == {None, "not_sampled"}
    assert 240 <= reasons["not_sampled"] <= 360
    assert all(40 <= shard.records <= 120 for shard in read_card(tmp_path / "o").split("train").shards)


def test_a_shard_that_nothing_falls_into_is_a_file_too(tmp_path: Path, convert: Run) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃")))
    status, _, _ = convert(f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o", "--num_shards=train=9")
    assert status == 0
    keys = [hashlib.blake2b(f"train/1001-c.gnt/{i}".encode(), digest_size=8).digest() for i in range(3)]
    expected = Counter(int.from_bytes(key, "big") * 9 >> 64 for key in keys)
    shards = read_card(tmp_path / "o").split("train").shards
    assert [shard.records for shard in shards] == [expected[number] for number in range(9)]
    assert all((tmp_path / "o" / shard.path).stat().st_size == shard.bytes for shard in shards)
    assert verify.main([str(tmp_path / "o")]) == 0


def test_another_class_list_gives_other_labels(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "classes.txt").write_text("硷\nA\n啊\n")
    convert(f"--input={archives}/train", f"--output={tmp_path}/o", f"--classes={tmp_path}/classes.txt")
    labels = {row["char"]: row["label"] for row in rows_of(tmp_path / "o") if row["status"] == "kept"}
    assert labels == {"硷": 0, "A": 1, "啊": 2}
    assert (tmp_path / "o/classes.txt").read_text() == "硷\nA\n啊\n"


def test_broken_records_are_rejected_one_by_one(tmp_path: Path, convert: Run) -> None:
    records = gnt_files.records_of("啊阿埃挨哎唉哀皑癌蔼" * 30)
    parts = [gnt_files.record(*record) for record in records]
    parts[5] = (7).to_bytes(4, "little") + parts[5][4:]
    parts[50] = parts[50][:6] + b"\0\0" + parts[50][8:]
    parts[70] = (10).to_bytes(4, "little") + parts[70][4:6] + b"\0\0\0\0"
    parts[90] = gnt_files.record(gnt_files.tag("啊"), gnt_files.strokes(1) | 255)
    parts[-1] = parts[-1][:-100]
    (tmp_path / "1001-c.gnt").write_bytes(b"".join(parts))
    flags = (f"--input={tmp_path}/1001-c.gnt", f"--output={tmp_path}/o")
    status, _, err = convert(*flags)
    assert status == 2
    assert "expected at most 1.00% of the records rejected, found 5 of 300" in err
    assert "1001-c.gnt" in err
    assert not (tmp_path / "o/dataset.json").exists()
    status, out, err = convert(*flags, "--max_reject_fraction=0.02")
    assert (status, err) == (0, "")
    found = rows_of(tmp_path / "o")
    assert {row["record_index"]: row["reason"] for row in found if row["status"] == "rejected"} == {
        5: "header_mismatch",
        50: "header_mismatch",
        70: "empty_bitmap",
        90: "blank",
        299: "truncated",
    }
    assert sum(row["source_bytes"] for row in found) == (tmp_path / "1001-c.gnt").stat().st_size  # type: ignore[misc]
    assert "header_mismatch: size, width and height in its header disagree" in out


def test_links_to_folders_are_followed_and_loops_end(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(archives / "train")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert convert(f"--input={tmp_path}/in", f"--output={tmp_path}/o")[0] == 0
    assert read_card(tmp_path / "o").split("train").writers == 3


def test_a_shells_many_paths_are_all_read(archives: Path, tmp_path: Path, convert: Run) -> None:
    paths = sorted(archives.glob("train/*.gnt"))
    assert convert("--input", *paths, "--output", tmp_path / "o")[0] == 0
    assert read_card(tmp_path / "o").split("train").writers == 3


@pytest.mark.engine
def test_what_beam_and_its_workers_log_is_shown_where_it_is_asked_for(
    archives: Path, tmp_path: Path, convert: Run
) -> None:
    flags = [f"--input={archives}/train", "--direct_num_workers=1", "--direct_running_mode=multi_processing"]
    status, _, err = convert(*flags, f"--output={tmp_path}/loud", "--log_level=info")
    assert status == 0
    assert re.search(r"^[\d-]+ [\d:,]+ INFO apache_beam\.\S+: starting control server", err, flags=re.MULTILINE)
    assert "Control channel established." in err, "a worker's words"
    assert "DEBUG" not in err
