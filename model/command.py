"""What every command of this package does alike: flags, errors in one line, tables."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from model.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, TrainError
from schemas.classes import ClassListError
from schemas.dataset import DatasetError

_WIDTH_WITHOUT_TERMINAL = 160  # characters; a log has no edge at 80


class Parser(argparse.ArgumentParser):
    """One line and exit status 2 for a misspelt flag."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"python -m {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; --help lists every option\n")


def exit_status(command: str, body: Callable[[], int]) -> int:
    """What `body` returns, or 2 after one line about what the user can mend."""
    try:
        return body()
    except (TrainError, DatasetError, ClassListError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def make_console() -> Console:
    """Plain text where the output isn't a terminal."""
    console = Console(soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, no_color=True)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> None:
    """A title and a table whose first `left` columns are text and whose others are figures."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print()
    if title:
        console.print(title, style="bold")
    console.print(table)


def at_least(least: int, flag: str, value: int) -> int:
    if value < least:
        raise TrainError(f"{flag} {value}: expected {least} or more")
    return value


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place, file or folder, when the block ends without an error.

    What the operating system says becomes one line.
    """
    temporary = path.with_name(f"{path.stem}.tmp-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise TrainError(
            f"{path}: can't be written: {error.strerror or error}; name another --output, or make room"
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink()
