"""Errors a user can mend: one line, exit status 2, no traceback."""

from __future__ import annotations

import re

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Says where, what was expected, what was found and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


class EngineError(Exception):
    """What befell a run on its way, of which neither the input nor the flags are to blame: one line, exit status 1."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def printable(text: str) -> str:
    """`text` without control characters: names from an archive can carry terminal escapes."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def user_error_in(text: str) -> str | None:
    """The message of the UserError a runner wrapped in its own exception, or None.

    Runners hand an exception on as text: a worker's traceback, to which Beam may append the step's name.
    """
    found = re.findall(r"^(?:\S*\.)?UserError: (.*)$", text, flags=re.MULTILINE)
    if not found:
        return None
    message: str = re.sub(r" \[while running '.*$", "", found[-1])
    return message.strip()
