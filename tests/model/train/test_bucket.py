"""Training from a bucket: the weights of a local run, every shard fetched once, and one line for what can't be."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import s3_server
from tiny_dataset import write_dataset

from model import evaluate
from model.train import main
from schemas.dataset import read_card

FLAGS = ["--arch=vgg11", "--width=0.0625", "--dense_width=8", "--global_batch=8", "--no-xla", "--seed=3"]


@pytest.fixture
def server(server: s3_server.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> s3_server.Server:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server


def weights(run: Path) -> list[np.ndarray]:
    return keras.models.load_model(run / "model.keras", compile=False).get_weights()


@pytest.mark.slow
def test_the_weights_are_those_of_a_local_run_and_a_resume_fetches_nothing(
    server: s3_server.Server, tmp_path: Path
) -> None:
    folder = write_dataset(tmp_path / "set", {"train": 40, "validation": 9})
    url = server.put_folder(folder, "set")
    where = "--where=record_index < 30"
    assert main([*FLAGS, where, f"--data={folder}", f"--model_dir={tmp_path / 'here'}", "--steps=4"]) == 0
    assert main([*FLAGS, where, f"--data={url}", f"--model_dir={tmp_path / 'there'}", "--steps=4"]) == 0
    for here, there in zip(weights(tmp_path / "here"), weights(tmp_path / "there"), strict=True):
        np.testing.assert_array_equal(here, there)
    shards = [shard for split in read_card(folder).splits.values() for shard in split.shards]
    fetched = [request for request in server.log if request.key.endswith(".tfrecord") and request.kind == "GET"]
    assert sum(request.sent_bytes for request in fetched) == sum(shard.bytes for shard in shards)
    fetched.clear()
    server.log.clear()
    assert evaluate.main([f"--model={tmp_path / 'there'}", f"--data={url}", "--split=validation"]) == 0
    assert main([*FLAGS, where, f"--data={url}", f"--model_dir={tmp_path / 'there'}", "--steps=4"]) == 0
    assert not [request for request in server.log if request.key.endswith(".tfrecord") and request.kind == "GET"]


@pytest.mark.slow
def test_a_streamed_run_learns_what_a_local_one_learns_and_a_damaged_shard_is_a_line(
    server: s3_server.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_dataset(tmp_path / "set", {"train": 40})
    url = server.put_folder(folder, "set")
    stream = [*FLAGS, "--input=stream", "--steps=3"]
    assert main([*stream, f"--data={folder}", f"--model_dir={tmp_path / 'here'}"]) == 0
    assert main([*stream, f"--data={url}", f"--model_dir={tmp_path / 'there'}"]) == 0
    for here, there in zip(weights(tmp_path / "here"), weights(tmp_path / "there"), strict=True):
        np.testing.assert_array_equal(here, there)
    capsys.readouterr()
    for path in (tmp_path / "cache").rglob("*.shard"):
        path.unlink()
    key = "set/train-00001-of-00003.tfrecord"
    server.put(key, server.objects(key)[""][::-1])
    assert main([*stream, f"--data={url}", f"--model_dir={tmp_path / 'damaged'}"]) == 2
    assert re.fullmatch(r"model\.train: s3://.*: isn't the shard that the card names, .*\n", capsys.readouterr().err)


def test_a_bucket_without_a_data_set_is_a_line(
    server: s3_server.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.put("empty/x", b"")
    assert main([*FLAGS, f"--data=s3://{s3_server.BUCKET}/none", f"--model_dir={tmp_path / 'run'}"]) == 2
    assert "expected dataset.json, found none" in capsys.readouterr().err
