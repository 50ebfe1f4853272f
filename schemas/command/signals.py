"""Ctrl-C, SIGTERM and SIGHUP end a command in an orderly way: one line, a status of its own, nothing half-written."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

EXIT_BY_SIGNAL = 128
"""What shells add to the number of the signal that ended a process."""
_ONCE = (signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 5.0
_heard: list[int] = []
"""The signals that `heeding_signals` has been told to end by."""


class Ended(KeyboardInterrupt):
    """By a signal; what was noted on the interruption that it caused stands in the line."""

    def __init__(self, number: int, interruption: BaseException) -> None:
        word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        super().__init__("; ".join([word, *getattr(interruption, "__notes__", ())]))
        self.exit_status = EXIT_BY_SIGNAL + number


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; whichever came first is raised as Ended.

    Only where nobody else has something to say about them: who started the process, or the program it is called in.
    What a signal broke on its way out is no error, and one that was swallowed, as by a library that can do without what
    it imports, or by compiled code that calls Python, is heard again every few seconds.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGINT, *_ONCE, signal.SIGALRM)):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _hear)
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not _heard:
            raise
        # Of one that left exec("…"), as while a dataclass is made, CPython remembers that it did, though it was caught,
        # and ends the process by SIGINT in place of its status; the next exec forgets it.
        exec("")
        raise Ended(_heard[0], error) from None
    finally:
        if before:
            if signal.SIGALRM in before:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            _heard.clear()


def heed_swallowed() -> None:
    """Raises KeyboardInterrupt again where an import has taken the first one for a module that it can do without."""
    if _heard:
        raise KeyboardInterrupt


def _hear(number: int, _frame: FrameType | None) -> None:
    again = bool(_heard)
    _heard.append(number)
    if signal.getsignal(signal.SIGALRM) is _hear:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    # Somebody is impatient, or this is only the reminder: what is on its way out cleans up.
    if again and (number in _ONCE or (number == signal.SIGALRM and _is_leaving())):
        return
    raise KeyboardInterrupt


def _is_leaving() -> bool:
    """Whether what a signal raised is on its way out: then nobody has swallowed it."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
