"""PyTorch's DataLoader on records: every one once, the same order for any number of workers, exact where it goes on.

Without torch a stand-in keeps what DataLoader promises of a dataset, a sampler and batch_size=None.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_stand_in
from tiny_dataset import write_dataset

from pipeline.reader.dataset import open_dataset
from pipeline.reader.records import Records

RECORDS, BATCH = 107, 8
WORKERS = (0, 2, 4)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    folder = write_dataset(tmp_path_factory.mktemp("torch") / "set", {"train": RECORDS})
    return open_dataset(folder).records("train", "record_index != 3")


@pytest.fixture(params=WORKERS)
def adapter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """pipeline.reader.torch, and options of DataLoader."""
    try:
        import torch  # noqa: F401
    except ImportError:
        if request.param:
            pytest.skip("PyTorch isn't installed, and the stand-in has no workers")
        torch_stand_in.install(monkeypatch)
    module = importlib.import_module("pipeline.reader.torch")
    module.options = {"num_workers": request.param}  # type: ignore[attr-defined]
    return module


def seen(batches: Any) -> list[tuple[bytes, list[int]]]:
    return [(np.asarray(images).tobytes(), np.asarray(labels).tolist()) for images, labels in batches]


def epochs_of(records: Records, epochs: int) -> list[tuple[bytes, list[int]]]:
    """What every reader has to hand out: read one record after the other."""
    order = records.order(BATCH, seed=3)
    pairs = [[records[int(at)] for at in order[number]] for number in range(epochs * len(order))]
    return [(b"".join(image.tobytes() for image, _ in batch), [label for _, label in batch]) for batch in pairs]


def test_every_record_once_an_epoch_in_the_same_order(adapter: Any, records: Records) -> None:
    loader = adapter.Loader(records, records.order(BATCH, seed=3), **adapter.options)
    found = seen(loader) + seen(loader)
    assert found == epochs_of(records, 2)
    first = [image for images, _ in found[: len(loader)] for image in np.frombuffer(images, "V256").tolist()]
    assert len(set(first)) == len(first) == len(records)


@pytest.mark.parametrize("stop", [1, 9, 14, 20])
def test_a_loader_goes_on_exactly_where_another_ended(adapter: Any, records: Records, stop: int) -> None:
    loader = adapter.Loader(records, records.order(BATCH, seed=3), **adapter.options)
    before: list[Any] = []
    while len(before) < stop:
        for batch in loader:
            before += seen([batch])
            if len(before) == stop:  # its workers have read ahead
                break
    state = json.loads(json.dumps(loader.order.state_dict()))
    resumed = adapter.Loader(records, records.order(BATCH, seed=3), **adapter.options)
    resumed.order.load_state_dict(state)
    after = seen(resumed)
    while len(before) + len(after) < 2 * len(loader):
        after += seen(resumed)
    assert before + after == epochs_of(records, 2)


def test_the_same_as_a_stream(adapter: Any, records: Records) -> None:
    from torch.utils.data import DataLoader

    order = records.order(BATCH, seed=3)
    loader = DataLoader(adapter.Batches(records, order), batch_size=None, **adapter.options)
    order.number = len(order) + 4
    assert seen(loader) == epochs_of(records, 2)[len(order) + 4 :]


def test_a_dataset_for_a_loader_that_makes_its_own_batches(records: Records) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch isn't installed")
    for workers in WORKERS:
        loader = torch.utils.data.DataLoader(records, batch_size=BATCH, num_workers=workers)
        labels = [label for _, batch in loader for label in batch.tolist()]
        assert labels == records.labels.tolist()


_LOOP = """
import hashlib, json, os, pathlib, sys, time
from pipeline import open_dataset
from pipeline.reader.torch import Loader

folder, workers, place = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
records = open_dataset(folder).records("train")
loader = Loader(records, records.order(8, seed=3), num_workers=workers)
learnt = ""
if place.exists():
    saved = json.loads(place.read_text())
    loader.order.load_state_dict(saved["order"])
    learnt = saved["learnt"]
while loader.order.epoch < 2:
    for images, labels in loader:
        learnt = hashlib.sha256(learnt.encode() + images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
        place.with_suffix(".new").write_text(json.dumps({"order": loader.order.state_dict(), "learnt": learnt}))
        os.replace(place.with_suffix(".new"), place)
        time.sleep(0.02)
"""


@pytest.mark.parametrize("workers", WORKERS)
def test_killed_and_resumed_it_has_learnt_what_it_would_have(records: Records, tmp_path: Path, workers: int) -> None:
    pytest.importorskip("torch", reason="PyTorch isn't installed")
    whole, place = open_dataset(records.data.folder).records("train"), tmp_path / "state"
    wanted = ""
    for image_bytes, labels in epochs_of(whole, 2):
        wanted = hashlib.sha256(wanted.encode() + image_bytes + np.array(labels, np.int32).tobytes()).hexdigest()
    command = [sys.executable, "-c", _LOOP, records.data.folder, str(workers), str(place)]
    for until in (5, 19):
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 120
            while not place.exists() or json.loads(place.read_text())["order"]["number"] < until:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert json.loads(place.read_text())["learnt"] == wanted
