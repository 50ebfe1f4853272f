"""One shard and its manifest part: every frame, every Example, every row, and that the two name each other."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.reader.dataset import read_file
from pipeline.shards.tfrecord.frames import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES, frame_footer, frame_header
from pipeline.verify.crc import find_changed_byte
from pipeline.verify.example import example_fault
from pipeline.verify.findings import RESTORE, Finding, Findings
from pipeline.verify.ledger import Tally, tally_rows
from pipeline.verify.rows import ShardJob, check_rows
from schemas.dataset import ShardFile, index_name
from schemas.errors import UserError
from schemas.manifest import KEPT, LOST_REASONS

_FRAME_COLUMNS = ["shard_offset", "shard_bytes", "shard_crc32c", "sample_id", "label", "crop_width", "crop_height"]
_INDEX_AGAIN = "write it again with python -m pipeline.inspect DIR --index, or delete it"


@dataclass
class ShardReport:
    """What a shard holds and what is wrong with it."""

    findings: list[Finding] = field(default_factory=list)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """By member: "kept" and "status reason" -> rows."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By member."""
    lost_bytes: Counter[str] = field(default_factory=Counter)
    """By member: of rows rejected for one of LOST_REASONS."""
    labels: set[int] = field(default_factory=set)
    has_rows: bool = False
    """False if the manifest part can't be read: then the members' counts can't be compared either."""


def check_shard(job: ShardJob) -> ShardReport:
    """Checks one shard with its manifest part; both are in memory at once, and nothing else."""
    report = ShardReport()
    index_findings: list[Finding] = []
    file = job.file
    shard_findings, manifest_findings = Findings(file.path), Findings(file.manifest_path)
    manifest = _read(job.folder, file.manifest_path, file.manifest_bytes, file.manifest_sha256, manifest_findings)
    shard = _read(job.folder, file.path, file.bytes, file.sha256, shard_findings)
    # Only what has the right digest is handed to the Parquet reader: others can make it crash.
    rows = None if manifest is None or manifest_findings.found else _parse(manifest, manifest_findings)
    if rows is not None and rows.num_rows != file.manifest_rows:
        manifest_findings.add(
            f"expected {file.manifest_rows:,} rows, as the card says, found {rows.num_rows:,}; {RESTORE}"
        )
    if rows is not None and check_rows(rows, job, manifest_findings):
        report.has_rows = True
        report.kinds = _kinds(rows)
        report.tallies = tally_rows(rows)
        report.lost_bytes = _lost_bytes(rows)
        kept = rows.filter(pc.equal(rows["status"], KEPT))
        report.labels = set(kept["label"].to_pylist()) - {None}
        if kept.num_rows != file.records:
            manifest_findings.add(
                f"expected {file.records:,} kept rows, as the card says, found {kept.num_rows:,}; {RESTORE}"
            )
        if shard is not None:
            _check_frames(shard, kept, job, shard_findings)
        index_findings = _check_index(kept, job)
    elif shard is not None:
        _walk_frames(shard, file, shard_findings)
    report.findings = [*shard_findings.all(), *manifest_findings.all(), *index_findings]
    return report


def _read(folder: str, path: str, size: int, sha256: str, findings: Findings) -> bytes | None:
    """The file's bytes, held against the card; None if there is no such file."""
    try:
        content = read_file(folder, path)
    except UserError as error:
        findings.add(f"{error}")
        return None
    if content is None:
        findings.add(f"expected a file of {size:,} bytes, found none; {RESTORE}")
        return None
    if len(content) != size:
        findings.add(f"expected {size:,} bytes, found {len(content):,}; {RESTORE}")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        findings.add(f"expected SHA-256 {sha256}, found {found}; {RESTORE}")
    return content


def _parse(content: bytes, findings: Findings) -> pa.Table | None:
    try:
        return pq.ParquetFile(pa.BufferReader(content)).read().combine_chunks()
    except (pa.ArrowException, OSError) as error:
        findings.add(f"expected a Parquet file, found one that can't be read ({error}); {RESTORE}")
        return None


def _check_frames(shard: bytes, kept: pa.Table, job: ShardJob, findings: Findings) -> None:
    """Every record that a row points to, where the row says it lies."""
    end = 0
    for index, row in enumerate(kept.select(_FRAME_COLUMNS).to_pylist()):
        offset, size, crc, sample_id = (row[name] for name in _FRAME_COLUMNS[:4])
        if None in (offset, size, crc, row["label"]):
            continue  # found among the rows already
        end = offset + size
        if end > len(shard) or size < FRAME_HEADER_BYTES + FRAME_FOOTER_BYTES:
            left = max(0, len(shard) - offset)
            findings.add(
                f"record {index:,} at byte {offset:,} ({sample_id}): expected {size:,} bytes, {left:,} are left, and "
                f"{kept.num_rows - index:,} records are missing; {RESTORE}"
            )
            return
        fault = _frame_fault(shard, offset, size, crc)
        if fault is None:
            example = shard[offset + FRAME_HEADER_BYTES : end - FRAME_FOOTER_BYTES]
            fault = example_fault(example, row, job)
        if fault is not None:
            findings.add(f"record {index:,} at byte {offset:,} ({sample_id}): {fault}; {RESTORE}")
    if end < len(shard):
        findings.add(
            f"expected the end at byte {end:,}, found {len(shard) - end:,} bytes that no row points to; {RESTORE}"
        )


