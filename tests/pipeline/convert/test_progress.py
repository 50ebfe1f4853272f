"""How far a conversion is: what other conversions have left in the folder doesn't count, and silence is explained."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Run
from places import ROOT
from rich.console import Console

import pipeline
from pipeline.convert import progress
from pipeline.convert.plan import plan_conversion
from pipeline.convert.progress import Meter, shown
from pipeline.shards import publish
from schemas.errors import UserError


def test_pieces_of_other_settings_and_inputs_are_no_progress(archives: Path, tmp_path: Path) -> None:
    kept = pipeline.Settings(
        [f"{archives}/train"],
        f"{tmp_path}/kept",
        staging=f"{tmp_path}/pieces",
        num_shards={"train": 2},
        keep_staging=True,
    )
    pipeline.run_conversion(kept)
    again = replace(kept, output=f"{tmp_path}/again")
    assert (Meter(plan_conversion(again)).read().records, Meter(plan_conversion(again)).read().fraction) == (120, 0.6)
    for other in (
        replace(again, image_size=32),
        replace(again, num_shards={"train": 3}),
        replace(again, inputs=[f"test={archives}/test"], num_shards={}),
    ):
        reading = Meter(plan_conversion(other)).read()
        assert (reading.records, reading.fraction) == (0, 0.0)
    more = replace(again, inputs=[f"{archives}/train", f"test={archives}/test"])
    assert Meter(plan_conversion(more)).read().records == 120


def test_another_try_in_the_same_folder_begins_at_nothing(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise UserError("as if it were interrupted")

    monkeypatch.setattr(publish, "write_card", stopped)
    settings = pipeline.Settings([f"{archives}/train"], f"{tmp_path}/o", num_shards={"train": 2})
    assert convert(f"--input={archives}/train", f"--output={tmp_path}/o", "--num_shards=train=2")[0] == 2
    assert Meter(plan_conversion(settings)).read().fraction == 1.0
    assert Meter(plan_conversion(replace(settings, image_size=32))).read().fraction == 0.0
    # Half of the input is new: the finished shards are to be written again.
    more = replace(settings, inputs=[f"{archives}/train", f"{archives}/test"])
    reading = Meter(plan_conversion(more)).read()
    assert (reading.records, 0.3 < reading.fraction < 0.5) == (120, True)
    assert reading.left is None, "what another run has done tells nothing of the pace"


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (True, "compiling the steps, once on this machine"),
        (False, "compiling the steps, every time, since Numba finds no folder to keep them in"),
    ],
)
def test_seconds_of_compiling_are_no_silence(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, words: str
) -> None:
    monkeypatch.setattr(progress, "_COMPILE_SECONDS", 0.02)
    monkeypatch.setattr(progress, "compiling", lambda: (1.0, kept))
    said = io.StringIO()
    meter = Meter(plan_conversion(pipeline.Settings([f"{archives}/train"], f"{tmp_path}/o")))
    with shown(meter, Console(file=said, soft_wrap=True)):
        time.sleep(0.2)
    assert said.getvalue() == f"{words}\n"


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_conversion_on_a_machine_says_what_it_does(archives: Path, tmp_path: Path, workers: str) -> None:
    command = [sys.executable, "-m", "pipeline.convert", f"--input={archives}/test", f"--direct_num_workers={workers}"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": f"{tmp_path}/numba"}
    for output in ("first", "second")[: int(workers)]:
        ended = subprocess.run(
            [*command, f"--output={tmp_path}/{output}"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("compiling the steps, once on this machine" in ended.stdout) == (output == "first")
