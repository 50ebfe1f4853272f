"""What can't be printed: every command with its stdout closed, full, without a reader, or in a narrow encoding."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
from commands import converted, inputs
from places import ROOT

from schemas.command import EXIT_READER_GONE, run_command
from schemas.command.streams import prints_its_product

FULL, CLOSED, GONE = ">/dev/full", ">&-", "| true"
WAYS = {FULL: "No space left on device", CLOSED: "it is closed", GONE: ""}
CLOSED_ON_ENTRY = ">&- 2>&-"


@pytest.fixture(scope="module")
def dataset(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("words") / "out", *inputs(archives))


def run(module: str, *arguments: str | Path, way: str = "", **environment: str) -> tuple[int, bytes, str]:
    """A command in a shell, its stdout led elsewhere; its status, what reached the shell's stdout, and its stderr."""
    command = f'set -o pipefail; "$@" {way}'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", module, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    err = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in err, err
    assert "Exception ignored" not in err, err
    return done.returncode, done.stdout, err


def assert_ended(outcome: tuple[int, bytes, str], way: str) -> None:
    """A command whose product is its output: quietly where the reader has gone, else with one line."""
    status, _, err = outcome
    if way == GONE:
        assert (status, err) == (EXIT_READER_GONE, "")
    else:
        assert status == 2
        assert err.count("\n") == 1
        assert f"can't write to stdout: {WAYS[way]}" in err


def assert_went_on(outcome: tuple[int, bytes, str], way: str) -> None:
    """A command whose product is a file: a line, and the status of its work."""
    status, _, err = outcome
    assert status == 0
    assert err.count("can't write to stdout") == 1
    assert WAYS[way] in err


@pytest.mark.parametrize("way", WAYS)
def test_words_that_are_the_product(dataset: Path, way: str) -> None:
    assert_ended(run("pipeline.convert", "--help", way=way), way)
    assert_ended(run("pipeline", way=way), way)
    assert_ended(run("pipeline.verify", dataset, way=way), way)
    assert_ended(run("pipeline.inspect", dataset, "--sql", "FROM manifest", "--format=csv", way=way), way)
    assert_ended(run("pipeline.inspect", dataset, way=way), way)


@pytest.mark.parametrize("way", [FULL, CLOSED])
def test_words_beside_a_file(dataset: Path, archives: Path, tmp_path: Path, way: str) -> None:
    assert_went_on(run("pipeline.convert", *inputs(archives), f"--output={tmp_path}/out", way=way), way)
    assert (tmp_path / "out" / "dataset.json").exists()
    sample = ("--output", tmp_path / "sample", "--writers=2", "--characters=3")
    assert_went_on(run("pipeline.sample", *sample, way=way), way)
    assert (tmp_path / "sample" / "test" / "1241-c.gnt").exists()
    report = tmp_path / "report.html"
    assert_went_on(run("pipeline.inspect", dataset, "--html", report, way=way), way)
    assert report.exists()


def test_stderr_may_be_closed_too(dataset: Path, archives: Path, tmp_path: Path) -> None:
    assert run("pipeline.convert", *inputs(archives), f"--output={tmp_path}/out", way=CLOSED_ON_ENTRY)[0] == 0
    assert (tmp_path / "out" / "dataset.json").exists()
    assert run("pipeline.verify", tmp_path / "out", way=CLOSED_ON_ENTRY)[0] == 2
    assert run("pipeline.convert", "--output=x", way=CLOSED_ON_ENTRY) == (2, b"", "")
    status, out, _ = run("pipeline.verify", dataset, way="2>&-")
    assert status == 0
    assert b": intact; " in out
    assert run("pipeline.convert", "--output=x", way="2>&-") == (2, b"", "")  # no error on stdout, whose number is 1
    assert run("pipeline.convert", "--output=x", way="2>/dev/full")[0] == 2


@pytest.mark.parametrize("encoding", ["latin-1", "ascii:strict"])
def test_characters_that_an_encoding_lacks(dataset: Path, encoding: str) -> None:
    for arguments in (
        ("pipeline.convert", "--help"),
        ("pipeline.inspect", dataset),
        ("pipeline.inspect", dataset, "show", "--char", "啊"),
        ("pipeline.inspect", dataset, "--sql", "SELECT '𠀀' AS x, * FROM manifest LIMIT 3"),
    ):
        status, out, err = run(*map(str, arguments), PYTHONIOENCODING=encoding)
        assert (status, err) == (0, "")
        assert b"\\u" in out
    for arguments in (["--format=json"], ["--sql", "SELECT '𠀀é', char FROM manifest", "--format=json"]):
        status, out, _ = run("pipeline.inspect", dataset, *arguments, PYTHONIOENCODING=encoding)
        assert status == 0
        assert "啊" in str(json.loads(out))  # escapes that JSON knows


