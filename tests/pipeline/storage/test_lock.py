"""One conversion at a time in a folder: whose lock is believed, and what goes on without the kernel's."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from commands import Run, assert_refused

from pipeline.storage import lock
from schemas.dataset import CARD, LOCK
from schemas.errors import UserError

HOLD = """
import fcntl, json, os, socket, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
file.flush()
print("held", flush=True)
time.sleep(60)
"""
ELSEWHERE = json.dumps({"host": "elsewhere", "process": os.getpid(), "started": 1.0})


def held_by(content: str, output: Path) -> Path:
    output.mkdir()
    (output / LOCK).write_text(content)
    return output / LOCK


def test_a_second_conversion_into_the_folder_is_refused(archives: Path, tmp_path: Path, convert: Run) -> None:
    path = held_by("", tmp_path / "o")
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert_refused(convert(*flags), f"found one on {socket.gethostname()}, process {other.pid}")
        assert_refused(convert(*flags, f"--staging={tmp_path}/elsewhere"), f"found one on .*, process {other.pid}")
        other.kill()
    status, _, err = convert(*flags)  # the process is gone: its lock is no obstacle
    assert (status, err) == (0, "")
    assert not path.exists()


def test_on_a_local_disk_a_container_may_have_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_on_local_disk", lambda _: True)
    path = held_by(ELSEWHERE, tmp_path / "o")
    with lock.locked(str(tmp_path / "o")):
        assert json.loads(path.read_text())["host"] == socket.gethostname()
    assert not path.exists()


def test_on_a_shared_disk_another_hosts_lock_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_on_local_disk", lambda _: False)
    path = held_by(ELSEWHERE, tmp_path / "o")
    with pytest.raises(UserError, match="found one on elsewhere, process"), lock.locked(str(tmp_path / "o")):
        pass
    assert path.read_text() == ELSEWHERE


@pytest.mark.parametrize(("kind", "is_local"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False)])
def test_which_disks_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_local: bool) -> None:
    found = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype=kind),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: found)
    assert lock._on_local_disk(str(tmp_path / "o" / LOCK)) == is_local


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK])
def test_without_the_kernels_locks_the_files_words_keep_others_out(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    flags = (f"--input={archives}/test", f"--output={tmp_path}/o")
    path = held_by(ELSEWHERE, tmp_path / "o")
    assert_refused(convert(*flags), "found one on elsewhere")
    started = psutil.Process().create_time()
    here = {"host": socket.gethostname(), "process": os.getpid()}
    path.write_text(json.dumps({**here, "started": started}))
    assert_refused(convert(*flags), f"found one on {socket.gethostname()}, process {os.getpid()}")
    path.write_text(json.dumps({**here, "started": started - 1}))  # the number was another process's
    assert convert(*flags)[0] == 0
    assert (tmp_path / "o" / CARD).exists()
    assert not path.exists()


def test_a_lock_that_was_taken_over_is_left_to_who_took_it(tmp_path: Path) -> None:
    with lock.locked(str(tmp_path)):
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text(ELSEWHERE)
    assert (tmp_path / LOCK).read_text() == ELSEWHERE


@pytest.mark.parametrize("content", ["", "\0" * 80])
def test_a_torn_lock_is_no_obstacle(tmp_path: Path, content: str) -> None:
    path = held_by(content, tmp_path / "o")
    with lock.locked(str(tmp_path / "o")):
        assert path.read_text() != content


@pytest.mark.parametrize("content", ["mine", "[]", '{"host": "x"}', "\x7fELF"])
def test_a_file_of_that_name_that_is_no_lock_stays(archives: Path, tmp_path: Path, convert: Run, content: str) -> None:
    path = held_by(content, tmp_path / "o")
    assert_refused(
        convert(f"--input={archives}/test", f"--output={tmp_path}/o"), f"found a {LOCK} in it that no conversion wrote"
    )
    assert path.read_text() == content


def test_a_lock_that_is_no_file_is_not_waited_for(archives: Path, tmp_path: Path, convert: Run) -> None:
    (tmp_path / "o").mkdir()
    os.mkfifo(tmp_path / "o" / LOCK)
    assert_refused(convert(f"--input={archives}/test", f"--output={tmp_path}/o"), "expected a file, found something")
