"""Back to the archives: records made again from their bytes, and compared with what the manifest says of them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.reader.dataset import preprocess_config, read_rows
from pipeline.shards.config import library_versions
from pipeline.source.archives import Input, Listing, list_inputs
from pipeline.source.members import Member, what_instead
from pipeline.verify.check import Advance, Report, pool, run
from pipeline.verify.findings import Finding
from pipeline.verify.record import Recipe, SourceJob, check_records
from schemas.classes import ClassList
from schemas.dataset import Card, MemberInput
from schemas.example import FORMAT_VERSION
from schemas.manifest import MANIFEST_SCHEMA

SLICE_ROWS = 2_000
"""Records that one process makes again before it reports."""
BATCH_ROWS = 250_000
"""Rows in memory at once where every record is made again."""
SMALL_ROWS = 3_000  # fewer are done before a second process has started
_SAME_EXAMPLES = {("1.0.0", "raw"), *((version, how) for version in ("1.1.0", "1.2.0") for how in ("raw", "png"))}
"""(format, encoding) of earlier releases from whose records this one makes the same bytes."""


@dataclass(frozen=True)
class Selection:
    """Which records to make again: every one, or so many of each member, drawn by a seed."""

    per_member: int | None
    seed: int = 0


def check_sources(
    report: Report, inputs: Sequence[Input], selection: Selection, processes: int, advance: Advance
) -> None:
    """Adds to the report what the archives say otherwise. Raises UserError for inputs that can't be read."""
    card, classes, folder = report.card, report.classes, report.folder
    assert card is not None
    assert classes is not None
    listing = list_inputs(inputs, 0)
    _check_kinds(card, listing, report)
    members = _find_members(card, listing.members, report)
    recipe = _recipe(card, classes)
    most = selection.per_member or sys.maxsize
    total = sum(min(entry.counts.read, most) for entry, _ in members)
    with pool(processes if total > SMALL_ROWS else 1) as executor:
        for name, split in card.splits.items():
            paths = [storage.join(folder, shard.manifest_path) for shard in split.shards]
            for batch in _batches([one for one in members if one[0].split == name], selection):
                jobs = list(_jobs(batch, paths, selection, recipe, folder))
                for job, found in run(executor, check_records, jobs):
                    report.findings += found
                    report.recomputed += job.rows.num_rows
                    advance(job.rows.num_rows, total)


def _find_members(card: Card, listed: Iterable[Member], report: Report) -> list[tuple[MemberInput, Member]]:
    """Each member on the card with the archive that holds it now."""
    by_name = {(member.split, member.name): member for member in listed}
    found = []
    for entry in card.inputs:
        member = by_name.pop((entry.split, entry.member), None)
        if member is None and entry.split == "validation":
            member = by_name.pop(("train", entry.member), None)  # --validation_fraction took the writer from train
        where = f"{entry.member} of {entry.archive}"
        if member is None:
            what = f"expected it under --against {entry.split}=…, found no such member; name the archive that holds it"
            report.findings.append(Finding(where, what))
        elif member.size_bytes != entry.bytes:
            what = f"expected {entry.bytes:,} bytes, as the card says, found {member.size_bytes:,} in {member}"
            report.findings.append(Finding(where, f"{what}; it is another file, or it was damaged"))
        else:
            found.append((entry, member))
            is_now = what_instead(member) if entry.what else None
            if is_now != entry.what:
                say = f"expected what={is_now!r}, as the archive says, found {entry.what!r}; convert again"
                report.findings.append(Finding(where, say))
    for split, name in by_name:
        member = by_name[split, name]
        what = f"expected every member of --against {split}=… in the data set, found it missing; convert it too"
        report.findings.append(Finding(f"{name} of {member.archive}", what))
    return found


def _check_kinds(card: Card, listing: Listing, report: Report) -> None:
    """What the card calls files that weren't read; those that lie elsewhere now, or not at all, are nobody's loss."""
    now = {(storage.base_name(file.location), file.name): file.what for file in listing.passed_over.files}
    for file in card.passed_over.files if card.passed_over else ():
        what = now.get((storage.base_name(file.location), file.name), file.what)
        if what != file.what:
            say = f"expected what={what!r}, as the archive says, found {file.what!r}; convert again"
            report.findings.append(Finding(f"{file.name} of {file.location}", say))


