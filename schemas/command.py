"""How every command speaks: its flags, one line for an error, its exit status, its tables; and which there are.

`hwdb COMMAND …`, `python -m pipeline COMMAND …` and `python -m pipeline.COMMAND …` are the same function.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from schemas.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_DIFFERENT = EXIT_RUN_LOST = 1
"""A difference or a finding; or a run that was lost on its way, neither the input nor the flags to blame."""
EXIT_USER_ERROR = UserError.exit_status
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

COMMANDS = {
    "convert": ("pipeline.convert", "GNT archives in, TFRecord shards and a Parquet manifest out"),
    "verify": ("pipeline.verify", "is a data set what its conversion wrote, down to the last byte?"),
    "inspect": ("pipeline.inspect", "a data set in figures, pictures, SQL, and a report to hand on"),
    "sample": ("pipeline.sample", "draws synthetic handwriting as GNT archives, to try everything with"),
    "train": ("model.train", "shards in, a recogniser out"),
    "evaluate": ("model.evaluate", "how well a run reads a split, by character and by writer"),
    "predict": ("model.predict", "what character a picture shows, or each record of a .gnt"),
    "draw": ("model.draw", "a page to draw a character in, read as you write"),
    "export": ("model.export", "a run's model as a SavedModel, ONNX or LiteRT file"),
    "benchmark": ("model.benchmark", "how fast this machine trains, stage by stage"),
    "report": ("model.report", "report.html of a run"),
}
"""Command -> (the module that has its `main`, what it does)."""
_WIDTH_WITHOUT_TERMINAL = 160  # characters; a log has no edge at 80


def main(argv: Sequence[str] | None = None, package: str = "") -> int:
    """The command `hwdb`, or `python -m PACKAGE`: runs the command that is named first, or lists them all."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {name: entry for name, entry in COMMANDS.items() if entry[0].startswith(package)}
    prog = f"python -m {package}" if package else "hwdb"
    if arguments and arguments[0] in commands:
        module = import_module(commands[arguments[0]][0])
        status: int = module.main(arguments[1:])
        return status
    lines = [f"usage: {prog} COMMAND …; COMMAND --help lists its flags", ""]
    lines += [f"  {name:<10} {meaning}" for name, (_, meaning) in commands.items()]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("\n".join(lines))
        return 0
    print(
        f"{prog}: expected one of {', '.join(commands)}, found {arguments[0]!r}; {prog} --help says more",
        file=sys.stderr,
    )
    return EXIT_USER_ERROR


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def __init__(self, command: str, description: str, **options: str) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
            **options,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists every flag")


def run_command(command: str, body: Callable[[], int], *, resumes: str = "") -> int:
    """What `body` returns; or, after one line, 2 for what the user can mend and 130 for Ctrl-C.

    `resumes` ends the line of an interrupted command.
    """
    try:
        return body()
    except UserError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"{command}: interrupted{resumes}", file=sys.stderr)
        return EXIT_INTERRUPTED


def at_least(least: int, flag: str, value: int) -> int:
    """`value`. Raises UserError where it is less than `least`."""
    if value < least:
        raise UserError(f"{flag} {value}: expected {least} or more")
    return value


def make_console() -> Console:
    """Plain text where the output isn't a terminal."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False, no_color=True)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> None:
    """A title and a table whose first `left` columns are text and whose others are figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print()
    if title:
        console.print(title, style="bold")
    console.print(table)
