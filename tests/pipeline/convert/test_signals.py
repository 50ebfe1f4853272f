"""Signals: one line, the status that says which, the lock let go, and nothing that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gnt_files
import psutil
import pytest
from commands import digests

from schemas.dataset import CARD, LOCK, STAGING_FOLDER, UNFINISHED

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    data = gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 100))
    for writer in range(24):
        (folder / f"{1001 + writer}-c.gnt").write_bytes(data)
    return folder


def start(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # In the background of a script a shell has Ctrl-C ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def convert(members: Path, output: Path) -> subprocess.Popen[str]:
    flags = ["--num_shards=train=4", "--direct_num_workers=2"]
    return start("-m", "pipeline.convert", f"--input={members}", f"--output={output}", *flags)


def at_work(process: subprocess.Popen[str], output: Path) -> list[psutil.Process]:
    """Waits for the first finished piece; the processes that are there then."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((output / STAGING_FOLDER).rglob("*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"),
    [
        (signal.SIGINT, "the command"),
        (signal.SIGINT, "all of its processes"),
        (signal.SIGTERM, "the command"),
        (signal.SIGHUP, "all of its processes"),
    ],
)
def test_a_signal_is_one_line_and_the_same_command_goes_on(
    members: Path, tmp_path: Path, number: signal.Signals, to: str
) -> None:
    output = tmp_path / "out"
    process = convert(members, output)
    family = at_work(process, output)
    (os.kill if to == "the command" else os.killpg)(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count("\n")) == (STATUS[number], 1), err
    word = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert err == f"pipeline.convert: {word}; the same command goes on from where it stopped\n"
    assert not (output / LOCK).exists()
    assert (output / UNFINISHED).exists()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    if number == signal.SIGTERM:
        again = convert(members, output)
        assert again.communicate()[1] == ""
        assert (output / CARD).exists()
        assert len(digests(output)) == 2 * 4 + 5


@pytest.mark.engine
@pytest.mark.slow
def test_a_second_ctrl_c_is_no_traceback(members: Path, tmp_path: Path) -> None:
    process = convert(members, tmp_path / "out")
    family = at_work(process, tmp_path / "out")
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


SWALLOWED = """
import os, signal, sys

class Optional:
    def find_spec(self, name, *_):
        if name == "apache_beam.pipeline":
            try:
                os.kill(os.getpid(), signal.{name})
                for _ in range(1000):
                    pass
            except BaseException:
                pass

sys.meta_path.insert(0, Optional())
from pipeline.convert import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_an_import_swallows_is_heeded(archives: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = SWALLOWED.format(name=number.name)
    process = start("-c", command, f"--input={archives}/train", f"--output={tmp_path}/out", "--direct_num_workers=1")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.count("\n")) == (STATUS[number], 1), err
    assert not (tmp_path / "out").exists()
