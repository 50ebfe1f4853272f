"""The benchmark's arithmetic, and one small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_run

from model import benchmark
from model.benchmark import flops
from model.network.vgg import build_vgg


def test_flops_are_those_of_the_papers() -> None:
    vgg19 = build_vgg("vgg19", 64, 1, 3754)
    assert flops.forward_flops(vgg19) / 2 == pytest.approx(1.63e9, rel=0.003)
    assert flops.training_flops(vgg19) == 3 * flops.forward_flops(vgg19)
    # By hand: each convolution makes size² × filters products of 9 × channels.
    sides, channels, total = (32, 16, 8, 8, 4, 4, 2, 2), 1, 0
    for side, filters in zip(sides, (8, 16, 32, 32, 64, 64, 64, 64), strict=True):
        total += side * side * filters * 9 * channels
        channels = filters
    total += 64 * 10 + 10 * 10 + 10 * 7
    model = build_vgg("vgg11", 32, 1, 7, width=0.125, dense_width=10)
    assert flops.forward_flops(model) == 2 * total


def test_peaks() -> None:
    assert flops.peak_tflops("NVIDIA H200", "bfloat16") == 989
    assert flops.peak_tflops("NVIDIA H100 80GB HBM3", "float16") == 989
    assert flops.peak_tflops("NVIDIA H100 PCIe", "bfloat16") == 756
    assert flops.peak_tflops("NVIDIA A100-SXM4-40GB", "float32") == 156
    assert flops.peak_tflops("NVIDIA L40S", "float32") == 183
    assert flops.peak_tflops("Something else", "float32") is None


@pytest.mark.slow
def test_the_command_times_every_stage(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_run.data_set(tmp_path, archives)
    arguments = ["--data", str(data), "--arch", "vgg11", "--width", "0.02", "--replica_batch", "8", "--seconds", "0.1"]
    arguments += ["--xla", "off", "--precision", "float32", "--augment", "none"]
    assert benchmark.main([*arguments, "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    stages = ["input, memory", "input, stream", "forward", "forward_backward", "step", "loop"]
    assert [row["stage"] for row in rows] == stages
    for row in rows:
        assert row["images_per_second"] == pytest.approx(8 / (row["ms_per_step"] / 1e3))
    shown = capsys.readouterr().out
    assert "forward + backward" in shown
    ratio = rows[-1]["ms_per_step"] / rows[-2]["ms_per_step"]
    assert f"loop: {ratio:.3f} of the bare step (float32, without XLA, 1 replicas)" in shown
    assert benchmark.main([*arguments, "--replica_batch", "100", "--stages", "input"]) == 2
    assert "expected at least one batch" in capsys.readouterr().err
    assert benchmark.main(["--data", str(tmp_path / "none"), "--stages", "input"]) == 2
    assert "expected the folder of a data set" in capsys.readouterr().err
