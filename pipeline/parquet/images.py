"""One shard to one Parquet file: the images as PNG, with the features in the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.reader.where import Where
from pipeline.shards.tfrecord.frames import encode_png
from pipeline.verify.example import decode_image, read_image
from schemas.command.outputs import sha256_of
from schemas.dataset import Card, ShardFile
from schemas.errors import UserError, explained
from schemas.example import FRAME_FOOTER_BYTES, FRAME_HEADER_BYTES
from schemas.manifest import KEPT

FOLDER = "data"
COLUMNS = {
    "image": "the sample, a grey PNG: ink is 255 on 0",
    "label": "index into the class list; the feature's names are the characters",
    "writer": "who wrote it, by the name of the file it comes from",
    "sample_id": "split/file/record: where it stands in the archives and in the manifest",
}
"""Column -> what it is."""
_ROW_GROUP_BYTES = 4 << 20  # 4 MiB of pixels: a megabyte of PNGs or so, which is what a reader reads at once
_PAGE_ROWS = 100  # what the Hub shows at once, and finds by the index of pages
_PLACE = ("shard_offset", "shard_bytes", "shard_crc32c")
_VERIFY = "python -m pipeline.verify says what is damaged"


@dataclass(frozen=True)
class ImagesJob:
    """A shard to export."""

    folder: str
    """Of the data set."""
    card: Card
    characters: tuple[str, ...]
    file: ShardFile
    output: Path
    """Of the export."""
    where: str | None = None
    """Which of its kept records, as the reader has it; None is all of them."""

    @property
    def name(self) -> str:
        return images_name(self.file)


@dataclass(frozen=True)
class ImagesFile:
    """A Parquet file that was written."""

    name: str
    bytes: int
    sha256: str
    images: int
    labels: frozenset[int]
    writers: frozenset[str]


def images_name(shard: ShardFile) -> str:
    """Of a shard's Parquet file, relative to the export's folder: its split stands in it, by which readers tell it."""
    return f"{FOLDER}/{Path(shard.path).stem}.parquet"


def schema_of(characters: tuple[str, ...]) -> pa.Schema:
    """The columns, with the features as Hugging Face's datasets looks for them."""
    fields = [
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("label", pa.int64()),
        pa.field("writer", pa.string()),
        pa.field("sample_id", pa.string()),
    ]
    text = {"dtype": "string", "_type": "Value"}
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(characters), "_type": "ClassLabel"},
        "writer": text,
        "sample_id": text,
    }
    info = json.dumps({"info": {"features": features}}, ensure_ascii=False, separators=(",", ":"))
    return pa.schema(fields, metadata={"huggingface": info})


def write_images(job: ImagesJob) -> ImagesFile:
    """Writes the kept records of a shard, in its order. Raises UserError for a shard that isn't as it was written."""
    count, labels, writers = 0, set[int](), set[str]()
    path = job.output / job.name
    schema = schema_of(job.characters)
    # Everything that the bytes depend on is said, but for the release of Arrow, which stands in the file. A PNG is
    # compressed already, no two are alike, and the smallest of a page tells nothing.
    words = ["label", "writer", "sample_id"]
    settings = {
        "compression": {"image.bytes": "none", "image.path": "none", **dict.fromkeys(words, "zstd")},
        "compression_level": dict.fromkeys(words, 3),
        "use_dictionary": ["label", "writer"],
        "write_statistics": words,
        "write_page_index": True,
        "write_batch_size": _PAGE_ROWS,
        "max_rows_per_page": _PAGE_ROWS,
        "store_schema": False,
        "version": "2.6",
    }
    with explained(f"write {path}"), pq.ParquetWriter(path, schema, **settings) as parquet:
        for rows, images in _samples(job):
            pngs = pa.array(images, pa.binary())
            image = pa.StructArray.from_arrays(
                [pngs, pa.nulls(len(pngs), pa.string())], fields=list(schema.field("image").type)
            )
            count += len(pngs)
            labels.update(pc.unique(rows["label"]).to_pylist())
            writers.update(pc.unique(rows["writer"]).to_pylist())
            columns = [image, rows["label"].cast(pa.int64()), rows["writer"], rows["sample_id"]]
            parquet.write_table(pa.table(columns, schema=schema), row_group_size=len(pngs))
        parquet.add_key_value_metadata(schema.metadata)  # without Arrow's own schema, which would hold it once more
    size = path.stat().st_size
    return ImagesFile(job.name, size, sha256_of(path), count, frozenset(labels), frozenset(writers))


def _samples(job: ImagesJob) -> Iterator[tuple[pa.Table, list[bytes]]]:
    """A row group's rows of the manifest, and their images as PNGs, at a time: every checksum is compared."""
    size, encoding = job.card.image_size, job.card.image_encoding
    path = storage.join(job.folder, job.file.path)
    encode = _as_png(size, encoding)
    for rows in _kept_rows(job, max(1, _ROW_GROUP_BYTES // size**2)):
        places = list(zip(*(rows[name].to_pylist() for name in _PLACE), strict=True))
        begin, end = places[0][0], places[-1][0] + places[-1][1]
        with explained(f"read {path}"):
            octets = storage.read_range(path, begin, end - begin)
        images = []
        for offset, frame_bytes, crc in places:
            first = offset - begin
            example = octets[first + FRAME_HEADER_BYTES : first + frame_bytes - FRAME_FOOTER_BYTES]
            image = read_image(example) if google_crc32c.value(example) == crc else None
            if image is None:
                raise UserError(f"{path}, byte {offset:,}: expected the Example that the manifest lists; {_VERIFY}")
            images.append(encode(image))
        yield rows, images


def _as_png(size: int, encoding: str) -> Callable[[bytes], bytes]:
    """What makes the PNG of an image in a shard."""
    return bytes if encoding == "png" else lambda image: encode_png(decode_image(image, size, encoding))


def _kept_rows(job: ImagesJob, rows_at_once: int) -> Iterator[pa.Table]:
    """The manifest's rows of the records to export, so many at a time, in the shard's order."""
    path = storage.join(job.folder, job.file.manifest_path)
    where = None if job.where is None else Where(job.where)
    needed = ["sample_id", "label", "writer", *_PLACE]
    columns = sorted({"status", *needed, *(where.columns if where else ())})
    count = 0
    try:
        with explained(f"read {path}"), storage.open_read(path) as stream:
            waiting: pa.Table | None = None
            for batch in pq.ParquetFile(stream).iter_batches(rows_at_once, columns=columns):
                rows = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], KEPT))
                count += len(rows)
                if any(rows[name].null_count for name in needed):
                    raise UserError(f"{path}: expected every kept record with its place, found one without; {_VERIFY}")
                rows = where.filter(rows) if where else rows
                waiting = rows if waiting is None else pa.concat_tables([waiting, rows])
                while len(waiting) >= rows_at_once:
                    yield waiting[:rows_at_once]
                    waiting = waiting[rows_at_once:]
            if waiting is not None and len(waiting):
                yield waiting
    except pa.ArrowException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; {_VERIFY}") from error
    if count != job.file.records:
        raise UserError(
            f"{path}: expected {job.file.records:,} kept rows, as the card says, found {count:,}; {_VERIFY}"
        )
