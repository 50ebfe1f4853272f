"""Errors a user of the trainer can mend: one line, exit status 2, no traceback."""

from __future__ import annotations

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class TrainError(Exception):
    """Says where, what was expected, what was found and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(message.split())))
