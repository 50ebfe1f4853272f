"""gs:// and what else pyarrow.fs opens: the bytes of a local conversion, and one line for what goes wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gcs_server
import gnt_files
import pytest

from pipeline import inspect, storage, verify
from pipeline.shards.chunk import convert_chunk
from pipeline.shards.config import ConvertConfig
from pipeline.shards.slices import Edges, StagedPart, read_slices
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks
from pipeline.storage import arrow
from schemas.dataset import CARD, LOCK
from schemas.errors import UserError

Run = Callable[..., tuple[int, str, str]]
MIB = 1 << 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[gcs_server.Server]:
    with gcs_server.running() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setattr(arrow, "_RETRY_SECONDS", 1)
        arrow._connect.cache_clear()
        yield server
    arrow._connect.cache_clear()


def url(key: str) -> str:
    return f"gs://{gcs_server.BUCKET}/{key}"


def test_what_is_written_is_read_whole_or_in_part(server: gcs_server.Server) -> None:
    content = bytes(range(256)) * 10
    storage.write_bytes(url("a/b c 啊"), content)
    assert dict(server.objects) == {"a/b c 啊": content}
    del server.log[:]
    assert storage.read_bytes(url("a/b c 啊")) == content
    assert list(server.log) == [("GET", "a/b c 啊", "")]
    assert storage.read_range(url("a/b c 啊"), 100, 20) == content[100:120]
    assert server.log[-1] == ("GET", "a/b c 啊", "bytes=100-119")
    assert storage.read_range(url("a/b c 啊"), 2550, 100) == content[2550:]
    assert storage.read_range(url("a/b c 啊"), 9999, 5) == b""
    with storage.open_read(url("a/b c 啊"), 10) as stream:
        assert stream.read() == content[10:]
    assert storage.read_if_there(url("a/c")) is None
    assert storage.size_bytes(url("a/b c 啊")) == 2560
    assert not storage.exists(url("a"))


def test_an_empty_and_a_large_object_can_be_written(server: gcs_server.Server) -> None:
    large = bytes(range(256)) * (20 * MIB // 256)
    storage.write_bytes(url("empty"), b"")
    storage.write_bytes(url("large"), large)
    assert dict(server.objects) == {"empty": b"", "large": large}
    assert storage.read_bytes(url("empty")) == b""


def test_what_fails_leaves_what_was_there(server: gcs_server.Server) -> None:
    server.objects["shard"] = b"an earlier one"
    with pytest.raises(ZeroDivisionError), storage.atomic_write(url("shard")) as stream:
        stream.write(b"half" * (20 * MIB // 0))
    assert list(server.log) == []
    for broken in ("CREATE", "PUT"):
        server.faults[broken] = 403
        with pytest.raises(
            UserError, match=r"can't write gs://handwriting/shard: .*on demand.*; set GOOGLE_APPLICATION"
        ):
            storage.write_bytes(url("shard"), b"new" * 10 * MIB)
        server.faults.clear()
    assert dict(server.objects) == {"shard": b"an earlier one"}


def test_listings_are_whole_and_stay_in_their_folder(server: gcs_server.Server) -> None:
    names = [f"out/{number:04d}" for number in range(250)]
    server.objects.update(dict.fromkeys([*names, "out/", "out/deeper/x", "out/a[1]/y", "outer"], b"1"))
    assert [file.path for file in storage.list_folder(url("out"))] == [url(name) for name in names]
    assert len(storage.find(url("out"))) == 252
    assert [file.path for file in storage.list_folder(url("out/a[1]"))] == [url("out/a[1]/y")]
    assert storage.list_folder(url("none")) == []
    assert storage.find(url("out/0001")) == [storage.status(url("out/0001"))]
    assert [file.path for file in storage.find(url("out/*/?"))] == [url("out/a[1]/y"), url("out/deeper/x")]
    storage.delete([url(name) for name in [*names, "gone"]])
    assert set(server.objects.keys()) == {"out/", "out/deeper/x", "out/a[1]/y", "outer"}


def test_a_slice_is_read_by_its_range_alone(server: gcs_server.Server, tmp_path: Path) -> None:
    path = tmp_path / "1001-c.gnt"
    path.write_bytes(gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 4)))
    [member] = list_members([Input("train", str(path))], 0)
    config = ConvertConfig(num_shards={"train": 4})
    there, here = (
        [convert_chunk(chunk, config, folder) for chunk in plan_chunks(member, folder, 9_000)]
        for folder in (url("staging"), f"{tmp_path}/staging")
    )
    del server.log[:]
    read, ranges = [], []
    for chunks in (there, here):
        edges = Edges()
        parts = [StagedPart(chunk.path, at, 0) for chunk in chunks for at in chunk.parts]
        slices = [one for shard in range(4) for one in edges.slices(parts, shard, 4)]
        ranges = ranges or [f"bytes={part.edges}-{part.edges + 5 * 16 - 1}" for part in parts]
        ranges += [f"bytes={one.begin}-{one.begin + one.size_bytes - 1}" for one in slices if chunks is there]
        read.append(read_slices(slices).joined())
    assert len(there) > 1
    assert sorted(found for _, _, found in server.log if found) == sorted(ranges)
    assert read[0].rows.tobytes() == read[1].rows.tobytes()
    assert read[0].octets == read[1].octets


def sha256(files: dict[str, bytes]) -> dict[str, str]:
    names = (name for name in files if name.endswith((".tfrecord", ".parquet")))
    return {name: hashlib.sha256(files[name]).hexdigest() for name in names}


@pytest.mark.slow
def test_the_bytes_are_those_of_a_local_conversion(
    server: gcs_server.Server, archives: Path, tmp_path: Path, convert: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    server.objects.update({f"in/{path.relative_to(archives)}": path.read_bytes() for path in archives.rglob("*.gnt")})
    local = (f"--input=train={archives}/train", f"--input=test={archives}/test", f"--output={tmp_path}/out")
    there = (f"--input=train={url('in/train')}", f"--input=test={url('in/test/*.gnt')}", f"--output={url('out')}")
    assert convert(*local, "--num_shards=train=3")[0] == 0
    status, _, err = convert(*there, "--num_shards=train=3")
    assert (status, err) == (0, "")
    found = {key.removeprefix("out/"): content for key, content in server.objects.items() if key.startswith("out/")}
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sha256(found) == sha256({str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in files})
    assert CARD in found
    assert not [name for name in found if name.startswith("_") or name == LOCK]
    capsys.readouterr()
    against = ["--against", f"train={url('in/train')}", f"test={url('in/test')}", "--all"]
    assert verify.main([url("out"), *against]) == 0
    assert inspect.main([url("out")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://nowhere/x", "there is no gs://nowhere; make it, or check its name"),
        ("foo://x/y", "foo://x/y: expected a path, or a URL with s3://, gs://, abfs:// or hdfs://, found another"),
        (
            "https://x/y.zip",
            "https://x/y.zip: expected a path, or a URL with s3://, gs://, abfs:// or hdfs://, found https",
        ),
        (
            "file:///x/y",
            "file:///x/y: expected a path, or a URL with s3://, gs://, abfs:// or hdfs://, found file://;",
        ),
        ("gs:///x", "Missing bucket name"),
        ("abfs://container/x", "account name"),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_cannot_be_opened_is_one_line(path: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        storage.write_bytes(path, b"1")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_that_stays_away_is_one_line(server: gcs_server.Server) -> None:
    server.objects["x"] = b"1"
    server.faults.update(dict.fromkeys(("LIST", "LOOK", "GET"), 503))
    for doing, ask in (
        ("read", storage.read_bytes),
        ("look at", storage.status),
        ("list", storage.list_folder),
        ("delete", lambda path: storage.delete([path])),
    ):
        with pytest.raises(UserError) as caught:
            ask(url("x"))
        assert str(caught.value).startswith(f"can't {doing} gs://handwriting/x")
        assert "UNAVAILABLE: Retry policy exhausted" in str(caught.value)
        assert "error_info" not in str(caught.value)
        assert str(caught.value).endswith("check that the store can be reached")
    server.faults["GET"] = 401
    with pytest.raises(UserError, match=r"can't read gs://handwriting/x: .*; set GOOGLE_APPLICATION_CREDENTIALS"):
        storage.read_bytes(url("x"))
