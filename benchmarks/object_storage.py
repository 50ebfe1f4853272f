"""Conversions from and to an S3 server on this machine: requests by kind, bytes read, and seconds beside local files.

    python benchmarks/object_storage.py                       45 k records: loose members, a zip, one large member
    python benchmarks/object_storage.py --shards 16 --json out.json

The server is moto's, in Python, on the same cores: its seconds say what the requests cost there and here together, not
what a store across a network takes. The requests are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from process_tree import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import s3_server

WRITERS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8, help="default: 8")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--work", type=Path, help="folder for the input (default: a temporary one)")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="object-storage-benchmark-"))
    os.environ.update(s3_server.ENVIRONMENT)
    rows = []
    with s3_server.running() as server:
        os.environ["AWS_ENDPOINT_URL"] = server.url
        for name, path in _inputs(work).items():
            rows.append(_compare(server, name, path, arguments.shards, work))
    _print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"cores": os.cpu_count(), "inputs": rows}, indent=1) + "\n")
    if not arguments.work:
        shutil.rmtree(work)


def _inputs(work: Path) -> dict[str, Path]:
    """The same records loose, in a deflated zip, and in a single member."""
    sample, loose, single = work / "sample", work / "loose", work / "single.gnt"
    packed = work / "packed.zip"
    if not packed.exists():
        measure(
            [sys.executable, "-m", "pipeline.sample", f"--output={sample}", f"--writers={WRITERS}", "--characters=3755"]
        )
        files = sorted(sample.rglob("*.gnt"))
        loose.mkdir()
        for file in files:
            os.link(file, loose / file.name)
        single.write_bytes(b"".join(file.read_bytes() for file in files))
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.name)
    return {"loose": loose, "zip": packed, "single": single}


def _compare(server: s3_server.Server, name: str, path: Path, shards: int, work: Path) -> dict[str, object]:
    server.empty()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        server.put(f"in/{file.name}", file.read_bytes())
    source_bytes = sum(file.stat().st_size for file in files)
    command = [sys.executable, "-m", "pipeline.convert", "--runner=DirectRunner", f"--num_shards=train={shards}"]
    shutil.rmtree(work / "out", ignore_errors=True)
    local = measure([*command, f"--input={path}", f"--output={work / 'out'}"])
    server.log.clear()
    url = f"s3://{s3_server.BUCKET}"
    remote = measure([*command, f"--input={url}/in", f"--output={url}/out"])
    card = json.loads((work / "out" / "dataset.json").read_text())
    stored = json.loads(server.objects("out/dataset.json")[""])
    same = [shard["sha256"] for shard in card["splits"]["train"]["shards"]] == [
        shard["sha256"] for shard in stored["splits"]["train"]["shards"]
    ]
    chunks = len({r.key for r in server.log if r.kind == "PUT" and r.key.endswith(".rows.json")})
    batches = [r for r in server.log if r.status == 206 and r.key.endswith(".rows")]
    of_input = [r for r in server.log if r.key.startswith("in/")]
    of_chunks = [r for r in server.log if "/_staging/" in r.key and ("/chunk-" in r.key or "/unpacked-" in r.key)]
    of_shards = [r for r in server.log if ".tfrecord" in r.key or ".parquet" in r.key]
    return {
        "input": name,
        "records": card["splits"]["train"]["counts"]["read"],
        "same_bytes": same,
        "chunks": chunks,
        "shards": shards,
        "requests": len(server.log),
        "kinds": dict(sorted(server.kinds().items())),
        "per_chunk": round((len(of_input) + len(of_chunks) - len(batches)) / chunks, 1),
        "per_shard": round((len(of_shards) + len(batches)) / shards, 1),
        "input_read_share": round(sum(r.sent_bytes for r in of_input) / source_bytes, 3),
        "staged_read_share": round(sum(r.sent_bytes for r in batches) / sum(r.received_bytes for r in of_chunks), 3),
        "seconds": round(remote.seconds, 2),
        "local_seconds": round(local.seconds, 2),
        "largest_process_mb": round(remote.largest_bytes / 1e6),
        "local_largest_process_mb": round(local.largest_bytes / 1e6),
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    columns = (
        ("input", "input", "<"),
        ("records", "records", ">,"),
        ("chunks", "chunks", ">"),
        ("shards", "shards", ">"),
        ("requests", "requests", ">,"),
        ("per chunk", "per_chunk", ">"),
        ("per shard", "per_shard", ">"),
        ("read ÷ input", "input_read_share", ">"),
        ("seconds", "seconds", ">"),
        ("local", "local_seconds", ">"),
        ("MB", "largest_process_mb", ">"),
        ("local", "local_largest_process_mb", ">"),
    )
    print("  ".join(f"{head:{align[0]}{max(8, len(head))}}" for head, _, align in columns))
    for row in rows:
        width = [max(8, len(head)) for head, _, _ in columns]
        print(
            "  ".join(
                f"{row[key]:{align[0]}{size}{align[1:]}}" for (_, key, align), size in zip(columns, width, strict=True)
            )
        )
    for row in rows:
        kinds = ", ".join(f"{kind} {count}" for kind, count in row["kinds"].items())  # type: ignore[attr-defined]
        print(f"{row['input']}: {kinds}; the bytes are {'' if row['same_bytes'] else 'NOT '}the local conversion's")


if __name__ == "__main__":
    main()
