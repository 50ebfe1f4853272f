"""Evaluation: every sample once, whatever the batch and the replicas, held to TensorFlow's own reader and parser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_run
from places import ROOT

from model import evaluate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Path:
    return tiny_run.data_set(tmp_path_factory.mktemp("evaluate"), archives)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_run(tmp_path_factory.mktemp("evaluate") / "run")


@pytest.fixture(scope="module")
def truth(data: Path, run: Path) -> dict[str, tuple[int, int, float, int]]:
    """sample_id -> (label, prediction, probability, rank), read and computed without the code under test."""
    import tensorflow as tf

    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "sample_id": tf.io.FixedLenFeature([], tf.string),
    }
    paths = sorted(map(str, data.glob("train-*.tfrecord")))
    examples = [tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(paths)]
    images = np.stack([np.frombuffer(e["image"].numpy(), np.uint8).reshape(64, 64, 1) for e in examples])
    found = {}
    for example, logits in zip(examples, tiny_run.logits_one_by_one(run, images), strict=True):
        label = int(example["label"])
        order = np.argsort(-logits, kind="stable").tolist()
        likely = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
        found[example["sample_id"].numpy().decode()] = (label, order[0], likely[order[0]], order.index(label) + 1)
    return found


def read_rows(path: Path) -> dict[str, tuple[int, int, float, int]]:
    rows = pq.read_table(path).to_pylist()
    found = {row["sample_id"]: (row["label"], row["prediction"], row["probability"], row["rank"]) for row in rows}
    assert len(found) == len(rows)
    return found


def agree(rows: dict[str, tuple[int, int, float, int]], truth: dict[str, tuple[int, int, float, int]]) -> bool:
    assert rows.keys() == truth.keys()
    return all(
        row[:2] == truth[key][:2] and row[3] == truth[key][3] and row[2] == pytest.approx(truth[key][2], abs=1e-5)
        for key, row in rows.items()
    )


@pytest.mark.parametrize("batch", ["7", "64", "1000"])
def test_a_row_for_each_sample_whatever_the_batch(
    data: Path,
    run: Path,
    truth: dict[str, tuple[int, int, float, int]],
    batch: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "rows.parquet"
    arguments = [
        "--model",
        str(run),
        "--data",
        str(data),
        "--split",
        "train",
        "--batch",
        batch,
        "--output",
        str(output),
    ]
    assert evaluate.main(arguments) == 0
    assert len(truth) == 72
    assert agree(read_rows(output), truth)
    right = sum(rank == 1 for _, _, _, rank in truth.values())
    in_five = sum(rank <= 5 for _, _, _, rank in truth.values())
    printed = capsys.readouterr().out
    assert f"({right} right, {72 - right} wrong)" in printed
    assert f"({in_five} right, {72 - in_five} wrong)" in printed
    assert "\x1b" not in printed


def test_a_part_of_a_split(
    data: Path, run: Path, truth: dict[str, tuple[int, int, float, int]], tmp_path: Path
) -> None:
    output = tmp_path / "rows.parquet"
    flags = ["--split=train", "--where=writer > '1001' AND record_index < 9", f"--output={output}"]
    assert evaluate.main([f"--model={run}", f"--data={data}", *flags]) == 0
    some = {key: row for key, row in truth.items() if "1001" not in key and int(key.rpartition("/")[2]) < 9}
    assert len(some) == 2 * 9
    assert agree(read_rows(output), some)
    assert pq.read_schema(output).metadata[b"where"] == b"writer > '1001' AND record_index < 9"


def test_rows_join_the_manifest_and_writers_are_counted(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--model", str(run), "--data", str(data), "--split", "test"]) == 0
    rows = pq.read_table(run / evaluate.EVALUATION)
    assert rows.schema.remove_metadata().equals(evaluate.EVALUATION_SCHEMA.remove_metadata())
    manifest = pq.read_table(data / "manifest").to_pandas()
    kept = manifest[(manifest.status == "kept") & (manifest.split == "test")]
    joined = rows.to_pandas().merge(kept, on="sample_id", suffixes=("", "_manifest"), validate="one_to_one")
    assert len(joined) == len(kept) == len(rows) == 24
    assert (joined.label == joined.label_manifest).all()
    (writer,) = set(kept.writer)
    right = int((joined.label == joined.prediction).sum())
    assert any(line.split()[:3] == [writer, "24", str(24 - right)] for line in capsys.readouterr().out.splitlines())


@pytest.mark.slow
def test_two_replicas_find_what_one_finds(
    data: Path, run: Path, truth: dict[str, tuple[int, int, float, int]], tmp_path: Path
) -> None:
    output = tmp_path / "rows.parquet"
    command = [sys.executable, "-m", "model.evaluate", "--model", run, "--data", data, "--split", "train"]
    command += ["--batch", "10", "--replicas", "2", "--output", output]
    done = subprocess.run(list(map(os.fspath, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert agree(read_rows(output), truth)


def test_device_score_agrees_with_the_metrics_on_ties() -> None:
    import tensorflow as tf

    from model.answers import metrics
    from model.answers.scoring import score

    rng = np.random.default_rng(1)
    logits = rng.integers(0, 4, (50, 6)).astype(np.float32)
    labels = rng.integers(0, 6, 50).astype(np.int32)
    columns = score(tf.constant(logits), tf.constant(labels), 0.5)
    prediction, probability, raw_probability, rank, loss = columns
    likely = metrics.softmax(logits)
    assert np.array_equal(prediction, logits.argmax(1))
    orders = np.argsort(-logits, axis=1, kind="stable").tolist()
    assert rank.numpy().tolist() == [order.index(label) + 1 for order, label in zip(orders, labels, strict=True)]
    assert np.allclose(raw_probability, likely.max(1), atol=1e-6)
    assert np.allclose(probability, (likely**2 / (likely**2).sum(1, keepdims=True)).max(1), atol=1e-6)
    assert np.allclose(loss, -np.log(likely[np.arange(50), labels]), atol=1e-5)


def test_calibrating_mends_the_probabilities_and_changes_no_answer(
    data: Path, truth: dict[str, tuple[int, int, float, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run.make_run(tmp_path / "run")
    flags = ["--model", str(run), "--data", str(data), "--split", "train"]
    assert evaluate.main(flags) == 0
    assert "isn't calibrated" in capsys.readouterr().out
    assert evaluate.main([*flags, "--calibrate"]) == 0
    printed = capsys.readouterr().out
    trust = json.loads((run / "calibration.json").read_text("utf-8"))
    assert (trust["split"], trust["samples"]) == ("train", 72)
    assert f"temperature {trust['temperature']:.3f}, from 72 samples of train" in printed
    rows = read_rows(run / evaluate.EVALUATION)
    assert all(rows[key][1] == answer[1] and rows[key][3] == answer[3] for key, answer in truth.items())
    # The expected calibration error of both, by a loop over the rows.
    before, after = (calibration_error([(row[2], row[3] == 1) for row in found.values()]) for found in (truth, rows))
    assert f"Expected calibration error {before:.2%}, with the temperature {after:.2%}" in printed
    assert after < before
    # The table's row of the run's own threshold.
    given = [row for row in rows.values() if row[2] >= trust["threshold"]]
    rights = sum(row[3] == 1 for row in rows.values())
    kept = sum(row[3] == 1 for row in given)
    refused = len(rows) - len(given) - (rights - kept)
    (line,) = [line for line in printed.splitlines() if "(this run's)" in line]
    assert line.split()[-3:] == [
        f"{kept / rights:.2%}", f"{refused / (len(rows) - rights):.2%}", f"{kept / len(given):.2%}",
    ]  # fmt: skip


def calibration_error(samples: list[tuple[float, bool]]) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for probability, right in samples:
        bins.setdefault(min(14, int(15 * probability)), []).append((probability, right))
    return sum(abs(sum(p - r for p, r in samples)) for samples in bins.values()) / len(samples)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert evaluate.main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err
    assert error.startswith("model.evaluate: ")
    assert error.count("\n") == 1
    return error


def test_refusals_in_one_line(data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = ["--data", data, "--split", "train"]
    fewer = tiny_run.make_run(tmp_path / "fewer", characters=tiny_run.CHARACTERS[:-1])
    assert "its class list (24 characters) isn't that of" in failure(capsys, "--model", fewer, *fine)
    small = tiny_run.make_run(tmp_path / "small", image_size=32)
    assert "image_size: 64, trained with 32" in failure(capsys, "--model", small, *fine)
    foreign = tiny_run.make_run(tmp_path / "foreign", format=2)
    assert "expected format 1, found 2" in failure(capsys, "--model", foreign, *fine)
    (foreign / "config.json").write_text("[1]")
    assert "expected the configuration of a training run" in failure(capsys, "--model", foreign, *fine)
    unfinished = tiny_run.make_run(tmp_path / "unfinished")
    (unfinished / "model.keras").unlink()
    assert "the training isn't finished" in failure(capsys, "--model", unfinished, *fine)
    (unfinished / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    assert "model.keras: can't be read" in failure(capsys, "--model", unfinished, *fine)
    (unfinished / "model.keras").write_bytes((small / "model.keras").read_bytes())
    assert "model and config.json are of two runs" in failure(capsys, "--model", unfinished, *fine)
    (unfinished / "classes.txt").write_text("一\n二\n")
    assert "isn't the class list the run was trained with" in failure(capsys, "--model", unfinished, *fine)
    assert "name it with --data" in failure(capsys, "--model", data, *fine)
    assert "expected the folder of a training run, found none" in failure(capsys, "--model", tmp_path / "no", *fine)
    assert "no split 'validation'" in failure(capsys, "--model", run, "--data", data, "--split", "validation")
    assert "expected the folder of a data set" in failure(capsys, "--model", run, "--data", tmp_path / "no")
    assert "--batch 0" in failure(capsys, "--model", run, *fine, "--batch", 0)
    blocked = tmp_path / "file"
    blocked.touch()
    assert "can't write" in failure(capsys, "--model", run, *fine, "--output", blocked / "rows.parquet")


def test_a_damaged_model_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run.make_run(tmp_path / "run")
    whole = (run / "model.keras").read_bytes()
    for place in range(0, len(whole), len(whole) // 12):
        damaged = bytearray(whole)
        damaged[place : place + 9] = b"\xff" * 9
        (run / "model.keras").write_bytes(damaged)
        capsys.readouterr()
        if evaluate.main(["--model", str(run), "--data", str(data)]):
            error = capsys.readouterr().err
            assert re.fullmatch(r"model\.evaluate: \S+model\.keras: .*; .*\n", error)
    assert "found a file; name the folder it lies in" in failure(capsys, "--model", run / "model.keras", "--data", data)


def test_a_calibration_on_a_handful_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run.make_run(tmp_path / "run")
    assert evaluate.main(["--model", str(run), "--data", str(data), "--calibrate"]) == 0
    doubts = json.loads((run / "calibration.json").read_text())["doubts"]
    assert re.fullmatch(r"\d+ right answers among 24 samples are too few for a threshold, which takes 149", doubts)
    assert doubts in capsys.readouterr().out


def test_a_damaged_shard_is_named(
    archives: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_run.data_set(tmp_path, archives)
    (shard,) = data.glob("train-*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    error = failure(capsys, "--model", run, "--data", data, "--split", "train")
    assert re.search(r"train-00000-of-00001\.tfrecord: record \d+ at byte [\d,]+ isn't what its checksum says", error)
    card = json.loads((data / "dataset.json").read_text())
    card["splits"]["train"]["shards"][0]["bytes"] -= 1
    (data / "dataset.json").write_text(json.dumps(card))
    assert "expected" in failure(capsys, "--model", run, "--data", data, "--split", "train")


def test_several_workers_are_refused_before_they_are_waited_for(
    data: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = {"cluster": {"worker": ["a.invalid:1", "b.invalid:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert evaluate.main(["--model", str(run), "--data", str(data), "--split", "train"]) == 2
    assert "TF_CONFIG: expected one worker, the rows go to one file; unset it" in capsys.readouterr().err
