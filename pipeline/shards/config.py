"""Everything a conversion's bytes depend on, refused at construction where it makes no sense."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib import metadata
from typing import Any

from pipeline.steps.settings import PreprocessConfig
from schemas.classes import ClassList, default_classes
from schemas.example import FORMAT_VERSION, IMAGE_ENCODINGS, ImageEncoding

LIBRARIES = ("numpy", "numba", "pyarrow", "google-crc32c", "xxhash", "deflate", "hwdb-shards")
"""What the bytes pass through, this package among them; their versions stand on the card."""
_UNKNOWN = "unknown"
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""One of them holds the calls of the plain steps."""


@dataclass(frozen=True)
class ConvertConfig:
    """What to make of the records; the same for every split."""

    classes: ClassList = field(default_factory=default_classes)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    image_encoding: ImageEncoding = "raw"
    sample_fraction: float = 1.0
    num_shards: Mapping[str, int] = field(default_factory=dict)
    """By split, for every split that has input."""

    def __post_init__(self) -> None:
        if self.image_encoding not in IMAGE_ENCODINGS:
            raise ValueError(f"image_encoding: expected raw or png, found {self.image_encoding!r}")
        if not 0 < self.sample_fraction <= 1:
            raise ValueError(f"sample_fraction: expected more than 0, at most 1, found {self.sample_fraction}")

    def as_json(self) -> dict[str, Any]:
        """The settings as the card holds them; the class list stands there by its digest."""
        return {
            "preprocess": asdict(self.preprocess),
            "image_encoding": self.image_encoding,
            "sample_fraction": self.sample_fraction,
            "num_shards": dict(sorted(self.num_shards.items())),
        }

    def digest(self, split: str) -> str:
        """Equal for two conversions whose staged pieces of a split can stand in for each other."""
        return self._digests[split]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {split: self._digest(count) for split, count in self.num_shards.items()}

    def _digest(self, num_shards: int) -> str:
        settings = {**self.as_json(), "num_shards": num_shards}
        identity = [settings, self.classes.digest, FORMAT_VERSION, library_versions()]
        return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()


def library_versions(*, uncompiled: bool = False) -> dict[str, str]:
    """The installed version of everything the bytes pass through: `uncompiled` where Numba couldn't be had."""
    versions = {library: _installed_version(library) for library in LIBRARIES}
    return {**versions, _OPENCV[0]: _installed_version(*_OPENCV)} if uncompiled else versions


@cache  # every chunk's digest asks
def _installed_version(*names: str) -> str:
    """Of the first of the distributions that is installed; what isn't installed by pip may be none of them."""
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return str(metadata.version(name) or _UNKNOWN)
    return _UNKNOWN
