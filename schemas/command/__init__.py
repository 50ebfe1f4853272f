"""How every command speaks: its flags, one line for an error, its exit status, its tables; and which there are.

`hwdb COMMAND …`, `python -m pipeline COMMAND …` and `python -m pipeline.COMMAND …` are the same program.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from runpy import run_module

from schemas.command.parser import Parser as Parser
from schemas.command.parser import expanded as expanded
from schemas.command.parser import expanded_flag as expanded_flag
from schemas.command.parser import local_path as local_path
from schemas.command.parser import path_or_url as path_or_url
from schemas.command.signals import Ended, heeding_signals
from schemas.command.streams import EXIT_READER_GONE as EXIT_READER_GONE
from schemas.command.streams import Unwritable, speaking
from schemas.command.streams import can_hold_any_text as can_hold_any_text
from schemas.command.streams import prints_its_product as prints_its_product
from schemas.command.tables import make_console as make_console
from schemas.command.tables import print_table as print_table
from schemas.command.tables import print_whole as print_whole
from schemas.errors import ADVICE, UserError, in_words

EXIT_DIFFERENT = EXIT_RUN_LOST = 1
"""A difference or a finding; or a run that was lost on its way, neither the input nor the flags to blame."""
EXIT_USER_ERROR = UserError.exit_status
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

COMMANDS = {
    "convert": ("pipeline.convert", "GNT archives in, TFRecord shards and a Parquet manifest out"),
    "workers": ("pipeline.convert.workers", "a pool of this machine's worker processes, for a conversion on a cluster"),
    "verify": ("pipeline.verify", "is a data set what its conversion wrote, down to the last byte?"),
    "inspect": ("pipeline.inspect", "a data set in figures, pictures, SQL, and a report to hand on"),
    "parquet": (
        "pipeline.parquet",
        "a data set's images as Parquet files with a card, as the Hugging Face Hub shows them",
    ),
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


def main(argv: Sequence[str] | None = None, package: str = "") -> int:
    """The command `hwdb`, or `python -m PACKAGE`: runs the command that is named first, or lists them all."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {name: entry for name, entry in COMMANDS.items() if entry[0].startswith(package)}
    prog = f"python -m {package}" if package else "hwdb"
    if arguments and arguments[0] in commands:
        module = commands[arguments[0]][0]
        if argv is None:  # it has the process to itself, as by `python -m`
            sys.argv[1:] = arguments[1:]
            run_module(module, run_name="__main__", alter_sys=True)
        status: int = import_module(module).main(arguments[1:])
        return status
    return run_command(prog, lambda: _list(commands, prog, arguments))


def _list(commands: Mapping[str, tuple[str, str]], prog: str, arguments: Sequence[str]) -> int:
    if arguments and arguments[0] not in ("-h", "--help"):
        raise UserError(f"expected one of {', '.join(commands)}, found {arguments[0]!r}; {prog} --help says more")
    prints_its_product()
    print(f"usage: {prog} COMMAND …; COMMAND --help lists its flags\n")
    for name, (_, meaning) in commands.items():
        print(f"  {name:<10} {meaning}")
    return 0


def run_command(command: str, body: Callable[[], int], *, resumes: str = "") -> int:
    """What `body` returns; or, after one line, 2 for what the user can mend, and 128 + n where signal n ended it.

    `resumes` ends the line of an interrupted command. Where stdout can't be written, a command whose product is a file
    says so once and goes on to its own status; one that `prints_its_product` ends, with EXIT_READER_GONE and no word
    where its reader has seen enough, with a line and 2 where the disk is full or stdout is closed.
    """
    with speaking(command) as words:
        try:
            return words.ended(_status_of(command, body, resumes))
        except Unwritable:
            return words.ended(EXIT_USER_ERROR)
        except SystemExit:  # argparse has printed --help
            status = words.ended(0)
            if status:
                return status
            raise


def _status_of(command: str, body: Callable[[], int], resumes: str) -> int:
    try:
        with heeding_signals():
            return body()
    except UserError as error:
        status, line = error.exit_status, str(error)
    except Ended as error:
        status, line = error.exit_status, f"{error}{resumes}"
    except KeyboardInterrupt as error:  # the program that this is called in hears signals by itself
        status, line = EXIT_INTERRUPTED, f"{Ended(signal.SIGINT, error)}{resumes}"
    except MemoryError:
        status, line = EXIT_USER_ERROR, "this machine's memory ran out; ask for less at once, or end other programs"
    except OSError as error:
        if error.filename is None and error.errno not in ADVICE:
            raise
        status, line = EXIT_USER_ERROR, in_words(error)
    with contextlib.suppress(Unwritable):
        sys.stdout.flush()
    print(f"{command}: {line}", file=sys.stderr)
    return status


def at_least(least: int, flag: str, value: int) -> int:
    """`value`. Raises UserError where it is less than `least`."""
    if value < least:
        raise UserError(f"{flag} {value}: expected {least} or more")
    return value
