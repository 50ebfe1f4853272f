"""SIGTERM and Ctrl-C end each of the model's commands with one line, and leave nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
from places import ROOT

COMMANDS = {
    "evaluate": ("--split", "train", "--output", "OUT"),
    "report": ("--split", "train"),
    "export": ("--format", "saved_model", "--output", "OUT"),
    "predict": ("IMAGE",),
    "draw": ("--port", "0"),
    "benchmark": ("--stages", "forward", "--replica_batch", "8", "--xla", "off", "--seconds", "60"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_heeds_it(name: str, archives: Path, tmp_path: Path) -> None:
    data, run = tiny_run.data_set(tmp_path, archives), tiny_run.make_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    os.mkfifo(tmp_path / "begun")
    # Only once the body has begun is there somebody to hear a signal; its imports take longer than anything else.
    code = f"""
import sys
import schemas.command
inner = schemas.command.run_command
def run_command(command, body):
    def begun():
        open({str(tmp_path / "begun")!r}, "w").close()
        return body()
    return inner(command, begun)
schemas.command.run_command = run_command
from model.{name} import main
sys.exit(main(sys.argv[1:]))
"""
    paths = {"OUT": tmp_path / "out", "IMAGE": archives / "test" / "1241-c.gnt"}
    flags = ["--model", run] * (name != "benchmark") + ["--data", data] * (name not in ("draw", "export", "predict"))
    arguments = [*flags, *(paths.get(flag, flag) for flag in COMMANDS[name])]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        (tmp_path / "begun").open().close()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 143
    assert error.splitlines()[-1] == f"model.{name}: ended by SIGTERM"
    assert "Traceback" not in error
    (tmp_path / "begun").unlink()
    assert sorted(tmp_path.rglob("*")) == before
