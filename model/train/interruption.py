"""SIGTERM, SIGHUP and Ctrl-C: answered at once where nothing can be lost, between two batches where something can."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from schemas.command.signals import EXIT_BY_SIGNAL

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(name_of(number))
        self.number = number
        self.exit_status = exit_status_of(number)


class Interruption:
    """Answers the signals while its block runs: raises Interrupted, or, inside `held`, only remembers."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal that came."""
        self.advice = "nothing was begun; the same command starts it"
        """What the line of a process that ends says after the signal's name."""
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def renew(self) -> None:
        """Takes the signals again: TensorFlow installs a handler of its own for SIGTERM when it joins workers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = self._before.setdefault(number, signal.getsignal(number) or signal.SIG_DFL)
                if before is not signal.SIG_IGN:  # as nohup has it
                    signal.signal(number, self._handle)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A block that looks at `number` by itself, or calls `check`; a second Ctrl-C ends it all the same."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def check(self) -> None:
        """Raises Interrupted if a signal came. A library may have swallowed what the handler raised."""
        if self.number is not None:
            raise Interrupted(self.number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.number = self.number is not None, self.number or number
        if not self._held or (again and number == signal.SIGINT):
            raise Interrupted(self.number)


def name_of(number: int) -> str:
    return signal.Signals(number).name


def exit_status_of(number: int) -> int:
    return EXIT_BY_SIGNAL + number
