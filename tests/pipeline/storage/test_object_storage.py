"""From and to a store: the bytes of a local conversion, in few requests, whatever goes wrong on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gnt_files
import pytest
import s3_server
from places import ROOT

from schemas.dataset import CARD, LOCK, parse_card
from schemas.machine import available_cores

Run = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.slow
SHARDS = ("--num_shards=train=3", "--num_shards=test=2")


def url(key: str) -> str:
    return f"s3://{s3_server.BUCKET}/{key}"


def upload(server: s3_server.Server, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            server.put(f"{prefix}{path.relative_to(folder)}", path.read_bytes())


def sha256(files: dict[str, bytes]) -> dict[str, str]:
    """Of every shard and manifest part."""
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in files.items()
        if name.endswith((".tfrecord", ".parquet"))
    }


def local_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def from_shell(*arguments: str, module: str = "pipeline.convert", **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def expected(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from pipeline.convert import main

    folder = tmp_path_factory.mktemp("local") / "out"
    assert (
        main([f"--input=train={archives}/train", f"--input=test={archives}/test", *SHARDS, f"--output={folder}"]) == 0
    )
    return sha256(local_files(folder))


def inputs() -> tuple[str, str]:
    return f"--input=train={url('in/train')}", f"--input=test={url('in/test/*.gnt')}"


def test_the_bytes_are_those_of_a_local_conversion(
    server: s3_server.Server, archives: Path, convert: Run, expected: dict[str, str]
) -> None:
    upload(server, archives, "in/")
    status, _, err = convert(*inputs(), *SHARDS, f"--output={url('out')}")
    assert (status, err) == (0, "")
    found = server.objects("out/")
    assert sha256(found) == expected
    assert not [name for name in found if name.startswith("_") or name == LOCK]
    card = parse_card(found[CARD], "out")
    assert {entry.location for entry in card.inputs} == {url(f"in/{key}") for key in server.objects("in/")}


@pytest.mark.engine
@pytest.mark.parametrize("how", ["flag", "environment"])
def test_forked_workers_know_the_endpoint(
    server: s3_server.Server, archives: Path, expected: dict[str, str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(server, archives, "in/")
    flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    if how == "flag":
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        flags += ["--s3_endpoint_url", server.url]
    ended = from_shell(*inputs(), *SHARDS, f"--output={url('out')}", *flags)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sha256(server.objects("out/")) == expected


@pytest.mark.parametrize("key", ["train-00000-of-00001.tfrecord", "photos/1.jpg", "manifest/mine.parquet"])
def test_others_objects_are_left_alone(server: s3_server.Server, archives: Path, convert: Run, key: str) -> None:
    upload(server, archives, "in/")
    server.put(f"out/{key}", b"mine")
    status, _, err = convert(f"--input={url('in/test')}", f"--output={url('out')}")
    assert (status, err.count("\n")) == (2, 1)
    assert "expected a new folder, or that of an interrupted conversion, found" in err
    assert server.objects("out/") == {key: b"mine"}


def test_staging_and_output_may_lie_in_different_places(
    server: s3_server.Server, archives: Path, tmp_path: Path, convert: Run, expected: dict[str, str]
) -> None:
    local = (f"--input=train={archives}/train", f"--input=test={archives}/test")
    assert convert(*local, *SHARDS, f"--output={tmp_path}/out", f"--staging={url('pieces')}", "--keep_staging")[0] == 0
    assert sha256(local_files(tmp_path / "out")) == expected
    assert len([name for name in server.objects("pieces/") if name.startswith("chunk-")]) == 2 * 4
    upload(server, archives, "in/")
    assert convert(*inputs(), *SHARDS, f"--output={url('out')}", f"--staging={tmp_path}/pieces")[0] == 0
    assert sha256(server.objects("out/")) == expected


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_in_place(server: s3_server.Server, tmp_path: Path, convert: Run, compression: int) -> None:
    members = {
        f"HWDB/{writer}-c.gnt": gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 4, seed=writer))
        for writer in range(1001, 1007)
    }
    path = gnt_files.write_zip(tmp_path / "hwdb.zip", members, compression)
    server.put("hwdb.zip", path.read_bytes())
    assert convert(f"--input={path}", f"--output={tmp_path}/local", SHARDS[0])[0] == 0
    server.log.clear()
    assert convert(f"--input={url('hwdb.zip')}", f"--output={url('out')}", SHARDS[0])[0] == 0
    assert sha256(server.objects("out/")) == sha256(local_files(tmp_path / "local"))
    reads = [request for request in server.log if request.kind == "GET" and request.key == "hwdb.zip"]
    assert all(request.begin is not None for request in reads)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    own = sorted((info.header_offset + 30 + len(info.filename), info.compress_size) for info in infos)
    assert sorted(place for request in reads if (place := (request.begin, request.sent_bytes)) in own) == own
    assert len(reads) <= 2 * len(members) + 4


def test_requests_are_few_and_members_are_read_once(server: s3_server.Server, convert: Run) -> None:
    chunks, shards, workers = 12, 5, available_cores()
    for writer in range(chunks):
        data = gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 6, seed=writer))
        server.put(f"in/{1001 + writer}-c.gnt", data)
    size = sum(map(len, server.objects("in/").values()))
    server.log.clear()
    assert convert(f"--input={url('in')}", f"--num_shards=train={shards}", f"--output={url('out')}")[0] == 0
    kinds = server.kinds()
    of_chunks = [request for request in server.log if request.key.startswith("in/10") or "/chunk-" in request.key]
    reads = Counter(request.key for request in of_chunks if request.kind == "GET" and request.status == 206)
    per_chunk = (len(of_chunks) - shards * chunks) / chunks
    per_shard = len([r for r in server.log if "/train-0" in r.key or "/shard-" in r.key or r.kind == "DELETE"]) / shards
    # The seventh of each is its receipt, read for the progress; each worker that writes shards reads a chunk's edges.
    assert per_chunk <= 7 + workers, kinds
    assert per_shard <= 7, kinds
    assert sum(kinds.values()) - kinds["LIST"] <= (7 + workers) * chunks + (7 + chunks) * shards + 15, kinds
    # A member is read once; of a staged chunk each shard reads its own part, once.
    assert all(count == 1 for key, count in reads.items() if key.startswith("in/"))
    slices = [count for key, count in reads.items() if not key.startswith("in/")]
    assert all(shards < count <= shards + workers for count in slices), reads
    assert sum(r.sent_bytes for r in of_chunks if r.kind == "GET" and r.key.startswith("in/")) == size
    staged = sum(r.received_bytes for r in of_chunks if r.kind == "PUT" and r.key.endswith(".rows"))
    sent = sum(r.sent_bytes for r in of_chunks if r.status == 206 and r.key.endswith(".rows"))
    assert sent <= staged + workers * chunks * (shards + 1) * 16  # of an edge


def test_killed_on_the_way_it_resumes(server: s3_server.Server, tmp_path: Path, convert: Run) -> None:
    for writer in range(24):
        data = gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 20, seed=writer % 3))
        server.put(f"in/{1001 + writer}-c.gnt", data)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{1001 + writer}-c.gnt").write_bytes(data)
    assert convert(f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--num_shards=train=4")[0] == 0
    command = [f"--input={url('in')}", f"--output={url('out')}", "--num_shards=train=4", "--direct_num_workers=1"]
    server.log.clear()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "pipeline.convert", *command], env=environment)

    def receipts() -> Counter[str]:
        return Counter(r.key for r in server.log if r.kind == "PUT" and r.key.endswith(".json") and "_staging" in r.key)

    deadline = time.monotonic() + 60
    while len(receipts()) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = receipts()
    assert 8 <= len(made) < 24
    assert CARD not in server.objects("out/")
    ended = from_shell(*command)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sha256(server.objects("out/")) == sha256(local_files(tmp_path / "out"))
    assert all(receipts()[key] == 1 for key in made), "a finished piece was made twice"
    assert json.loads(server.objects("out/")[CARD])["splits"]["train"]["counts"]["read"] == 24 * 200


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, ("--input=s3://nowhere/in", "--output=OUT"), "there is no bucket nowhere; make it, or check its name"),
        ({}, ("--input=IN", "--output=s3://nowhere/out"), "there is no bucket nowhere"),
        ({}, ("--input=s3://handwriting/none", "--output=OUT"), "expected a .gnt, a .zip, or a folder"),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            ("--input=IN", "--output=OUT"),
            "expected credentials",
        ),
        ({"AWS_PROFILE": "nobody"}, ("--input=IN", "--output=OUT"), "expected credentials, found none"),
        ({"AWS_ENDPOINT_URL": "CLOSED", "AWS_MAX_ATTEMPTS": "2"}, ("--input=IN", "--output=OUT"), "nothing answers"),
        ({}, ("--input=IN", "--output=OUT", "--s3_endpoint_url=nonsense"), "Invalid endpoint: nonsense"),
        ({}, ("--input=IN", "--output=OUT", "--s3_endpont_url=x"), "did you mean --s3_endpoint_url?"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_what_cannot_be_reached_is_one_line(
    server: s3_server.Server,
    convert: Run,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    flags: tuple[str, ...],
    message: str,
) -> None:
    server.put("in/1001-c.gnt", gnt_files.member(gnt_files.records_of("啊")))
    for name, value in changes.items():
        monkeypatch.setenv(name, value.replace("CLOSED", f"http://127.0.0.1:{closed_port()}"))
        if not value:
            monkeypatch.delenv(name)
    status, _, err = convert(*(flag.replace("IN", url("in")).replace("OUT", url("out")) for flag in flags))
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert server.objects("out/") == {}


def test_a_refusal_is_one_line_wherever_it_comes(server: s3_server.Server, archives: Path, convert: Run) -> None:
    upload(server, archives, "in/")
    for kind, key in (("LIST", ""), ("GET", "in/train/1002-c.gnt"), ("PUT", "out/train-00001-of-00003.tfrecord")):
        server.fault = lambda k, name, kind=kind, key=key: 403 if (k, name) == (kind, key) else None  # type: ignore[misc]
        status, _, err = convert(*inputs(), *SHARDS, f"--output={url('out')}")
        assert (status, err.count("\n")) == (2, 1), err
        assert "the store refuses it (AccessDenied: on demand); check the bucket's policy" in err
        server.fault = None
        assert CARD not in server.objects("out/")
    assert convert(*inputs(), *SHARDS, f"--output={url('out')}")[0] == 0


@pytest.mark.parametrize("status", [503, 0], ids=["SlowDown", "dropped"])
def test_what_passes_is_tried_again(
    server: s3_server.Server, archives: Path, convert: Run, expected: dict[str, str], status: int
) -> None:
    upload(server, archives, "in/")
    failed: set[tuple[str, str]] = set()

    def fault(kind: str, key: str) -> int | None:
        """The first of each."""
        if (kind, key) in failed or not key.endswith(("1002-c.gnt", ".tfrecord", ".parquet", ".rows")):
            return None
        failed.add((kind, key))
        return status

    server.fault = fault
    assert convert(*inputs(), *SHARDS, f"--output={url('out')}")[0] == 0
    server.fault = None
    assert len(failed) > 10
    assert sha256(server.objects("out/")) == expected


def test_a_store_that_stays_away_is_one_line(
    server: s3_server.Server, archives: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(server, archives, "in/")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    server.fault = lambda kind, key: 503 if (kind, key[:4]) == ("PUT", "out/") and "parquet" in key else None
    status, _, err = convert(*inputs(), *SHARDS, f"--output={url('out')}")
    assert (status, err.count("\n")) == (2, 1), err
    assert "the store answered 503 SlowDown to 2 attempts" in err
    assert "run the same command again" in err


def test_a_folder_of_others_is_refused(server: s3_server.Server, archives: Path, convert: Run) -> None:
    upload(server, archives, "in/")
    server.put("out/thesis.pdf", b"mine")
    status, _, err = convert(*inputs(), f"--output={url('out')}")
    assert (status, err.count("\n")) == (2, 1)
    assert "expected a new folder, or that of an interrupted conversion, found thesis.pdf in it" in err
    assert server.objects("out/") == {"thesis.pdf": b"mine"}


def test_two_conversions_dont_share_a_folder(server: s3_server.Server, archives: Path, convert: Run) -> None:
    upload(server, archives, "in/")
    server.put(f"out/{LOCK}", json.dumps({"host": "elsewhere", "process": 1, "started": 0}).encode())
    status, _, err = convert(*inputs(), *SHARDS, f"--output={url('out')}")
    assert (status, err.count("\n")) == (2, 1)
    assert f"found one on elsewhere, process 1; wait for it, or delete {url('out')}/{LOCK} if it is gone" in err
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock = {"host": socket.gethostname(), "process": ended.pid, "started": 0}
    server.put(f"out/{LOCK}", json.dumps(lock).encode())
    assert convert(*inputs(), *SHARDS, f"--output={url('out')}")[0] == 0, "its process has ended"


def test_a_large_shard_is_sorted_through_files_of_this_machine(
    server: s3_server.Server, archives: Path, tmp_path: Path, convert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--direct_running_mode=in_memory", "--num_shards=train=1", f"--input=train={archives}/train")
    status, _, err = convert(*flags, f"--output={tmp_path}/local")
    assert (status, err) == (0, "")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", f"{tmp_path}/tmp")
    monkeypatch.setattr("pipeline.shards.shard._MOST_BYTES", 100_000)
    monkeypatch.setattr("pipeline.shards.shard._RANGE_BYTES", 25_000)
    status, _, err = convert(*flags, f"--output={url('out')}")
    assert (status, err) == (0, "")
    assert sha256(server.objects("out/")) == sha256(local_files(tmp_path / "local"))
    assert not list((tmp_path / "tmp").iterdir())
