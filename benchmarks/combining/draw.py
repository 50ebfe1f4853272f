"""Draws a combination: a command, its flags from its own parser, its environment, its inputs and its output.

The same seed draws the same, as long as the commands have the same flags.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

from combining import pools

KINDS = {
    "convert": 46,
    "verify": 13,
    "inspect": 9,
    "inspect --sql": 6,
    "inspect --html": 3,
    "inspect show": 4,
    "inspect diff": 4,
    "sample": 7,
    "a command that isn't": 1,
    "predict": 2,
    "train": 2,
    "evaluate": 1,
    "export": 1,
    "draw": 0.5,
    "report": 0.5,
    "benchmark": 0.5,
}
"""Kind -> its share. TensorFlow takes seconds to start."""
MODEL = ("predict", "train", "evaluate", "export", "draw", "report", "benchmark")

Word = str | bytes


@dataclass
class Trial:
    """One combination; paths are relative to the box unless they are absolute."""

    seed: int
    kind: str
    arguments: Sequence[Word]
    environment: dict[str, str | None] = field(default_factory=dict)
    folder: str = "."
    """Where it is started; it may be gone by then."""
    is_absolute: bool = False
    """Whether paths are handed over with the box in front."""
    stdout: str = "read"
    """read, closed, full, head (a reader that ends after a line), gone, terminal"""
    stderr: str = "read"
    stdin: str = "null"
    """null, closed, silent"""
    signals: Sequence[tuple[float, signal.Signals, bool]] = ()
    """(seconds from the start, the signal, whether the whole group gets it)"""
    umask: int = 0o022
    limits: dict[str, int] = field(default_factory=dict)
    """RLIMIT_… -> most"""
    spoilt: Sequence[str] = ()
    """Folders of which there is a damaged copy."""

    @property
    def command(self) -> str:
        return self.kind.split()[0]


def draw(seed: int) -> Trial:
    rng = random.Random(seed)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    arguments = _command(rng, kind, is_calm=rng.random() < 0.4)
    text = " ".join(map(os.fsdecode, arguments))
    spoilt = [name for name in ("sets/raw", "runs/run") if f"{name}-spoilt" in text]
    trial = Trial(seed, kind, arguments, spoilt=spoilt + ["in/mutated"] * ("in/mutated" in text))
    for chance in (0.5, 0.2):
        trial.environment |= rng.choice(pools.ENVIRONMENTS) if rng.random() < chance else {}
    trial.folder = rng.choices((".", "out/odd [dir]", "gone"), (90, 8, 2))[0]
    trial.is_absolute = trial.folder != "." or rng.random() < 0.3
    trial.stdout = rng.choices(("read", "closed", "full", "head", "gone", "terminal"), (75, 5, 5, 5, 5, 5))[0]
    trial.stderr = rng.choices(("read", "closed", "full", "gone", "terminal"), (92, 2, 2, 2, 2))[0]
    trial.stdin = rng.choices(("null", "closed", "silent"), (90, 5, 5))[0]
    trial.umask = rng.choices((0o022, 0o077, 0o027, 0), (85, 7, 3, 5))[0]
    if rng.random() < 0.05:
        trial.limits["RLIMIT_NOFILE"] = rng.choice((24, 40, 64, 128, 256))
    if rng.random() < 0.05:
        trial.limits["RLIMIT_FSIZE"] = rng.choice((0, 1, 1000, 20_000, 200_000))
    if rng.random() < 0.12 or pools.ENDLESS in arguments or kind == "draw":  # which serves until it is interrupted
        moment = rng.uniform(0.3, 12 if kind in MODEL else 3)
        number, to_group = rng.choice((signal.SIGINT, signal.SIGTERM)), rng.random() < 0.5
        trial.signals = [(moment + later, number, to_group) for later in rng.choice(([0], [0], [0], [0, 0.2]))]
    return trial


def placed(word: Word, box: str) -> bytes:
    """A word in which what lies in the box is named from the root on."""
    root = os.fsencode(box) + b"/"
    return re.sub(rb"(^|=)(?=(in|out|sets|runs|documents|tmp)(/|$))", lambda found: found[1] + root, os.fsencode(word))


def _command(rng: random.Random, kind: str, *, is_calm: bool) -> list[Word]:
    """Where it is calm, what is drawn makes sense: then the rest of the combination decides."""
    name, _, form = kind.partition(" ")
    if name == "a":
        words = ("", "nonsense", "--help", "convert ", "-h")
        return ["-m", rng.choice(("pipeline", "model")), rng.choice(words)]
    package = "model" if name in MODEL else "pipeline"
    start: list[Word] = ["-m", f"{package}.{name}"] if rng.random() < 0.85 else ["-m", package, name]
    first = _positional(rng, name, form, is_calm=is_calm)
    flags: list[Word] = list(pools.SMALL.get(name, "").split())
    if form == "--sql":
        flags += ["--sql", rng.choice((*pools.QUERIES, *pools.QUERIES, pools.ENDLESS))]
    elif form == "--html":
        flags += ["--html", "out/new.html" if is_calm else _file(rng, ".html")]
    actions = [action for action in actions_of(name, form) if action.option_strings]
    weights = [0.15 if "--s3" in action.option_strings[0] else 1 for action in actions]
    for action in actions:
        if action.required and (is_calm or rng.random() < 0.98):
            flags += _flag(rng, name, action, is_calm=is_calm)
    for action in rng.choices(actions, weights, k=rng.choice((0, 0, 0, 1, 1, 2, 4))):
        if not is_calm or action.choices or (action.nargs == 0 and action.dest != "help"):
            flags += _flag(rng, name, action, is_calm=is_calm)
    if name == "convert" and rng.random() < 0.5:
        flags += ["--classes", pools.LIST]
    if name == "convert" and rng.random() < 0.25 and not is_calm:
        flags += [rng.choice(pools.BEAM)]
    if form == "show" and rng.random() < 0.5:
        flags += ["--char", rng.choice(pools.NAMED["char"])]
    is_usual = form in ("show", "diff") or rng.random() < 0.7
    return [*start, *(first + flags if is_usual else flags + first)]


def _positional(rng: random.Random, name: str, form: str, *, is_calm: bool) -> list[Word]:
    if name in ("verify", "inspect"):
        folders: list[Word] = [rng.choice(pools.CALM["data"] if is_calm else pools.SETS) for _ in range(2)]
        if form == "diff":
            return ["diff", *folders]
        ids = [rng.choice(pools.SAMPLE_IDS)] * (rng.random() < 0.5)
        return [folders[0], "show", *ids] if form == "show" else [folders[0]]
    if name == "predict":
        return [rng.choice(rng.choice((pools.PICTURES, pools.INPUTS))) for _ in range(rng.choice((1, 1, 2)))]
    return []


def _flag(rng: random.Random, name: str, action: argparse.Action, *, is_calm: bool) -> list[Word]:
    flag = rng.choice(action.option_strings)
    if action.nargs == 0:
        return [flag]
    count = rng.choice((1, 1, 1, 2, 3)) if action.nargs in ("+", "*") else 1
    values = [_calm(rng, name, action) if is_calm else _value(rng, name, action) for _ in range(count)]
    if len(values) == 1 and rng.random() < 0.5:
        return [os.fsencode(flag) + b"=" + os.fsencode(values[0])]
    return [flag, *values]


def _calm(rng: random.Random, name: str, action: argparse.Action) -> Word:
    if action.dest == "output" and name in ("inspect", "evaluate", "export"):
        return "out/new" + {"inspect": ".png", "evaluate": ".parquet"}.get(name, "")
    if action.dest == "inputs":
        return rng.choice((b"", b"train=")) + os.fsencode(rng.choice(pools.GOOD_INPUTS))
    words = [str(choice) for choice in action.choices or ()]
    return rng.choice(words or pools.CALM.get(action.dest) or ("1",))


def _value(rng: random.Random, name: str, action: argparse.Action) -> Word:
    if action.dest == "output":
        return _output(rng, name)
    if action.dest in ("html", "json"):
        return _file(rng, f".{action.dest}")
    if action.dest in pools.BOUNDED and rng.random() < 0.95:
        return rng.choice(pools.BOUNDED[action.dest])
    if rng.random() < 0.05:
        return rng.choice(pools.ABSURD)
    if action.choices:
        return rng.choice([str(choice) for choice in action.choices])
    if action.dest in pools.NAMED:
        value = rng.choice(pools.NAMED[action.dest])
        is_input = action.dest == "inputs" or (action.dest, name) == ("against", "verify")
        return _split(rng) + os.fsencode(value) if is_input else value
    return rng.choice(pools.INTEGERS if action.type is int else pools.FLOATS if action.type is float else pools.ABSURD)


def _output(rng: random.Random, name: str) -> Word:
    suffix = {"inspect": ".png", "evaluate": ".parquet", "export": rng.choice(("", ".onnx", ".tflite"))}.get(name)
    if suffix is None or (not suffix and rng.random() < 0.5):
        return rng.choice(pools.OUTPUTS)
    return _file(rng, suffix)


def _file(rng: random.Random, suffix: str) -> Word:
    name = rng.choice(pools.FILES)
    return name.replace(b"{}", suffix.encode()) if isinstance(name, bytes) else name.replace("{}", suffix)


def _split(rng: random.Random) -> bytes:
    return rng.choices((b"", b"train=", b"test=", b"validation=", b"x=", b"="), (35, 40, 15, 10, 2, 1))[0]


class _Seen(BaseException):
    """Ends a command where it would parse its flags."""


@cache
def actions_of(name: str, form: str = "") -> list[argparse.Action]:
    """Every flag of a command, asked of the parsers that it makes."""
    seen: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_known_args

    def note(self: argparse.ArgumentParser, *arguments: Any) -> Any:
        seen.append(self)
        if not self.add_help:  # the stores' flags are taken out first
            return parse(self, *arguments)
        raise _Seen

    module = import_module(f"{'model' if name in MODEL else 'pipeline'}.{name}")
    patched = mock.patch.multiple(argparse.ArgumentParser, parse_known_args=note, parse_args=note)
    with patched, suppress(_Seen):
        module.main({"show": ["DIR", "show"], "diff": ["diff"]}.get(form, []))
    actions = [action for parser in seen for action in parser._actions]
    if name == "convert":  # it hands the stores' flags on to Beam
        actions += [action for action in actions_of("verify") if "--s3" in "".join(action.option_strings)]
    return actions
