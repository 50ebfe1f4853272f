"""The flags of every command: paths with a ~ in them, and one line for what can't be understood."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from schemas.command.streams import prints_its_product
from schemas.errors import UserError

_CLOSE = 0.8  # of difflib's ratio: a slip, not another word


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
        self.given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = list(sys.argv[1:] if args is None else args)
        for word in args:
            if word.startswith("-") and word.endswith("=--"):  # argparse would hand on an empty list
                raise UserError(f"{word}: expected a value, found --")
        self.given = self._flags_in(args)
        for flag in self.given:
            meant = self._spelt.get(_plain(flag))
            if meant is not None:
                raise UserError(f"{flag}: there is no such flag; did you mean {meant}?")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        for flag in self.given:  # a flag that is missing may be there, misspelt
            close = difflib.get_close_matches(flag, self._option_string_actions, 1, cutoff=_CLOSE)
            if close:
                raise UserError(f"{flag}: there is no such flag; did you mean {close[0]}?")
        raise UserError(f"{message}; {self.prog} --help lists every flag")

    def print_help(self, file: Any = None) -> None:
        prints_its_product()
        super().print_help(file)

    @property
    def _spelt(self) -> dict[str, str]:
        """Flag without its dashes -> the flag, of every flag there is."""
        return {_plain(flag): flag for flag in self._option_string_actions if flag.startswith("--")}

    def _flags_in(self, arguments: Sequence[str]) -> list[str]:
        """The names given as flags that are none of this parser's."""
        names = []
        for argument in arguments:
            if argument == "--":
                break
            name = argument.partition("=")[0]
            if re.fullmatch(r"--?[A-Za-z][\w-]+", name) and name not in self._option_string_actions:
                names.append(name)
        return names


def path_or_url(text: str) -> str:
    """The type of a flag that is a path or a URL: ~ is expanded, in `SPLIT=~/x` too."""
    try:
        if not text:
            raise UserError("expected a path, found an empty text")
        return expanded(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_path(text: str) -> Path:
    """The type of a flag that is a path on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text}: expected a local path, found a URL; copy it here first")
    return Path(path_or_url(text))


def expanded(text: str) -> str:
    """A path, or `SPLIT=PATH`, with the home folder for ~; a URL as it is. Raises UserError for what leads nowhere."""
    if "\0" in text:
        raise UserError(f"{text}: expected a path, found one with a NUL byte in it")
    split, own = _WITH_SPLIT.fullmatch(text).groups(default="")  # type: ignore[union-attr]
    if re.match(r"(?!file)\w+://(/|$)", own):  # some stores' clients would wait for a bucket of no name
        raise UserError(f"{own}: expected a bucket's name after ://, found none")
    if not own.startswith("~") or "://" in own:
        return text
    found = os.path.expanduser(own)
    if found != own and os.path.isabs(found) and _home_is_known(own):
        return split + found
    if os.path.lexists(own):
        return text
    raise UserError(f"{own}: expected ~ to be a home folder, found none; write the folder out, or ./~… for that name")


def expanded_flag(text: str) -> str:
    """The same for a word of another program's flags, where a path stands after its flag's `=`, or alone."""
    flag, own = re.fullmatch(r"(--\w+=)?(.*)", text, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    return flag + expanded(own) if own == "~" or own.startswith("~/") else text


_WITH_SPLIT = re.compile(r"(\w+=)?(.*)", re.DOTALL)


def _home_is_known(text: str) -> bool:
    """With HOME set to nothing ~/x would be /x."""
    return bool(os.environ.get("HOME", "unset")) or text.partition("/")[0] != "~"


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_").lower()
