"""A conversion as a value: what goes in, what to make of it, where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.shards.config import ConvertConfig
from pipeline.source.archives import Member


@dataclass(frozen=True)
class Conversion:
    members: Sequence[Member]
    config: ConvertConfig
    output: str
    staging: str
    max_reject_fraction: float

    @property
    def source_bytes(self) -> int:
        return sum(member.size_bytes for member in self.members)
