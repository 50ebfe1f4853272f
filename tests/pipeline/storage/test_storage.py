"""Files behind URLs: whole or not there, read by range, listed to the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gnt_files
import pytest
import s3_server

from pipeline import storage
from pipeline.source.archives import Input, list_members
from pipeline.source.chunks import plan_chunks, read_chunk
from pipeline.storage import remote, s3
from pipeline.storage.local import StoredFile
from pipeline.storage.remote import RemoteFiles
from schemas.errors import UserError, explained

MIB = 1 << 20


@pytest.fixture
def server(module_server: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3_server.Server]:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    module_server.empty()
    storage.take_flags([f"--s3_endpoint_url={module_server.url}"])
    yield module_server
    storage.take_flags([])
    module_server.fault = None


def url(key: str) -> str:
    return f"s3://{s3_server.BUCKET}/{key}"


def test_what_is_written_is_read_whole_or_in_part(server: s3_server.Server) -> None:
    content = bytes(range(256)) * 10
    storage.write_bytes(url("a/b"), content)
    assert server.objects() == {"a/b": content}
    assert [request.kind for request in server.log[:1]] == ["PUT"], "one request for a small object"
    server.log.clear()
    assert storage.read_bytes(url("a/b")) == content
    assert storage.read_range(url("a/b"), 100, 20) == content[100:120]
    assert storage.read_range(url("a/b"), 2550, 100) == content[2550:]
    assert storage.read_range(url("a/b"), 9999, 5) == b""
    assert [(request.kind, request.sent_bytes) for request in server.log[:3]] == [
        ("GET", 2560),
        ("GET", 20),
        ("GET", 10),
    ]
    assert storage.read_if_there(url("a/c")) is None
    assert storage.size_bytes(url("a/b")) == 2560
    assert not storage.exists(url("a"))
    missing = pytest.raises(UserError, match=r"can't read s3://handwriting/none: there is no such file")
    with missing, explained(f"read {url('none')}"):
        storage.read_bytes(url("none"))


def test_an_empty_object_can_be_written(server: s3_server.Server) -> None:
    storage.write_bytes(url("empty"), b"")
    assert server.objects() == {"empty": b""}
    assert storage.read_bytes(url("empty")) == b""
    with storage.open_read(url("empty")) as stream:
        assert stream.read() == b""


def test_a_stream_reads_on_in_large_ranges_and_looks_in_small_ones(server: s3_server.Server) -> None:
    content = bytes(range(256)) * 4096
    server.put("big", content)
    server.log.clear()
    with storage.open_read(url("big"), 1000, 900_000) as stream:
        assert stream.tell() == 1000
        assert b"".join(iter(lambda: stream.read(10_000), b"")) == content[1000:900_000]
    assert [(request.begin, request.sent_bytes) for request in server.log] == [(1000, 899_000)]
    server.log.clear()
    with storage.open_read(url("big"), 0, MIB, buffer_bytes=1000) as stream:
        for place in (5, 500_000, 500_100, 70_000):
            stream.seek(place)
            assert stream.read(10) == content[place : place + 10]
        stream.seek(-3, 2)
        assert stream.read() == content[-3:]
    assert sum(request.sent_bytes for request in server.log) <= 4 * 1000
    assert len(server.log) == 4


def test_what_fails_while_it_is_made_leaves_nothing(server: s3_server.Server) -> None:
    server.put("shard", b"an earlier one")
    server.log.clear()
    with pytest.raises(ZeroDivisionError), storage.atomic_write(url("shard")) as stream:
        stream.write(b"half" * (20 * MIB // 0))
    assert server.log == []
    assert server.objects() == {"shard": b"an earlier one"}


@pytest.mark.parametrize("broken", ["CREATE", "PART", "COMPLETE"])
def test_what_fails_on_its_way_is_aborted(
    server: s3_server.Server, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 6 * MIB)
    server.put("shard", b"an earlier one")
    server.log.clear()
    parts: list[str] = []

    def fault(kind: str, _: str) -> int | None:
        parts.append(kind)
        return 403 if kind == broken and (kind != "PART" or parts.count("PART") == 2) else None

    server.fault = fault
    with pytest.raises(UserError, match=r"can't write s3://handwriting/shard: the store refuses it"):
        storage.write_bytes(url("shard"), b"new" * 5 * MIB)
    server.fault = None
    assert server.objects() == {"shard": b"an earlier one"}
    assert ("ABORT" in server.kinds()) == (broken != "CREATE")
    assert "Uploads" not in server.client.list_multipart_uploads(Bucket=s3_server.BUCKET), "parts would be paid for"
    assert server.kinds()["COMPLETE"] <= 1, "what failed is not finished when its stream is collected"


def test_a_large_object_goes_in_parts(server: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PIECE_BYTES", 6 * MIB)
    content = bytes(range(256)) * (15 * MIB // 256)
    with storage.atomic_write(url("large")) as stream:
        stream.write(content)
    assert server.kinds() == {"CREATE": 1, "PART": 3, "COMPLETE": 1}
    assert server.objects() == {"large": content}


def test_bytes_that_stop_coming_are_asked_for_again(server: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("a", b"0123456789" * 1000)
    server.log.clear()
    server.torn = 2
    monkeypatch.setattr(s3.time, "sleep", lambda _: None)
    assert storage.read_range(url("a"), 10, 5000) == b"0123456789" * 500
    assert server.kinds() == {"GET": 3}


def test_more_than_a_thousand_objects_are_listed_and_deleted(server: s3_server.Server) -> None:
    names = [f"out/{number:04d}" for number in range(1005)]
    for name in [*names, "out/", "out/deeper/x", "outer"]:  # a console makes the second to show a folder
        server.put(name, b"1")
    server.log.clear()
    assert [file.path for file in storage.list_folder(url("out"))] == [url(name) for name in names]
    assert server.kinds() == {"LIST": 2}
    assert len(storage.find(url("out"))) == 1006
    server.log.clear()
    storage.delete([url(name) for name in names])
    assert server.kinds()["DELETE"] <= 11
    assert set(server.objects()) == {"out/", "out/deeper/x", "outer"}


def test_a_folder_may_be_called_like_a_pattern(server: s3_server.Server) -> None:
    for name in ("a[1]/x", "a1/y", "a*/z", "a?/w"):
        server.put(name, b"1")
    for name in ("a[1]/x", "a*/z", "a?/w"):
        assert [file.path for file in storage.list_folder(url(name[:-2]))] == [url(name)]


def test_versions_are_the_same_alone_and_in_a_listing(server: s3_server.Server) -> None:
    server.put("in/a", b"1")
    [before] = storage.find(url("in"))
    assert [before] == storage.find(url("in/a")) == [storage.status(url("in/a"))]
    server.put("in/a", b"2")  # of the same size, within the same second
    assert storage.find(url("in"))[0].version != before.version


def test_names_are_of_files_and_of_folders(server: s3_server.Server) -> None:
    for name in ("out/", "out/a", "out/deeper/x", "out/deeper/y", "outer"):
        server.put(name, b"1")
    server.log.clear()
    assert storage.names(url("out")) == storage.names(url("out/")) == ["a", "deeper/"]
    assert storage.names(url("none")) == []
    assert server.kinds() == {"LIST": 3}


def test_a_chunk_of_a_large_member_is_one_range(server: s3_server.Server) -> None:
    data = gnt_files.member(gnt_files.records_of("啊阿埃挨哎唉哀皑癌硷" * 40))
    server.put("1001-c.gnt", data)
    [member] = list_members([Input("train", url("1001-c.gnt"))], 0)
    chunks = list(plan_chunks(member, url("staging"), len(data) // 9))
    assert len(chunks) >= 9
    server.log.clear()
    assert b"".join(map(read_chunk, chunks)) == data
    expected = [("GET", chunk.begin, chunk.size_bytes) for chunk in chunks]
    assert [(request.kind, request.begin, request.sent_bytes) for request in server.log] == expected


def test_without_boto3_the_extra_is_named(server: s3_server.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.exists(url("x"))
    s3._connect.cache_clear()
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError, match=r"boto3 is missing; pip install"):
        storage.exists(url("x"))
    assert server.log


def test_brackets_in_a_folders_name_are_its_name(tmp_path: Path) -> None:
    """HWDB [2020] is no set of characters where there is a folder of that name."""
    for name in ("HWDB [2020]/a.gnt", "HWDB [2020]/b[1].gnt", "x/HWDB [2020]/c.gnt", "train-1/d.gnt", "train-2/d.gnt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [file.path.removeprefix(f"{tmp_path}/") for file in storage.find(f"{tmp_path}/{pattern}")]

    assert found("HWDB [2020]/*.gnt") == ["HWDB [2020]/a.gnt", "HWDB [2020]/b[1].gnt"]
    assert found("HWDB [2020]/b[[]*.gnt") == ["HWDB [2020]/b[1].gnt"]
    assert found("*/HWDB [2020]/*.gnt") == ["x/HWDB [2020]/c.gnt"]
    assert found("HWDB [2020]/b[1].gnt") == ["HWDB [2020]/b[1].gnt"]
    assert found("train-[12]/*.gnt") == ["train-1/d.gnt", "train-2/d.gnt"]
    assert found("nothing [here]/*.gnt") == found("[") == []


def test_brackets_in_a_urls_name_are_its_name() -> None:
    class Store(RemoteFiles):
        files = ("b/HWDB [2020]/a.gnt", "b/HWDB [2020]/b/c.gnt", "b/part-1/d.gnt", "b/part-2/d.gnt")

        def list_prefix(self, prefix: str, *, deep: bool) -> list[StoredFile]:
            own = [f"s3://{one}" for one in self.files if f"s3://{one}".startswith(prefix)]
            return [StoredFile(one, 1, "") for one in own if deep or "/" not in one[len(prefix) :]]

        def status(self, path: str) -> StoredFile | None:
            return next((StoredFile(path, 1, "") for one in self.files if path == f"s3://{one}"), None)

    def found(pattern: str) -> list[str]:
        return [file.path.removeprefix("s3://b/") for file in Store().find(f"s3://b/{pattern}")]

    assert found("HWDB [2020]/*.gnt") == ["HWDB [2020]/a.gnt"]
    assert found("HWDB [2020]/a.gnt") == ["HWDB [2020]/a.gnt"]
    assert found("HWDB [2020]") == ["HWDB [2020]/a.gnt", "HWDB [2020]/b/c.gnt"]
    assert found("part-[12]/*.gnt") == ["part-1/d.gnt", "part-2/d.gnt"]
