"""The tf.train.Example of one sample: feature names, dtypes and shapes.

The trainer derives its parse spec from this table and the conversion its encoder, so the two can't drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORMAT_VERSION = "1.3.0"
"""The version of everything on disk. The major number changes when a reader of the old files would fail or be wrong,
the minor one when bytes change for the same input, the patch number when files or columns are only added."""

IMAGE = "image"
LABEL = "label"
SAMPLE_ID = "sample_id"

FRAME_HEADER_BYTES = 12  # TFRecord: uint64 LE length of the Example, uint32 LE masked CRC-32C of the length
FRAME_FOOTER_BYTES = 4  # uint32 LE masked CRC-32C of the Example

ImageEncoding = Literal["raw", "png"]
IMAGE_ENCODINGS: tuple[ImageEncoding, ...] = ("raw", "png")


@dataclass(frozen=True)
class Feature:
    """One feature of the Example; every feature holds exactly one value."""

    name: str
    kind: Literal["bytes_list", "int64_list"]
    meaning: str


FEATURES = (
    Feature(IMAGE, "bytes_list", "raw: uint8 [size, size, 1] row by row; png: the same image as a grey 8-bit PNG"),
    Feature(LABEL, "int64_list", "index into classes.txt"),
    Feature(SAMPLE_ID, "bytes_list", "UTF-8 'split/member/record_index', the manifest's sample_id"),
)


def sample_id_prefix(split: str, member: str) -> str:
    """What the sample_id of every record of a member begins with; the record index follows, in decimal."""
    return f"{split}/{member}/"