CALLS = """
import os, sys
from importlib import import_module
data, run, gnt = sys.argv[1:]
flags = ["--arch=vgg11", "--width=0.02", "--global_batch=16", "--steps=2", "--log_steps=1", "--augment=none"]
calls = {
    "train": ["--data", data, "--model_dir=trained", *flags],
    "evaluate": ["--model", run, "--data", data],
    "export": ["--model", run, "--format=saved_model"],
    "report": ["--model", run, "--data", data, "--split=test"],
    "predict": ["--model", run, "--records=1", gnt],
}
for way, names in (
    ("closed", ["export", "report", "predict"]), ("full", ["train", "predict"]), ("gone", ["evaluate", "predict"]),
    ("latin-1", ["evaluate", "predict"]),
):
    if way != "closed":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer if way == "gone" else os.open({"full": "/dev/full"}.get(way, "out"), os.O_RDWR | os.O_CREAT), 1)
        sys.stdout = open(1, "w", encoding="latin-1", closefd=False)
    for name in names:
        status = import_module(f"model.{name}").main(calls[name])
        print("ended", way, name, status, file=sys.stderr, flush=True)
"""
"""Started with its stdout closed; several commands in one process, which imports TensorFlow once."""
SAID = "can't write to stdout"


@pytest.mark.slow
def test_a_model_and_its_words(archives: Path, tmp_path: Path) -> None:
    data, made = tiny_run.data_set(tmp_path, archives), tiny_run.make_run(tmp_path / "run")
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "bash", sys.executable, "-c", CALLS, data, made, archives / "test" / "1241-c.gnt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr
    lost = {"closed": "it is closed", "full": "No space left on device", "gone": "Broken pipe"}
    said, calls = "", 0
    for line in done.stderr.splitlines():
        if not line.startswith("ended "):
            said += line
            continue
        _, way, name, status = line.split()
        if way == "latin-1" or (way, name) == ("gone", "predict"):
            assert said == ""
        else:
            assert said.count(":") == 2
            assert f"{SAID}: {lost[way]}" in said
        assert int(status) == (
            {"closed": 2, "full": 2, "gone": EXIT_READER_GONE}.get(way, 0) if name == "predict" else 0
        )
        said, calls = "", calls + 1
    assert (said, calls) == ("", 9)
    for path in ("trained/model.keras", "run/evaluation.parquet", "run/saved_model", "run/report.html"):
        assert (tmp_path / path).exists()
    assert b"\\u" in (tmp_path / "out").read_bytes()


class Failing(io.TextIOWrapper):
    """A stream whose file takes `room` bytes."""

    class File(io.RawIOBase):
        def __init__(self, room: int) -> None:
            self.room, self.taken = room, bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            octets = bytes(data)  # type: ignore[call-overload]
            if len(self.taken) + len(octets) > self.room:
                raise OSError(28, "No space left on device")
            self.taken += octets
            return len(octets)

    def __init__(self, room: int) -> None:
        self.file = Failing.File(room)
        super().__init__(io.BufferedWriter(self.file), "ascii", "strict")


def test_the_callers_streams_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Failing(room=4), Failing(room=10_000)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert run_command("c", lambda: print("a word") or 5) == 5  # type: ignore[func-returns-value]
    assert (sys.stdout, sys.stderr) == (out, err)
    assert (out.encoding, out.errors) == ("ascii", "strict")
    assert (
        err.file.taken == b"c: can't write to stdout: No space left on device; what it says is lost, its work is not\n"
    )
    out.flush()  # nothing is left in it that would fail again
    out.write("ok")
    out.flush()
    assert out.file.taken == b"ok"
    with pytest.raises(ZeroDivisionError):
        run_command("c", lambda: 1 // 0)
    assert (sys.stdout, sys.stderr) == (out, err)


def test_words_that_have_no_file_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run_command("c", lambda: print("啊") or 0) == 0  # type: ignore[func-returns-value]
    assert out.getvalue() == "啊\n"
    assert capsys.readouterr() == ("", "")


def test_a_product_that_fails_early_or_late_ends_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def early() -> int:
        prints_its_product()
        print("x" * 100_000)
        raise AssertionError("went on")

    def late() -> int:
        prints_its_product()
        print("x")
        return 0

    def before() -> int:
        print("x", flush=True)
        prints_its_product()
        raise AssertionError("went on")

    bodies: list[Callable[[], int]] = [early, late, before]
    for body in bodies:
        err = Failing(room=10_000)
        monkeypatch.setattr(sys, "stdout", Failing(room=0))
        monkeypatch.setattr(sys, "stderr", err)
        assert run_command("c", body) == 2
        assert err.file.taken.endswith(b"send it elsewhere, or make room\n")


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for what, said in {
        tmp_path / ("x" * 300): "File name too long; name a shorter path",
        tmp_path: "Is a directory",
        tmp_path / "none": "No such file or directory; check the name",
    }.items():
        assert run_command("c", lambda what=what: len(what.read_bytes())) == 2  # type: ignore[misc]
        err = capsys.readouterr().err
        assert err.startswith(f"c: can't use {what}: {said}")
        assert err.count("\n") == 1
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("tempfile.tempdir", None)
        patches.setattr("tempfile._candidate_tempdir_list", list)
        assert run_command("c", lambda: len(tempfile.mkdtemp())) == 2
    err = capsys.readouterr().err
    assert (
        err == "c: can't go on: No usable temporary directory found in []; set TMPDIR to a folder that can be written\n"
    )
    with pytest.raises(OSError, match="a fault"):
        run_command("c", lambda: (_ for _ in ()).throw(OSError("a fault of this program")))
