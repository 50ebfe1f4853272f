"""A conversion that is killed, wherever it stood, ends with the same bytes when the same command runs again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import gnt_files
import psutil
import pytest
from commands import digests

from schemas.dataset import CARD, STAGING_FOLDER
from schemas.machine import without_temporary_mark

pytestmark = [pytest.mark.engine, pytest.mark.slow]
MEMBERS, RECORDS = 48, 250
KILLS = int(os.environ.get("HWDB_KILLS", "8"))


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    data = gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * (RECORDS // 10)))
    for writer in range(MEMBERS):
        (folder / f"{1001 + writer}-c.gnt").write_bytes(data)
    return folder


def command(members: Path, output: Path) -> list[str]:
    flags = ["--num_shards=train=6", "--direct_num_workers=2", "--keep_staging"]
    return [sys.executable, "-m", "pipeline.convert", f"--input={members}", f"--output={output}", *flags]


def start(members: Path, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(members, output),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # In the background of a script a shell has Ctrl-C ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def committed(output: Path) -> dict[str, int]:
    """Receipts of the staged chunks and shards that an earlier run finished: name -> when."""
    found = (output / STAGING_FOLDER).rglob("*.json")
    return {path.name: path.stat().st_mtime_ns for path in found if path.name == without_temporary_mark(path.name)}


def begun(output: Path) -> set[str]:
    """Temporary files and pieces without a receipt: what was being made when the conversion was killed."""
    finished = {name.removesuffix(".json") for name in committed(output)}
    names = {path.name for path in (output / STAGING_FOLDER).rglob("chunk-*")}
    return names - finished - committed(output).keys()


def chunks_of(files: set[str]) -> set[str]:
    """A chunk killed while its receipt was written left two files: the piece, and the temporary receipt."""
    return {without_temporary_mark(name).removesuffix(".json") for name in files}


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The forked workers: children of the one process whose command names the fork server."""
    children = psutil.Process(process.pid).children(recursive=True)
    parents = {child.ppid() for child in children} - {process.pid}
    return [child for child in children if child.ppid() in parents]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(members: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    undisturbed = subprocess.run(command(members, tmp_path / "undisturbed"), capture_output=True, text=True, check=True)
    took = time.monotonic() - began
    assert undisturbed.stderr == ""
    expected = digests(tmp_path / "undisturbed")
    moments = random.Random(7)
    output, kills, conversions, lost = tmp_path / "killed-0", 0, 0, []
    finished: dict[str, int] = {}
    unfinished: set[str] = set()
    while kills < KILLS or not (output / CARD).exists():
        process = start(members, output)
        if kills < KILLS:
            time.sleep(moments.uniform(0.3, 1.0) * took)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        process.communicate()
        now = committed(output)
        if (output / CARD).exists():  # kept are chunks; a shard's receipt is of no use to another conversion
            finished = {name: when for name, when in finished.items() if name.startswith("chunk-")}
        assert {name: now.get(name) for name in finished} == finished, "a finished piece was made again"
        lost.append(len(chunks_of(begun(output) - unfinished)))
        finished, unfinished = now, begun(output)
        if (output / CARD).exists():
            assert digests(output) == expected
            conversions += 1
            if kills < KILLS:
                output, finished, unfinished = tmp_path / f"killed-{conversions}", {}, set()
    print(f"{kills} kills over {conversions} conversions of {MEMBERS} chunks; each lost {max(lost)} chunks at most")
    assert max(lost) <= 2  # one for each worker


def test_a_killed_worker_ends_the_command_with_one_line(members: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(members, output)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (committed(output) and workers_of(process)):
        time.sleep(0.02)
    killed = time.monotonic()
    workers_of(process)[0].send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - killed < 30
    assert process.returncode == 1, (out, err)
    assert err.count("\n") == 1, err
    assert "a worker process was killed by SIGKILL" in err
    assert "the same command goes on from where it stopped" in err
    before = committed(output)
    assert before
    again = subprocess.run(command(members, output), capture_output=True, text=True, check=True)
    assert again.stderr == ""
    after = committed(output)
    assert {name: after.get(name) for name in before if name.startswith("chunk-")}.items() <= before.items()


def test_workers_that_have_only_begun_end_with_the_command(members: Path, tmp_path: Path) -> None:
    process = start(members, tmp_path / "out")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not workers_of(process):
        time.sleep(0.002)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    for survivor in alive:
        survivor.kill()
    assert not alive


def test_an_interrupted_command_leaves_no_process(members: Path, tmp_path: Path) -> None:
    process = start(members, tmp_path / "out")
    while not committed(tmp_path / "out"):
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count("\n")) == (130, 1), err
    assert "interrupted; the same command goes on" in err
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
