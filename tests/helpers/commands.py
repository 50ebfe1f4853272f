"""Commands called in the tests' own process, conversions first of all, and what they leave behind."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.convert import main as convert_main
from schemas.dataset import LOCK, STAGING_FOLDER

Run = Callable[..., tuple[int, str, str]]
"""Calls a command; returns its exit status, stdout and stderr."""


def called(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """A command to call with flags, `first` always the first of them."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*first, *map(os.fspath, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def assert_refused(outcome: tuple[int, str, str], message: str) -> None:
    """One line says why, and the status is that of a user's mistake; `message` is what it says, or a pattern."""
    status, _, err = outcome
    assert status == 2, err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert re.search(message, err) or message in err, err


def inputs(archives: Path) -> tuple[str, str]:
    """The flags for a folder with train/ and test/."""
    return f"--input=train={archives}/train", f"--input=test={archives}/test"


def converted(output: Path, *arguments: str | Path) -> Path:
    """A conversion that must end well; returns its folder."""
    assert convert_main(["--runner=DirectRunner", *map(str, arguments), f"--output={output}"]) == 0
    return output


def rows_of(folder: Path, split: str = "") -> list[dict[str, Any]]:
    """The manifest's rows, part by part, read without the code under test."""
    parts = sorted((folder / "manifest").glob(f"{split}*.parquet"))
    return [row for part in parts for row in pq.ParquetFile(part).read().to_pylist()]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every file of a data set, the card among them."""
    files = [path for path in folder.rglob("*") if path.is_file() and STAGING_FOLDER not in path.parts]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != LOCK
    }
