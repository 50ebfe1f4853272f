"""Signals: one line and a status of its own for each, whoever swallows what; others' handlers stay."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

from schemas.command import run_command, signals
from schemas.command.signals import Ended, heeding_signals

NUMBERS = {signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP", signal.SIGINT: "interrupted"}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("moment", ["at work", "on its way out"])
def test_a_signal_is_one_line(number: signal.Signals, moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def body() -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            if moment == "on its way out" and number != signal.SIGINT:
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


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "pipeline.inspect"],
        ["-m", "pipeline", "inspect"],
        ["hwdb", "inspect"],
    ],
)
def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "hwdb").write_text("import schemas.command")
    (tmp_path / "argparse.py").write_text("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background ignores it
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_a_signal_in_what_an_import_executes_ends_by_its_status(tmp_path: Path) -> None:
    """As in a dataclass being made: Python would end the process by SIGINT, whatever the signal was."""
    (tmp_path / "command.py").write_text(
        "import sys\n"
        "from schemas.command import run_command\n"
        """body = lambda: exec("import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)")\n"""
        """sys.exit(run_command("pipeline.inspect", body))"""
    )
    ended = subprocess.run(
        [sys.executable, "-m", "command"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (143, "pipeline.inspect: ended by SIGTERM\n")


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_handlers_are_put_back_and_others_left_alone() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with heeding_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    with pytest.raises(Ended, match="ended by SIGTERM") as ended, heeding_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with heeding_signals():  # what was heard is forgotten
        pass


@pytest.mark.usefixtures("handlers")
def test_what_a_signal_broke_or_something_swallowed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's compiler, for one, makes a SystemError of a KeyboardInterrupt, or goes on."""

    def broken(number: int) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise SystemError("returned a result with an exception set") from None

    def swallowed(number: int) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
        time.sleep(30)

    monkeypatch.setattr(signals, "_AGAIN_SECONDS", 0.2)
    for body in (broken, swallowed):
        with pytest.raises(KeyboardInterrupt), heeding_signals():
            body(signal.SIGINT)
        with pytest.raises(Ended), heeding_signals():
            body(signal.SIGTERM)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with pytest.raises(ZeroDivisionError), heeding_signals():
        _ = 1 // 0


@pytest.mark.usefixtures("handlers")
def test_a_long_clean_up_is_left_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_AGAIN_SECONDS", 0.1)
    cleaned = []

    def body() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            time.sleep(0.3)
            cleaned.append(True)
        return 0

    assert run_command("pipeline.convert", body) == 143
    assert cleaned
