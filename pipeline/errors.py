"""What befalls a run on its way, of which neither the input nor the flags are to blame."""

from __future__ import annotations

import re

from schemas.errors import UserError

RESUMES = "; the same command goes on from where it stopped"


class EngineError(UserError):
    """A run that was lost on its way: neither the input nor the flags are to blame, and the same command goes on."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(message + RESUMES)


class StartError(UserError):
    """A run that could not begin, and won't for the same command."""

    exit_status = 1


def user_error_in(text: str) -> str | None:
    """The message of the UserError a runner wrapped in its own exception, or None.

    Runners hand an exception on as text: a worker's traceback, to which Beam may append the step's name.
    """
    found = re.findall(r"^(?:\S*\.)?UserError: (.*)$", text, flags=re.MULTILINE)
    if not found:
        return None
    message: str = re.sub(r" \[while running '.*$", "", found[-1])
    return message.strip()
