"""Keras is set up as this project means it, whatever the user's environment, keras.json or notebook says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from tiny_dataset import write_dataset

from model.network import devices
from model.network.cluster import Cluster
from schemas.errors import UserError

BY_HAND = {"backend": "torch", "floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}
NO_SENSE = {"backend": 7, "floatx": "bfloat16", "epsilon": 1, "image_data_format": "sideways"}
ASK = """
import json, os, sys
from model.train import main
assert main(sys.argv[1:]) == (0 if sys.argv[1:] else 2)
from model.network.devices import setup_tensorflow
setup_tensorflow()
import keras, tensorflow as tf
names = ("backend", "floatx", "epsilon", "image_data_format")
print(json.dumps([getattr(keras.config, name)() for name in names] + [keras.config.dtype_policy().name]))
print(tf.keras.__name__, os.environ.get("KERAS_HOME"))
"""


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """Settings of which each alone used to end a training; `tmp_path` is the home of Keras."""
    flags = {"KERAS_BACKEND": "torch", "TF_USE_LEGACY_KERAS": "1", "KERAS_MAX_EPOCHS": "few", "TF_CONFIG": "{}"}
    return {**os.environ, **flags, "KERAS_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BY_HAND, NO_SENSE])
def test_the_users_settings_change_nothing(tmp_path: Path, hostile: dict[str, str], settings: dict[str, str]) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(settings), "utf-8")
    (tmp_path / "tmp").mkdir()
    data = write_dataset(tmp_path / "data", {"train": 40, "validation": 20})
    flags = ["--arch=vgg11", "--width=0.02", "--global_batch=16", "--steps=1", "--augment=light"]
    training = [f"--data={data}", f"--model_dir={tmp_path / 'run'}", *flags] if settings == BY_HAND else []
    done = subprocess.run(
        [sys.executable, "-c", ASK, *training],
        cwd=ROOT,
        env={**hostile, "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, found, names = done.stdout.splitlines()
    assert json.loads(found) == ["tensorflow", "float32", 1e-7, "channels_last", "float32"]
    assert names.endswith(f" {tmp_path}")
    assert json.loads((tmp_path / "keras.json").read_text("utf-8")) == settings
    if training:
        assert done.stderr == ""
        assert any("model.keras: the model to use" in line for line in printed)
        assert not list((tmp_path / "tmp").iterdir()), "something is left in the temporary folder"


def test_keras_on_another_backend_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    assert devices.import_keras() is keras
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UserError, match="Keras runs on jax in this process, expected tensorflow; start a new one"):
        devices.import_keras()
    with pytest.raises(UserError, match="Keras runs on jax"):
        devices.setup_tensorflow()


def test_how_many_replicas_there_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [devices.replica_count(given) for given in (None, 1, 3)] == [1, 1, 3]
    with pytest.raises(UserError, match="--replicas 0: expected 1 or more"):
        devices.replica_count(0)
    cluster = Cluster((("worker", 0), ("worker", 1)), ("a:1", "b:2"), 0)
    monkeypatch.setattr(devices, "cluster_of_environment", lambda: cluster)
    assert [devices.replica_count(given) for given in (None, 1, 2)] == [2, 2, 2]
    with pytest.raises(UserError, match=r"--replicas 3: with TF_CONFIG every worker uses its 1 device\(s\)"):
        devices.replica_count(3)


def test_tensorflow_still_takes_its_patience_with_workers() -> None:
    """What _notice_lost_workers reaches into; where it moved, TensorFlow notices a lost worker minutes later."""
    from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
    from tensorflow.python.eager import context

    assert CoordinatedJob(name="worker", num_tasks=2).num_tasks == 2
    names = context.Context.configure_coordination_service.__code__.co_varnames
    assert {"service_type", "service_leader", "heartbeat_timeout_in_ms", "coordinated_jobs"} <= set(names)
