"""The last stage: everything read is accounted for, or the conversion fails; then the card is written."""

from __future__ import annotations

import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.shards.config import ConvertConfig, library_versions
from pipeline.shards.shard import ShardReceipt
from pipeline.shards.staging import ChunkReceipt
from pipeline.source.members import Member, what_instead
from schemas import dataset
from schemas.classes import ClassList
from schemas.dataset import Card, Counts, MemberInput, Origin, PassedOver, Split
from schemas.errors import UserError, explained, printable
from schemas.example import FORMAT_VERSION, IMAGE, LABEL, SAMPLE_ID
from schemas.manifest import DROPPED, KEPT, REJECTED

_CALLED_CASIAS = ("1.0.0", "1.1.0", "1.2.0")
"""Formats whose dataset_info.json says so of any archive."""
_MOST_HEADS = 100  # members of which the first bytes are asked what they are instead of GNT


def build_card(
    members: Sequence[Member],
    chunks: Iterable[ChunkReceipt],
    shards: Iterable[ShardReceipt],
    config: ConvertConfig,
    passed_over: PassedOver | None = None,
    origin: Origin | None = None,
) -> Card:
    """The card of a finished conversion. Raises RuntimeError if any record that was read isn't accounted for."""
    counted, lost = defaultdict[tuple[str, str], Counter[str]](Counter), Counter[tuple[str, str]]()
    uncompiled, keys = False, Counter[str]()
    for chunk in chunks:
        counted[chunk.split, chunk.member].update(chunk.counts)
        lost[chunk.split, chunk.member] += chunk.lost_bytes
        keys[chunk.split] += chunk.keys
        uncompiled = uncompiled or bool(chunk.uncompiled)
    shards = sorted(shards, key=lambda shard: (shard.split, shard.shard))
    inputs = [_member_input(one, counted[one.split, one.name], lost[one.split, one.name]) for one in members]
    inputs = _with_what_they_are(inputs, members)
    splits = {}
    for split in sorted(config.num_shards, key=dataset.SPLITS.index):
        own = [shard for shard in shards if shard.split == split]
        if [shard.shard for shard in own] != list(range(config.num_shards[split])):
            raise RuntimeError(f"{split}: expected {config.num_shards[split]} shards, found {len(own)}")
        of_split = [entry for entry in inputs if entry.split == split]
        counts = _sum(entry.counts for entry in of_split)
        _check_written(split, counts, keys[split], own)
        labels = np.bitwise_or.reduce([np.frombuffer(bytes.fromhex(shard.labels), np.uint8) for shard in own])
        splits[split] = Split(
            counts=counts,
            characters=int(np.unpackbits(labels).sum()),
            writers=len({entry.writer for entry in of_split if entry.counts.read}),
            shards=[shard.file for shard in own],
        )
    return Card(
        format_version=FORMAT_VERSION,
        config=config.as_json(),
        class_count=len(config.classes),
        class_digest=config.classes.digest,
        libraries=library_versions(uncompiled=uncompiled),
        splits=splits,
        inputs=inputs,
        passed_over=passed_over,
        origin=origin,
    )


def side_files(card: Card, classes: ClassList) -> dict[str, str]:
    """What stands beside the shards, by name: the class list, and what tfds.builder_from_directory needs."""
    return {
        dataset.CLASSES: classes.text,
        dataset.TFDS_LABELS: classes.text,
        dataset.TFDS_INFO: _json(_tfds_info(card)),
        dataset.TFDS_FEATURES: _json(_tfds_features(card)),
    }


def check_sources(members: Sequence[Member]) -> None:
    """Raises UserError where a loose member is another file than the one that was listed; a zip has its CRCs."""
    of_folder: dict[str, list[Member]] = {}
    for member in members:
        if member.zip_entry is None:
            of_folder.setdefault(posixpath.dirname(member.location), []).append(member)
    for folder, own in of_folder.items():
        for member, now in zip(own, _files(folder, own), strict=True):
            if now is None or now.size_bytes != member.size_bytes or _times(now.version) != _times(member.version):
                raise UserError(
                    f"{member.location}: expected the file that was listed, found it changed during the conversion; "
                    "run the same command again when it is complete"
                )


def _files(folder: str, members: Sequence[Member]) -> list[storage.StoredFile | None]:
    """Their files in a folder as they are now: a store is asked once for many."""
    with explained(f"read {folder or '.'}"):
        if len(members) == 1 or not storage.of(folder).is_remote:
            return [storage.status(member.location) for member in members]
        listed = {file.path: file for file in storage.list_folder(folder)}
    return [listed.get(member.location) for member in members]


def _times(version: str) -> list[str]:
    """Without the inode: some mounts give a file another one whenever they have forgotten it."""
    return version.split()[:2]


def write_side_files(card: Card, config: ConvertConfig, output: str) -> None:
    for name, text in side_files(card, config.classes).items():
        _write(output, name, text)


