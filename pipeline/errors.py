"""What befalls a run on its way, of which neither the input nor the flags are to blame."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from schemas.command import EXIT_INTERRUPTED
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


class Ended(UserError):
    """By a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}{RESUMES}")
        self.exit_status = EXIT_INTERRUPTED - signal.SIGINT + number


_heard: list[int] = []
"""The signals that `heeding_signals` has been told to end by."""
_AGAIN_SECONDS = 5.0


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, in an orderly way; they raise Ended.

    Only where nobody else has something to say about them: who started the process, or the program it is called in.
    What a signal broke on its way out is no error, and one that was swallowed, as by a library that can do without what
    it imports, or by compiled code that calls Python, is heard again every few seconds.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _hear)
    try:
        yield
    except (KeyboardInterrupt, Exception):
        if not _heard:
            raise
        if _heard[0] != signal.SIGINT:
            raise Ended(_heard[0]) from None
        raise KeyboardInterrupt from None
    finally:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        _heard.clear()


def _hear(number: int, _frame: FrameType | None) -> None:
    _heard.append(number)
    if signal.getsignal(signal.SIGALRM) is _hear:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    raise KeyboardInterrupt


def heed_swallowed() -> None:
    """Raises KeyboardInterrupt again where an import has taken the first one for a module that it can do without."""
    if _heard:
        raise KeyboardInterrupt


def user_error_in(text: str) -> str | None:
    """The message of the UserError a runner wrapped in its own exception, or None.

    Runners hand an exception on as text: a worker's traceback, to which Beam may append the step's name.
    """
    found = re.findall(r"^(?:\S*\.)?UserError: (.*)$", text, flags=re.MULTILINE)
    if not found:
        return None
    message: str = re.sub(r" \[while running '.*$", "", found[-1])
    return message.strip()
