"""`inspect diff`: what two data sets don't have in common."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gnt_files
from commands import Run, converted, inputs


def test_diff_finds_settings_records_labels_and_pixels(
    dataset: Path, archives: Path, tmp_path: Path, inspect: Run
) -> None:
    whole = inputs(archives)
    assert inspect("diff", dataset, dataset) == (0, "the same settings, records, labels and pixels\n", "")

    def found(other: Path) -> dict[str, tuple[int, list[str]]]:
        status, out, _ = inspect("diff", dataset, other, "--format", "json")
        assert status == 1
        return {one["kind"]: (one["count"], one["examples"]) for one in json.loads(out)["differences"]}

    png = found(converted(tmp_path / "png", *whole, "--image_encoding=png", "--num_shards=train=2"))
    assert png == {"settings": (1, ["config.image_encoding: raw | png"])}

    # Another order of classes and 硷 among them: other labels, the same pixels.
    classes = tmp_path / "classes.txt"
    classes.write_text("硷\n" + "".join((dataset / "classes.txt").read_text().splitlines(keepends=True)))
    labels = found(converted(tmp_path / "labels", *whole, f"--classes={classes}", "--num_shards=train=2"))
    assert set(labels) == {"settings", "status or reason", "labels"}
    members = ("test/1241", "train/1001", "train/1002", "train/1003")
    assert labels["status or reason"] == (4, [f"{m}-c.gnt/38: dropped outside_class_set | kept" for m in members])
    assert labels["labels"][0] == 4 * 39
    assert labels["labels"][1][0] == "test/1241-c.gnt/0: 0 啊 | 1 啊"

    # One bitmap with a pixel more of ink, one writer less.
    changed = tmp_path / "changed"
    shutil.copytree(archives / "train", changed)
    (changed / "1003-c.gnt").unlink()
    data = bytearray((changed / "1001-c.gnt").read_bytes())
    offset, _, bitmap = gnt_files.parse(bytes(data))[4]
    data[offset + 10 : offset + 10 + 8 * bitmap.shape[1]] = bytes(8 * bitmap.shape[1])
    (changed / "1001-c.gnt").write_bytes(data)
    pixels = found(converted(tmp_path / "pixels", f"--input={changed}", whole[1], "--num_shards=train=2"))
    assert set(pixels) == {"records only in A", "original bitmaps", "pixels"}
    assert pixels["records only in A"][0] == 40
    assert pixels["pixels"] == (1, ["train/1001-c.gnt/4"])
    status, out, _ = inspect("diff", dataset, tmp_path / "pixels")
    assert status == 1
    assert "records only in A: 40\n  train/1003-c.gnt/0: kept\n" in out
    assert "… and 35 more" in out
