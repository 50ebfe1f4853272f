"""What XLA compiled is there at the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from model.network import compiled

START = """
from model.network.compiled import keep_compiled
folder = keep_compiled(kind="CPU")
import tensorflow as tf
power = tf.function(lambda x: tf.nn.relu(x @ x + 1), jit_compile=True)
print(folder, float(tf.reduce_sum(power(tf.ones([3, 3])))))
"""


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path: Path) -> None:
    """A module that is compiled is written."""
    found = []
    for _ in range(2):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", START]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        folder, result = done.stdout.split()
        assert float(result) == 36
        found.append({path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()})
    assert found[0]
    assert found[0] == found[1]


def test_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    monkeypatch.setattr(compiled, "_machine", list)
    assert compiled.keep_compiled() is None
    monkeypatch.setattr(compiled, "_machine", lambda: ["a driver", "a GPU"])
    assert compiled.keep_compiled() is None  # a space in its name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert compiled.keep_compiled() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    with monkeypatch.context() as patches:
        patches.setattr(os.path, "expanduser", lambda path: path)  # of a user without a home
        assert compiled.keep_compiled() is None
    assert "TF_XLA_FLAGS" not in os.environ
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/elsewhere")
    assert compiled.keep_compiled() is None
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=0")
    folder = compiled.keep_compiled()
    assert f"--tf_xla_auto_jit=0 --tf_xla_persistent_cache_directory={folder} " in os.environ["TF_XLA_FLAGS"]


def test_the_oldest_go_first(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        path = tmp_path / ("another TensorFlow" if age % 2 else "this") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    compiled.trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["a", "b"]