def _recipe(card: Card, classes: ClassList) -> Recipe:
    installed = library_versions(uncompiled="opencv-python" in card.libraries and "numba" in card.libraries)
    # What may make other bytes here: its release, where its format made others, and the libraries that changed since.
    # A library that isn't known here is of another release, and it is that which would have to be installed.
    changed = [f"{name} {found}" for name, found in card.libraries.items() if installed.get(name, found) != found]
    same_release = card.format_version.split(".")[:2] == FORMAT_VERSION.split(".")[:2]  # the third moves no byte
    if not same_release and (card.format_version, card.image_encoding) not in _SAME_EXAMPLES:
        changed.insert(0, f"release (format {card.format_version})")
    return Recipe(
        classes=classes,
        preprocess=preprocess_config(card),
        image_encoding="png" if card.image_encoding == "png" else "raw",
        sample_fraction=float(card.config["sample_fraction"]),
        advice=f"install the card's {', '.join(changed)} and verify again, then convert again"
        if changed
        else "convert again",
    )


Batch = dict[str, tuple[Member, int, int]]
"""Name -> (member, first record, the record after the last), all of one split."""


def _batches(members: Sequence[tuple[MemberInput, Member]], selection: Selection) -> Iterator[Batch]:
    """The members, a few at a time, so that the rows of each batch fit into memory; a large one in several pieces."""
    if selection.per_member is not None:
        yield {entry.member: (member, 0, entry.counts.read) for entry, member in members}
        return
    batch: Batch = {}
    rows = 0
    for entry, member in members:
        for first in range(0, entry.counts.read, BATCH_ROWS):
            end = min(entry.counts.read, first + BATCH_ROWS)
            if batch and rows + end - first > BATCH_ROWS:
                yield batch
                batch, rows = {}, 0
            batch[entry.member] = (member, first, end)
            rows += end - first
    if batch:
        yield batch


def _jobs(batch: Batch, paths: Sequence[str], selection: Selection, recipe: Recipe, folder: str) -> Iterator[SourceJob]:
    """The batch's rows, cut by member, each in the order of the archive."""
    rows = MANIFEST_SCHEMA.empty_table()
    for path in paths if batch else ():
        rows = pa.concat_tables([rows, _in_batch(read_rows(path), batch)])
        if selection.per_member is not None:
            rows = _draw(rows, selection.per_member, selection.seed)
    for name, (member, _, _) in batch.items():
        of_member = rows.filter(pc.equal(rows["member"], name)).sort_by("source_offset")
        most = SLICE_ROWS if member.random_access else BATCH_ROWS  # what is packed is unpacked from its start each time
        for begin in range(0, len(of_member), most):
            # A slice would be sent to its process with all the rows it was cut from.
            piece = of_member.take(np.arange(begin, min(begin + most, len(of_member))))
            yield SourceJob(member, piece, recipe, folder)


def _in_batch(part: pa.Table, batch: Batch) -> pa.Table:
    members, indexes = part["member"].to_pylist(), part["record_index"].to_pylist()
    chosen = [name in batch and batch[name][1] <= i < batch[name][2] for name, i in zip(members, indexes, strict=True)]
    return part.filter(pa.array(chosen, pa.bool_()))


def _draw(rows: pa.Table, per_member: int, seed: int) -> pa.Table:
    """The `per_member` rows of each member whose seeded hashes are smallest: a fair draw, part by part."""
    salt = seed.to_bytes(8, "little", signed=True)
    digests = [hashlib.blake2b(s.encode(), digest_size=8, salt=salt).digest() for s in rows["sample_id"].to_pylist()]
    drawn = np.frombuffer(b"".join(digests), "<u8")
    member = pc.dictionary_encode(rows["member"].combine_chunks()).indices.to_numpy()
    order = np.lexsort((drawn, member))
    starts = np.searchsorted(member[order], member[order])
    return rows.take(np.sort(order[np.arange(len(order)) - starts < per_member]))
