"""Shards in, a recogniser out.

    recogniser = model.load_run()  # the one in the box; model.load_run("runs/first") is one of yours
    reading = recogniser.read("photo.jpg")
    if reading.recognised:
        print(reading.character, reading.probability)

Importing this imports no TensorFlow; `load_run` does. Nothing here touches a logger or ends the process: what a caller
can mend is a `schemas.errors.UserError` of one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import imported_when_used

if TYPE_CHECKING:
    from model.answers.reading import Reading, Recogniser, load_run

__all__ = ["Reading", "Recogniser", "load_run"]
__getattr__ = imported_when_used(__name__, dict.fromkeys(__all__, "answers.reading"))