def write_card(card: Card, output: str) -> None:
    _write(output, dataset.CARD, card.to_json())


def paths(card: Card) -> list[str]:
    """Of every file of the data set but the card, relative to its folder."""
    files = [file for split in card.splits.values() for file in split.shards]
    return [*dataset.SIDE_FILES, *(path for file in files for path in (file.path, file.manifest_path))]


def _with_what_they_are(inputs: Sequence[MemberInput], members: Sequence[Member]) -> list[MemberInput]:
    """The same; the first of those in which all bytes are lost are looked into."""
    named = list(inputs)
    lost = [i for i, entry in enumerate(inputs) if entry.bytes and entry.lost_bytes == entry.bytes]
    for i in lost[:_MOST_HEADS]:
        named[i] = replace(inputs[i], what=what_instead(members[i]))
    return named


def _member_input(member: Member, counts: Mapping[str, int], lost_bytes: int) -> MemberInput:
    return MemberInput(
        split=member.split,
        location=printable(member.location),
        archive=member.archive,
        member=member.name,
        writer=member.writer,
        bytes=member.size_bytes,
        counts=_counts(counts),
        lost_bytes=lost_bytes,
    )


def _check_written(split: str, counts: Counts, keys: int, shards: Sequence[ShardReceipt]) -> None:
    """Every record that was staged is in one shard: the same counts, and keys that add up to the same."""
    written = Counter[str]()
    for shard in shards:
        written.update(shard.counts)
    rows = sum(shard.file.manifest_rows for shard in shards)
    if (_counts(written), rows) != (counts, counts.read) or (keys - sum(shard.keys for shard in shards)) % 2**64:
        raise RuntimeError(f"{split}: {counts.read:,} records were read, and {rows:,} others are in the manifest")


def _counts(kinds: Mapping[str, int]) -> Counts:
    def reasons(status: str) -> dict[str, int]:
        return {
            kind.removeprefix(f"{status} "): n for kind, n in sorted(kinds.items()) if kind.startswith(f"{status} ")
        }

    return Counts(
        read=sum(kinds.values()), kept=kinds.get(KEPT, 0), dropped=reasons(DROPPED), rejected=reasons(REJECTED)
    )


def _sum(counts: Iterable[Counts]) -> Counts:
    read = kept = 0
    dropped, rejected = Counter[str](), Counter[str]()
    for one in counts:
        read, kept = read + one.read, kept + one.kept
        dropped.update(one.dropped)
        rejected.update(one.rejected)
    return Counts(read, kept, dict(sorted(dropped.items())), dict(sorted(rejected.items())))


def _tfds_info(card: Card) -> dict[str, Any]:
    return {
        "name": "hwdb",
        "version": card.format_version,
        **_tfds_origin(card),
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": name,
                "shardLengths": [str(shard.records) for shard in split.shards],
                "numBytes": str(sum(shard.bytes for shard in split.shards)),
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
            }
            for name, split in card.splits.items()
        ],
        "supervisedKeys": {"tuple": {"items": [{"featureKey": IMAGE}, {"featureKey": LABEL}]}},
    }


def _tfds_origin(card: Card) -> dict[str, Any]:
    origin = card.origin
    if card.format_version in _CALLED_CASIAS:
        return {"description": "Handwritten Chinese characters of CASIA-HWDB."}
    if origin is None:
        return {"description": "Handwritten Chinese characters."}
    fields = {
        "description": f"Handwritten Chinese characters: {origin.name}.",
        "citation": origin.citation,
        "location": origin.homepage and {"urls": [origin.homepage]},
        "redistributionInfo": origin.license and {"license": origin.license},
    }
    return {name: value for name, value in fields.items() if value}


def _tfds_features(card: Card) -> dict[str, Any]:
    package = "tensorflow_datasets.core.features"
    shape = {"dimensions": [str(card.image_size), str(card.image_size), "1"]}
    image: dict[str, Any] = (
        {
            "pythonClassName": f"{package}.image_feature.Image",
            "image": {"shape": shape, "dtype": "uint8", "encodingFormat": "png"},
        }
        if card.image_encoding == "png"
        else {
            "pythonClassName": f"{package}.tensor_feature.Tensor",
            "tensor": {"shape": shape, "dtype": "uint8", "encoding": "bytes"},
        }
    )
    return {
        "pythonClassName": f"{package}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                IMAGE: image,
                LABEL: {
                    "pythonClassName": f"{package}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": str(card.class_count)},
                },
                SAMPLE_ID: {"pythonClassName": f"{package}.text_feature.Text", "text": {}},
            }
        },
    }


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _write(output: str, name: str, text: str) -> None:
    path = storage.join(output, name)
    with explained(f"write {path}"):
        storage.write_bytes(path, text.encode(), durable=True)
