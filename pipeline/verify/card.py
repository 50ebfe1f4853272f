"""The card against itself, against the folder, and against what the manifest's rows add up to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline import storage
from pipeline.reader.dataset import read_file
from pipeline.shards import publish
from pipeline.shards.config import LIBRARIES
from pipeline.verify.findings import RESTORE, Finding, Findings
from pipeline.verify.shard import ShardReport
from schemas.classes import ClassList, ClassListError, parse_classes
from schemas.dataset import (
    CARD,
    CLASSES,
    MOST_PASSED,
    SIDE_FILES,
    STAGING_FOLDER,
    TFDS_LABELS,
    Card,
    Counts,
    index_name,
)
from schemas.errors import UserError, explained, printable
from schemas.machine import is_litter
from schemas.manifest import DROPPED, KEPT, REJECTED

_NOT_NAMED_BY = {"1.0.0": ("deflate", "numba", "hwdb-shards"), "1.1.0": ("numba", "hwdb-shards")}
"""Libraries that a card of an earlier format needn't name."""
_WITHOUT_LOSSES = ("1.0.0", "1.1.0")
"""Formats whose cards don't say what was lost and passed over."""


def check_card(card: Card, content: bytes) -> list[Finding]:
    """What the card says of itself."""
    findings = Findings(CARD)
    if card.to_json().encode("utf-8", "surrogatepass") != content:
        findings.add(f"expected the card as the conversion writes it, found other bytes; {RESTORE}")
    for library in LIBRARIES:
        if library not in card.libraries and library not in _NOT_NAMED_BY.get(card.format_version, ()):
            findings.add(f"expected the version of {library}, found none; convert again")
    if card.config.get("num_shards") != {name: len(split.shards) for name, split in card.splits.items()}:
        findings.add("expected as many shards as its num_shards say, found others; convert again")
    _check_losses(card, findings)
    for name, split in card.splits.items():
        own = [entry.counts for entry in card.inputs if entry.split == name]
        if _kinds(split.counts) != sum(map(_kinds, own), Counter()) or split.counts.read != sum(c.read for c in own):
            findings.add(f"{name}: expected the counts to be the sum of the members', found others; convert again")
    return findings.all()


def _check_losses(card: Card, findings: Findings) -> None:
    """What the card says of bytes that gave no record, and of files that weren't read."""
    passed = card.passed_over
    if card.format_version in _WITHOUT_LOSSES:
        return
    if passed is None or any(entry.lost_bytes is None for entry in card.inputs):
        findings.add("expected passed_over, and lost_bytes of every member, found them missing; convert again")
    if passed is not None:
        named = Counter(file.what for file in passed.files)
        if passed.count != sum(passed.kinds.values()) or len(passed.files) != min(passed.count, MOST_PASSED):
            findings.add("expected passed_over to count its kinds and to name its files, found others; convert again")
        elif any(n > passed.kinds.get(what, 0) for what, n in named.items()):
            findings.add("expected passed_over to count every file that it names, found others; convert again")
    for entry in card.inputs:
        if entry.what is not None and not 0 < entry.bytes == entry.lost_bytes:
            what = f"expected what={entry.what!r} of a member without a sound record only"
            findings.add(f"{entry.member} of {entry.archive}: {what}; convert again")


def read_classes(card: Card, folder: str) -> ClassList | None:
    """The class list that the card's digest names, from either of its two files; None if both are damaged."""
    for name in (CLASSES, TFDS_LABELS):
        try:
            content = read_file(folder, name)
            if content is not None and hashlib.sha256(content).hexdigest() == card.class_digest:
                return parse_classes(content.decode())
        except (UserError, ClassListError, UnicodeDecodeError):
            continue
    return None


def check_files(card: Card, classes: ClassList | None, folder: str) -> list[Finding]:
    """The files beside the shards, byte by byte, and every file that the card doesn't know."""
    findings: list[Finding] = []
    if classes is None:
        what = f"expected SHA-256 {card.class_digest}, found another here and in {TFDS_LABELS}"
        findings.append(Finding(CLASSES, f"{what}; {RESTORE}"))
    elif len(classes) != card.class_count:
        what = f"expected class_count {len(classes):,}, found {card.class_count:,}"
        findings.append(Finding(CARD, f"{what}; convert again"))
    expected = publish.side_files(card, classes) if classes else {}
    for name, text in expected.items():
        fault = _text_fault(folder, name, text.encode())
        if fault:
            findings.append(Finding(name, f"{fault}; {RESTORE}"))
    shards = [shard for split in card.splits.values() for shard in split.shards]
    mine = {CARD, *SIDE_FILES}
    mine.update(path for shard in shards for path in (shard.path, shard.manifest_path, index_name(shard.path)))
    with explained(f"read {folder}"):
        found = storage.find(folder)
    for file in found:
        name = file.path.removeprefix(folder).lstrip("/")
        if name not in mine and not name.startswith(f"{STAGING_FOLDER}/") and not is_litter(name):
            findings.append(
                Finding(printable(name), "expected only what the card lists, found this file; move it away")
            )
    return findings


def check_totals(card: Card, reports: Mapping[str, Sequence[ShardReport]]) -> list[Finding]:
    """The members' counts, the characters and the writers, by split, against the rows of every shard."""
    findings = Findings(CARD)
    for name, shards in reports.items():
        kinds: dict[str, Counter[str]] = {}
        for report in shards:
            for member, counted in report.kinds.items():
                kinds.setdefault(member, Counter()).update(counted)
        own = [entry for entry in card.inputs if entry.split == name]
        for entry in own:
            found = kinds.get(entry.member, Counter())
            if found != _kinds(entry.counts):
                findings.add(
                    f"{entry.member} of {entry.archive}: expected {dict(_kinds(entry.counts))}, found {dict(found)} in "
                    "the manifest; convert again"
                )
            lost_bytes = sum(report.lost_bytes[entry.member] for report in shards)
            if entry.lost_bytes not in (None, lost_bytes):
                what = f"expected lost_bytes {lost_bytes:,}, found {entry.lost_bytes:,} on the card"
                findings.add(f"{entry.member} of {entry.archive}: {what}; convert again")
        split = card.splits[name]
        labels = set().union(*(report.labels for report in shards))
        if len(labels) != split.characters:
            findings.add(f"{name}: expected {split.characters:,} characters, found {len(labels):,}; convert again")
        writers = {entry.writer for entry in own if entry.counts.read}
        if len(writers) != split.writers:
            findings.add(f"{name}: expected {split.writers:,} writers, found {len(writers):,}; convert again")
    return findings.all()


def _kinds(counts: Counts) -> Counter[str]:
    """ "kept" and "status reason" -> records; what there is none of isn't listed."""
    dropped = {f"{DROPPED} {reason}": n for reason, n in counts.dropped.items()}
    rejected = {f"{REJECTED} {reason}": n for reason, n in counts.rejected.items()}
    return Counter({kind: n for kind, n in {KEPT: counts.kept, **dropped, **rejected}.items() if n})


def _text_fault(folder: str, name: str, expected: bytes) -> str | None:
    """What is wrong with a small file, in words."""
    try:
        content = read_file(folder, name)
    except UserError as error:
        return str(error)
    if content is None:
        return f"expected a file of {len(expected):,} bytes, found none"
    if content == expected:
        return None
    at = next((i for i, (a, b) in enumerate(zip(content, expected, strict=False)) if a != b), None)
    if at is None:
        return f"expected {len(expected):,} bytes, found {len(content):,}"
    return f"expected {expected[at]} at byte {at:,}, found {content[at]}"
