"""Shards in, a recogniser out.

    recogniser = model.load_run("runs/first")
    reading = recogniser.read("photo.jpg")
    if reading.recognised:
        print(reading.character, reading.probability)

Importing this imports no TensorFlow; `load_run` does. Nothing here touches a logger or ends the process: what a caller
can mend is a `schemas.errors.UserError` of one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.answers.reading import Reading, Recogniser, load_run

__all__ = ["Reading", "Recogniser", "load_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from model.answers import reading

    return getattr(reading, name)