def _check_index(kept: pa.Table, job: ShardJob) -> list[Finding]:
    """The index file for DALI's reader, if there is one: "offset size" of every frame, a line each."""
    findings = Findings(index_name(job.file.path))
    try:
        content = read_file(job.folder, findings.path)
    except UserError as error:
        findings.add(str(error))
        return findings.all()
    if content is None:
        return []
    places = zip(*(kept[name].to_pylist() for name in ("shard_offset", "shard_bytes")), strict=True)
    expected = [f"{offset} {size}" for offset, size in places]
    found = content.decode("utf-8", "replace").splitlines()
    if [" ".join(line.split()) for line in found] != expected:
        both = enumerate(zip_longest(found, expected), start=1)
        number, (there, wanted) = next(
            (number, pair) for number, pair in both if None in pair or pair[0].split() != pair[1].split()
        )
        end = "the end"
        findings.add(
            f"line {number:,}: expected {end if wanted is None else repr(wanted)}, "
            f"found {end if there is None else repr(there[:80])}; {_INDEX_AGAIN}"
        )
    return findings.all()


def _frame_fault(shard: bytes, offset: int, size: int, crc: int) -> str | None:
    """What is wrong with the frame of `size` bytes at `offset`, in words; None if nothing is."""
    begin, end = offset + FRAME_HEADER_BYTES, offset + size - FRAME_FOOTER_BYTES
    length = end - begin
    header = frame_header(length)
    if not shard.startswith(header, offset):
        at = _first_difference(shard[offset:begin], header)
        field = "length" if at < 8 else "CRC of the length"
        found = struct.unpack_from("<Q", shard, offset)[0]
        said = f", which says {found:,} bytes where the row says {length:,}" if field == "length" else ""
        return f"byte {offset + at:,} is wrong, in the frame's {field}{said}"
    example = shard[begin:end]
    found_crc = google_crc32c.value(example)
    footer = frame_footer(crc)
    if found_crc == crc:
        if shard.startswith(footer, end):
            return None
        at = end + _first_difference(shard[end : end + len(footer)], footer)
        return f"byte {at:,} is wrong, in the frame's CRC of the Example"
    if shard.startswith(frame_footer(found_crc), end):
        return f"expected the Example with CRC-32C {crc:08x}, as the row says, found a sound one with {found_crc:08x}"
    changed = find_changed_byte(example, crc)
    fault = f"expected CRC-32C {crc:08x}, found {found_crc:08x}"
    if changed is None:
        return fault
    at, value = changed
    return f"{fault}, which one byte explains: byte {begin + at:,} is {example[at]}, {value} belongs there"


def _walk_frames(shard: bytes, file: ShardFile, findings: Findings) -> None:
    """Every frame by the lengths in the shard, where there are no rows to go by."""
    offset = index = 0
    while offset < len(shard):
        begin = offset + FRAME_HEADER_BYTES
        (length,) = struct.unpack_from("<Q", shard, offset) if begin <= len(shard) else (-1,)
        end = begin + length
        if length < 0 or not shard.startswith(frame_header(length), offset) or end + FRAME_FOOTER_BYTES > len(shard):
            findings.add(f"record {index:,} at byte {offset:,}: expected a whole frame, found none; {RESTORE}")
            return
        if not shard.startswith(frame_footer(google_crc32c.value(shard[begin:end])), end):
            findings.add(
                f"record {index:,} at byte {offset:,}: expected an Example that fits its CRC, found another; {RESTORE}"
            )
        offset, index = end + FRAME_FOOTER_BYTES, index + 1
    if index != file.records:
        findings.add(f"expected {file.records:,} records, as the card says, found {index:,}; {RESTORE}")


def _first_difference(found: bytes, expected: bytes) -> int:
    return next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)


def _kinds(rows: pa.Table) -> dict[str, Counter[str]]:
    kinds: dict[str, Counter[str]] = {}
    for group in rows.group_by(["member", "status", "reason"]).aggregate([([], "count_all")]).to_pylist():
        kind = " ".join(filter(None, (group["status"], group["reason"])))
        kinds.setdefault(group["member"], Counter())[kind] += group["count_all"]
    return kinds


def _lost_bytes(rows: pa.Table) -> Counter[str]:
    lost = rows.filter(pc.is_in(rows["reason"], pa.array(LOST_REASONS)))
    by_member = lost.group_by("member").aggregate([("source_bytes", "sum")]).to_pylist()
    return Counter({row["member"]: row["source_bytes_sum"] for row in by_member})
