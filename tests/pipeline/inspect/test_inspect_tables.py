"""Tables are whole: in a pipe, whatever COLUMNS says, and on a terminal narrower than they are."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run, assert_refused
from rich.console import Console

from schemas.command import make_console, print_table
from schemas.manifest import MANIFEST_SCHEMA

EVERYTHING = ("--sql", "SELECT *, repeat('x', 300) AS wide FROM manifest WHERE status = 'kept' LIMIT 2")


def assert_whole(out: str) -> None:
    header, *rows = out.splitlines()
    assert header.split() == [*MANIFEST_SCHEMA.names, "wide"]
    assert len(rows) == 2
    assert all(row.split()[-1] == "x" * 300 for row in rows)
    assert "…" not in out


@pytest.mark.parametrize("columns", ["20", "80", "100000"])
def test_piped(dataset: Path, columns: str) -> None:
    command = [sys.executable, "-m", "pipeline.inspect", str(dataset), *EVERYTHING]
    done = subprocess.run(command, env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True, check=True)
    assert_whole(done.stdout)


def on_a_terminal(arguments: list[str], columns: int) -> str:
    """What a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}
    program = subprocess.Popen([sys.executable, "-m", *arguments], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    out = b""
    try:
        while block := os.read(ours, 1 << 16):
            out += block
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert program.wait() == 0
    return out.decode().replace("\r\n", "\n")


def test_on_a_narrow_terminal(dataset: Path) -> None:
    assert_whole(on_a_terminal(["pipeline.inspect", str(dataset), *EVERYTHING], 40))
    summary = on_a_terminal(["pipeline.inspect", str(dataset)], 25)
    assert any(line.split()[0] == "kept" and len(line.split()) == 3 for line in summary.splitlines() if line.strip())
    assert "…\n" not in summary


@pytest.mark.parametrize("width", [10, 80, None])
def test_a_table_of_figures(width: int | None) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width) if width else make_console(out)
    print_table(console, "", ["name", "n" * 30], [["/data/[old]/[/x] :+1:", "1" * 30], ["b" * 90, "2"]])
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines if line] == [
        ["name", "n" * 30],
        ["/data/[old]/[/x]", ":+1:", "1" * 30],
        ["b" * 90, "2"],
    ]


def test_a_line_is_printed_as_it_is() -> None:
    out = io.StringIO()
    line = "a row for each sample: " + "/data/[old]/:+1:/[/bold]" * 20
    make_console(out).print(line)
    assert out.getvalue() == line + "\n"


@pytest.mark.parametrize("sql", ["", ";", "-- a comment", "\udcff"])
def test_a_question_that_is_none(dataset: Path, inspect: Run, sql: str) -> None:
    assert_refused(inspect(dataset, "--sql", sql), "--sql: expected ")
