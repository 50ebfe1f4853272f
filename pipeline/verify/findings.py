"""What a verification finds: a line that says where, what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import printable

RESTORE = "restore the file from a copy, or convert again: the same archives give the same bytes"
MOST_PER_KIND = 3
"""Rows or records named one by one where the same is wrong with many."""
MOST_PER_FILE = 20


@dataclass(frozen=True)
class Finding:
    """Something in a data set that isn't as it should be."""

    path: str
    """The file, relative to the data set's folder; or the archive."""
    what: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.what}")


@dataclass
class Findings:
    """The findings about one file, at most MOST_PER_FILE and a count of the others."""

    path: str
    found: list[Finding] = field(default_factory=list)
    more: int = 0

    def add(self, what: str) -> None:
        if len(self.found) < MOST_PER_FILE:
            self.found.append(Finding(self.path, what))
        else:
            self.more += 1

    def add_where(self, wrong: np.ndarray, describe: Callable[[int], str]) -> None:
        """A finding for each of the first places where `wrong` (bool [n]) is true, and one for all others."""
        places = np.flatnonzero(wrong)
        for i in places[:MOST_PER_KIND].tolist():
            self.add(describe(i))
        if len(places) > MOST_PER_KIND:
            self.add(f"… and {len(places) - MOST_PER_KIND:,} more of the same kind")

    def all(self) -> list[Finding]:
        rest = [Finding(self.path, f"… and {self.more:,} more findings")] if self.more else []
        return [*self.found, *rest]
