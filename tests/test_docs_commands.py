"""Every command line in README.md, CONTRIBUTING.md and docs/ is one that its program understands."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pages import GUIDES
from places import ROOT

from schemas.command import COMMANDS
from schemas.command import main as hwdb

OURS = re.compile(r"(pipeline|model)(\.\w+)?")
VARIANTS = {"inspect": ([], ["DIR", "show"], ["diff"])}
"""Commands with more than one parser, and what leads to each."""


class Parsed(BaseException):
    """Ends a program once its flags are parsed; whoever handles errors lets it through."""

    def __init__(self, parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
        self.parser, self.rest = parser, list(rest)


def shown(page: Path) -> Iterator[str]:
    """The commands in a page's console blocks, a line each."""
    for indent, block in re.findall(r"^( *)```console\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
        lines = iter([line.removeprefix(indent) for line in block.splitlines()])
        for line in lines:
            command = line.removeprefix("$ ")
            if command != line:
                while command.endswith("\\") or not is_whole(command):
                    command = command.removesuffix("\\") + " " + next(lines).strip()
                yield command


def is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return True


COMMAND_LINES = [pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in GUIDES for line in shown(page)]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_shown_command_is_understood(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"\w+=.*", words[0]):  # NAME=VALUE before a command
        del words[0]
    program, *arguments = words
    if program == "hwdb":
        rest = parse(hwdb, arguments, capsys)
    elif re.match(r"python", Path(program).name) and arguments[0] == "-m" and OURS.fullmatch(arguments[1]):
        rest = parse(import_module(arguments[1]).main, arguments[2:], capsys)
    elif program == "python" and arguments[0] == "scripts/cluster.py":
        rest = parse(import_module("scripts.cluster").main, arguments[1:], capsys)
    else:
        paths = [word for word in words if re.match(r"(\./|scripts/|tests/)", word)]
        assert paths or program in ("source", "export", "python", "python3", ".venv/bin/pip"), f"what is {program}?"
        assert all((ROOT / path).exists() for path in paths), line
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(rest)
    unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    assert not unknown, f"neither ours nor Beam's: {sorted(unknown)}"


def parse(main: Any, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The flags that are left for Beam."""
    parse = argparse.ArgumentParser.parse_known_args

    def some(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        if not self.add_help:  # the flags of stores, and DirectRunner's own, are looked for before or after
            return parse(self, args, namespace)
        raise Parsed(self, parse(self, args, namespace)[1])

    def every(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        rest = parse(self, args, namespace)[1]
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed(self, [])

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(argparse.ArgumentParser, "parse_known_args", some)
        patches.setattr(argparse.ArgumentParser, "parse_args", every)
        try:
            status = main(list(arguments))
        except Parsed as parsed:
            return parsed.rest
    assert (status, list(arguments)) == (0, ["--help"]), capsys.readouterr().err
    return []


def test_every_command_is_shown() -> None:
    lines = [line for page in GUIDES for line in shown(page)]
    missing = {name for name in COMMANDS if not any(f"{line} ".startswith(f"hwdb {name} ") for line in lines)}
    assert not missing


def test_every_flag_that_is_named_exists() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions

    known = {f"--{name}" for name in PipelineOptions([]).get_all_options()}
    for name, (module, _) in COMMANDS.items():
        for variant in VARIANTS.get(name, ([],)):
            known |= options_of(import_module(module).main, variant)
    known |= {option.replace("--no-", "--") for option in known}
    for page in GUIDES:
        for flag in re.findall(r"`(--[a-z]\w*)", page.read_text()):
            assert flag in known, f"{page.name}: {flag}"


def options_of(main: Any, arguments: list[str]) -> set[str]:
    seen: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_known_args

    def required(self: argparse.ArgumentParser, *arguments: Any) -> Any:
        if not self.add_help:
            return parse(self, *arguments)
        seen.append(self)
        raise Parsed(self, [])

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(argparse.ArgumentParser, "parse_known_args", required)
        patches.setattr(argparse.ArgumentParser, "parse_args", required)
        with pytest.raises(Parsed):
            main(arguments)
    return {option for action in seen[0]._actions for option in action.option_strings}
