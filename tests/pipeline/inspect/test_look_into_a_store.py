"""python -m pipeline.verify and pipeline.inspect of a data set in a store, its archives in the store as well."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from commands import inputs

from pipeline import convert, inspect, verify
from schemas.dataset import CARD

OUT = f"s3://{s3_server.BUCKET}/out"
IN = f"s3://{s3_server.BUCKET}/in"


@pytest.fixture(scope="module")
def store(archives: Path) -> Iterator[s3_server.Server]:
    """in/ and out/, converted from it; the same set in a local folder."""
    os.environ.update(s3_server.ENVIRONMENT)
    with s3_server.running() as server:
        for path in archives.rglob("*.gnt"):
            server.put(f"in/{path.relative_to(archives)}", path.read_bytes())
        of_store = (f"--input=train={IN}/train", f"--input=test={IN}/test", f"--output={OUT}")
        assert convert.main([*of_store, "--num_shards=train=2", f"--s3_endpoint_url={server.url}"]) == 0
        yield server
    for name in s3_server.ENVIRONMENT:
        del os.environ[name]


@pytest.fixture
def flag(store: s3_server.Server) -> str:
    store.log.clear()
    return f"--s3_endpoint_url={store.url}"


@pytest.fixture(scope="module")
def local(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "set"
    assert convert.main([*inputs(archives), "--num_shards=train=2", f"--output={folder}"]) == 0
    return folder


def test_verify(store: s3_server.Server, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([OUT, flag]) == 0
    out, err = capsys.readouterr()
    assert f"{OUT}: intact; 160 records in 3 shards" in out
    assert err == ""
    assert sum(store.kinds().values()) <= 2 * 3 + 10
    assert verify.main([OUT, "--against", f"train={IN}/train", f"test={IN}/test", "--all", flag]) == 0
    assert "160 records made again from the archives" in capsys.readouterr().out


@pytest.mark.engine
def test_verify_in_processes(flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.verify.check.SMALL_BYTES", 0)
    monkeypatch.setattr("pipeline.verify.sources.SMALL_ROWS", 0)
    against = ["--against", f"train={IN}/train", f"test={IN}/test"]
    assert verify.main([OUT, *against, "--processes=2", flag]) == 0
    assert "intact" in capsys.readouterr().out


def test_verify_finds_what_was_changed(store: s3_server.Server, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "out/train-00001-of-00002.tfrecord"
    content = store.objects(name)[""]
    store.put(name, content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    store.put("out/stray.txt", b"")
    try:
        assert verify.main([OUT, flag]) == 1
    finally:
        store.put(name, content)
        store.client.delete_object(Bucket=s3_server.BUCKET, Key="out/stray.txt")
    out = capsys.readouterr().out
    assert "train-00001-of-00002.tfrecord: expected SHA-256" in out
    assert "byte 5,000" in out
    assert "stray.txt: expected only what the card lists" in out


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_no_data_set_and_no_store_are_one_line(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    main = {"verify": verify.main, "inspect": inspect.main}[command]
    for folder, flags, message in (
        (IN, [flag], f"expected {CARD}, found none"),
        ("s3://nowhere/out", [flag], "there is no bucket nowhere"),
        (OUT, ["--s3_endpoint_url=http://127.0.0.1:1"], "nothing answers"),
        (OUT, ["--s3_endpont_url=x"], "--s3_endpont_url=x: there is no such flag; did you mean --s3_endpoint_url?"),
        (OUT, ["--s3_endpoint_url"], "argument --s3_endpoint_url: expected one argument"),
        (OUT, ["--flink_master=x"], "unrecognized arguments: --flink_master=x"),
        (OUT, [flag, "x"], "unrecognized arguments: x"),
    ):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert main([folder, *flags]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_inspect(
    store: s3_server.Server,
    flag: str,
    archives: Path,
    local: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each part of the command says of the store what it says of the local folder."""

    def both(*arguments: str) -> tuple[str, str]:
        assert inspect.main([OUT, *arguments, flag]) == 0
        there = capsys.readouterr().out.replace(OUT, "DIR").replace(IN, "IN")
        assert inspect.main([str(local), *arguments]) == 0
        return there, capsys.readouterr().out.replace(str(local), "DIR").replace(str(archives), "IN")

    there, here = both("--format", "json")
    assert json.loads(there)["splits"] == json.loads(here)["splits"]
    assert both("--sql", "SELECT * FROM manifest ORDER BY sample_id", "--format", "csv")[0].count("\n") == 161
    there, here = both("--sql", "SELECT char, count(*) FROM manifest GROUP BY char ORDER BY char", "--format", "json")
    assert there == here
    store.log.clear()
    there, here = both("show", "--char", "啊", "--limit", "2")
    assert there == here
    assert len([request for request in store.log if request.key.endswith(".gnt")]) <= 3 * 2
    report = tmp_path / "report.html"
    assert inspect.main([OUT, "--html", str(report), flag]) == 0
    assert report.read_text().count("<img") == _pictures_of(local, tmp_path)
    assert inspect.main(["diff", OUT, str(local), flag]) == 0
    assert inspect.main([OUT, "--index", flag]) == 0
    assert len([name for name in store.objects("out/") if name.endswith(".idx")]) == 3


def _pictures_of(folder: Path, tmp_path: Path) -> int:
    assert inspect.main([str(folder), "--html", str(tmp_path / "local.html")]) == 0
    return (tmp_path / "local.html").read_text().count("<img")


def test_a_report_may_be_written_there(store: s3_server.Server, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Again, too; but where somebody else's object stands."""
    for _ in range(2):
        assert inspect.main([OUT, "--html", f"s3://{s3_server.BUCKET}/report.html", flag]) == 0
    assert io.BytesIO(store.objects("report.html")[""]).read(9).lower() == b"<!doctype"
    store.put("thesis.html", b"a thesis")
    capsys.readouterr()
    assert inspect.main([OUT, "--html", f"s3://{s3_server.BUCKET}/thesis.html", flag]) == 2
    assert "thesis.html: expected nothing there, or what pipeline.inspect wrote" in capsys.readouterr().err
    assert store.objects("thesis.html")[""] == b"a thesis"
