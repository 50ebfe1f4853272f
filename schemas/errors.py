"""Errors a user can mend: one line that says where, what was expected, what was found and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator


class UserError(Exception):
    """One line for the user; a command prints it and ends with `exit_status`, without a traceback."""

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


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


def printable(text: str) -> str:
    """`text` without control characters: names from an archive can carry terminal escapes."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns what an operating system says into the one line of a UserError; `doing` reads 'write out/x.tfrecord'."""
    try:
        yield
    except OSError as error:
        if error.errno is None and not error.args:
            raise
        raise UserError(in_words(error, doing)) from error


def in_words(error: OSError, doing: str = "") -> str:
    """What an operating system says, and what to do about it."""
    if not doing:
        named = isinstance(error.filename, str | bytes | os.PathLike)
        doing = f"use {printable(os.fsdecode(error.filename))}" if named else "go on"
    reason = error.strerror or str(error)
    advice = ADVICE.get(error.errno or 0, "mend that and run the same command again")
    if reason.startswith("No usable temporary directory"):  # tempfile's words, with the number of a missing file
        advice = "set TMPDIR to a folder that can be written"
    return f"can't {doing}: {reason}; {advice}"


ADVICE = {
    errno.ENOSPC: "free some space and run the same command again, it goes on from where it stopped",
    errno.EDQUOT: "free some of your quota and run the same command again, it goes on from where it stopped",
    errno.EACCES: "check the permissions, or name another folder",
    errno.EPERM: "check the permissions, or name another folder",
    errno.EROFS: "name a folder that can be written",
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "a file stands where a folder is needed; name another folder",
    errno.EISDIR: "a folder stands where a file is needed; name another path",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.ELOOP: "links lead round in a circle there; name another path",
    errno.EMFILE: "allow more open files with ulimit -n",
}
