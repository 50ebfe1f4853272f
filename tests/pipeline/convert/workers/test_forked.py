"""Worker processes that can't start or never come, and proxies that are nothing to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from commands import Run, assert_refused
from places import ROOT

import pipeline
from pipeline.convert import direct
from pipeline.convert.direct import loopback_without_proxy
from schemas.errors import UserError

LOOPBACK = "localhost,127.0.0.1,::1"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
BYPASSES = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
WORKERS = "--direct_num_workers=2"


@pytest.mark.engine
@pytest.mark.parametrize(("proxies", "others"), [(PROXIES, {}), (("grpc_proxy",), {"no_proxy": "*"})])
def test_workers_are_reached_without_the_proxy(
    archives: Path, tmp_path: Path, proxies: tuple[str, ...], others: dict[str, str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in BYPASSES}
    environment |= {**dict.fromkeys(proxies, "http://127.0.0.1:9"), **others}
    command = [sys.executable, "-m", "pipeline.convert", f"--input={archives}/train", f"--output={tmp_path}/o", WORKERS]
    began = time.monotonic()
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, dict.fromkeys(BYPASSES, LOOPBACK)),
        ({"NO_PROXY": ".corp"}, dict.fromkeys(BYPASSES, f".corp,{LOOPBACK}")),
        ({"no_proxy": "a, localhost"}, dict.fromkeys(BYPASSES, "a,localhost,127.0.0.1,::1")),
        (
            {"no_proxy": "a", "NO_PROXY": "b", "no_grpc_proxy": "c"},
            {"no_proxy": f"a,{LOOPBACK}", "NO_PROXY": f"b,{LOOPBACK}", "no_grpc_proxy": f"c,{LOOPBACK}"},
        ),
        ({"no_proxy": "*"}, {"no_proxy": "*", "no_grpc_proxy": f"*,{LOOPBACK}"}),
    ],
)
def test_only_the_loopback_is_added_and_the_environment_comes_back(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: dict[str, str]
) -> None:
    for name in BYPASSES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with loopback_without_proxy():
        assert {name: os.environ[name] for name in BYPASSES if name in os.environ} == expected
        with loopback_without_proxy():
            pass
        assert {name: os.environ[name] for name in BYPASSES if name in os.environ} == expected
    assert dict(os.environ) == before


def test_two_conversions_at_a_time_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    first, second = loopback_without_proxy(), loopback_without_proxy()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert LOOPBACK in os.environ["no_proxy"]
    second.__exit__(None, None, None)
    assert "no_proxy" not in os.environ


BROKEN = """
class Broken:
    def find_spec(self, name, *_):
        if name == "pipeline.convert.workers.preloaded":
            raise ImportError("libssl.so.3: cannot open shared object file")
import sys
sys.meta_path.insert(0, Broken())
"""


@pytest.mark.engine
def test_a_worker_that_cant_start_says_why_and_promises_nothing(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "pipeline.convert", f"--input={archives}/train", f"--output={tmp_path}/o", WORKERS]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (
        1,
        "pipeline.convert: a worker process couldn't start: it ended with exit status 1 (ImportError: libssl.so.3: "
        "cannot open shared object file); mend that, or do without by --direct_num_workers=1\n",
    )


@pytest.mark.parametrize("executable", ["/nowhere/python", "", None])
def test_a_program_without_a_python_to_start_says_so(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    status, _, err = convert(f"--input={archives}/train", f"--output={tmp_path}/o", WORKERS)
    assert (status, err.count("\n")) == (1, 1)
    assert "a worker process couldn't start (" in err
    assert "do without by --direct_num_workers=1" in err


@pytest.mark.engine
def test_a_worker_that_never_comes_is_not_waited_for(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.convert.workers import forked

    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = f'url: "127.0.0.1:{silent.getsockname()[1]}"'
        monkeypatch.setattr(forked.text_format, "MessageToString", lambda _: nobody)
        monkeypatch.setitem(forked._PATIENCE, "forking", 2.0)
        settings = pipeline.Settings([f"{archives}/train"], str(tmp_path / "o"), beam=[WORKERS])
        with pytest.raises(UserError, match=r"a worker process hasn't answered after \d+ s; do without") as refused:
            pipeline.run_conversion(settings)
    assert refused.value.exit_status == 1
    assert "goes on" not in str(refused.value)


def test_a_worker_that_gave_up_is_explained() -> None:
    import grpc

    from pipeline.convert.workers.forked import explained_start

    assert "can't reach this process on localhost" in explained_start(grpc.FutureTimeoutError())
    assert explained_start(ValueError("x")) == "ValueError: x"


@pytest.mark.engine
@pytest.mark.parametrize("where", ["x" * 90, "nowhere"])
def test_wherever_temporary_files_lie(archives: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path / where
    if where != "nowhere":
        folder.mkdir()
    command = [sys.executable, "-m", "pipeline.convert", f"--input={archives}/train", f"--output={tmp_path}/o", WORKERS]
    environment = {**os.environ, "TMPDIR": str(folder)}
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_a_place_for_temporary_files_it_is_one_line(
    archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryFile", nowhere)
    monkeypatch.setattr(direct, "available_cores", lambda: 2)
    flags = (f"--input={archives}/train", f"--output={tmp_path}/o")
    assert_refused(convert(*flags), "can't make a temporary file: No usable temporary directory")
