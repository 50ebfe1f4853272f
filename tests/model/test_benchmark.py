"""The benchmark's arithmetic, and one small run of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from model import benchmark
from model.network import flops
from model.network.vgg import build_vgg
from schemas.errors import UserError


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
    assert shown.count("  float32  ") == 4
    ratio = rows[-1]["ms_per_step"] / rows[-2]["ms_per_step"]
    assert f"loop: {ratio:.3f} of the bare step (float32, without XLA, 1 replicas)" in shown
    assert benchmark.main([*arguments, "--replica_batch", "100", "--stages", "input"]) == 2
    assert "expected at least one batch" in capsys.readouterr().err
    assert benchmark.main(["--data", str(tmp_path / "none"), "--stages", "input"]) == 2
    assert "expected the folder of a data set" in capsys.readouterr().err


def test_a_row_is_shown_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], archives: Path, tmp_path: Path
) -> None:
    """And what is there when a configuration fails, or Ctrl-C comes, has been shown."""
    data = tiny_run.data_set(tmp_path, archives)
    shown: list[str] = []
    failed: list[str] = []
    row = {
        "stage": "forward", "precision": "float32", "xla": False, "replicas": 1, "global_batch": 8,
        "ms_per_step": 2.5, "images_per_second": 3_200.0, "share_of_peak": None,
    }  # fmt: skip

    def told(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"machine": {"gpus": [], "cpu_cores": 2, "tensorflow": "2"}, "rows": []}
        yield {"rows": [row]}
        printed = capsys.readouterr()
        shown.append(printed.out)
        failed.append(printed.err)
        if job["config"]["xla"]:
            raise UserError("no room")
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_apart", told)
    flags = ["--data", str(data), "--replica_batch", "8", "--xla", "both", "--stages", "forward"]
    assert benchmark.main(flags) == 130
    assert "no GPU; 2 CPU cores; TensorFlow 2\nstage " in shown[0]
    assert all(
        "forward             float32    off         1        8      3,200        2.50   unknown" in s for s in shown
    )
    assert failed == ["", "model.benchmark: no room\n"]
    assert capsys.readouterr().err == "model.benchmark: interrupted\n"


def test_without_a_gpu_the_defaults_are_those_of_a_laptop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], archives: Path, tmp_path: Path
) -> None:
    data = tiny_run.data_set(tmp_path, archives)
    capsys.readouterr()
    for gpu, said in ((False, "no GPU: --replica_batch 8 --xla off\n"), (True, "")):
        jobs: list[dict[str, Any]] = []
        monkeypatch.setattr(benchmark, "has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr(benchmark, "benchmark", lambda asked, _, jobs=jobs: jobs.extend(asked) or 0)
        assert benchmark.main(["--data", str(data)]) == 0
        assert capsys.readouterr().out == said
        found = {(job["config"]["global_batch"], job["config"].get("xla")) for job in jobs}
        assert found == ({(256, None), (256, True), (256, False)} if gpu else {(8, None), (8, False)})


def test_a_slow_machine_is_timed_by_fewer_rounds() -> None:
    from model.benchmark.timing import median_seconds

    calls: list[float] = []

    def call() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.05)

    assert median_seconds(call, lambda _: None, 0.01) == pytest.approx(0.05, rel=0.5)
    assert len(calls) == 2 + 1 + 1
    calls.clear()
    median_seconds(call, lambda _: None, 0.2)
    assert len(calls) == 2 + 1 + 5
