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

from model.answers.command import run_command

COMMANDS = {
    "evaluate": ("--split", "train", "--output", "OUT"),
    "report": ("--split", "train"),
    "export": ("--format", "saved_model", "--output", "OUT"),
    "predict": ("IMAGE",),
    "benchmark": ("--stages", "forward", "--replica_batch", "8", "--xla", "off", "--seconds", "60"),
}
NUMBERS = {signal.SIGTERM: "ended by SIGTERM", signal.SIGINT: "interrupted"}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("moment", ["at work", "on its way out"])
def test_a_signal_is_one_line(number: signal.Signals, moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def body() -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            if moment == "on its way out" and number == signal.SIGTERM:
                os.kill(os.getpid(), number)  # somebody is impatient
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert run_command("model.evaluate", body) == 128 + number
    assert capsys.readouterr().err == f"model.evaluate: {NUMBERS[number]}\n"
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_callers_own_answer_to_sigterm_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        assert run_command("model.evaluate", lambda: os.kill(os.getpid(), signal.SIGTERM) or 0) == 0
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_heeds_it(name: str, archives: Path, tmp_path: Path) -> None:
    data, run = tiny_run.data_set(tmp_path, archives), tiny_run.make_run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    os.mkfifo(tmp_path / "begun")
    # Only once the body has begun is there somebody to hear a signal; its imports take longer than anything else.
    code = f"""
import sys
from model.{name} import main
import schemas.command
inner = schemas.command.run_command
def run_command(command, body):
    def begun():
        open({str(tmp_path / "begun")!r}, "w").close()
        return body()
    return inner(command, begun)
import model.answers.command
model.answers.command.schemas_command.run_command = run_command
sys.exit(main(sys.argv[1:]))
"""
    paths = {"OUT": tmp_path / "out", "IMAGE": archives / "test" / "1241-c.gnt"}
    flags = ["--model", run] * (name != "benchmark") + ["--data", data] * (name not in ("export", "predict"))
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
