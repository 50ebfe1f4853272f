"""How the commands that ask a run, or time one, end when they are told to: one line, and nothing half-written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from schemas import command as schemas_command
from schemas.command import EXIT_TERMINATED


class _Terminated(KeyboardInterrupt):
    pass


def run_command(command: str, body: Callable[[], int]) -> int:
    """As schemas.command.run_command; SIGTERM ends the body as Ctrl-C does, with status 143.

    Only where nobody else has something to say about it: who started the process, or the program it is called in.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return schemas_command.run_command(command, body)

    def terminable() -> int:
        try:
            signal.signal(signal.SIGTERM, _terminate)
            return body()
        except _Terminated:
            print(f"{command}: ended by SIGTERM", file=sys.stderr)
            return EXIT_TERMINATED
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    return schemas_command.run_command(command, terminable)


def _terminate(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what is on its way out cleans up
    raise _Terminated
