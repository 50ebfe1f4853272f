"""Draws a combination: a command, its flags from its own parser, its environment, its inputs and its output.

The same seed draws the same, as long as the commands have the same flags.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

from combinations_box import CHARACTERS, LIST, ROOT

OWN = {
    "convert": r"sets/unfinished/", "train": r"runs/", "evaluate": r"runs/[^/]+/(evaluation.parquet|calibration.json)",
    "report": r"runs/[^/]+/report.html", "export": r"runs/[^/]+/saved_model/", "inspect": r"out/report.html",
}  # fmt: skip
"""Command -> what it may change of what was there before: what it made itself at an earlier time."""
KINDS = {
    "convert": 46, "verify": 13, "inspect": 9, "inspect --sql": 6, "inspect --html": 3, "inspect show": 4,
    "inspect diff": 4, "sample": 7, "a command that isn't": 1, "predict": 2, "train": 2, "evaluate": 1, "export": 1,
    "report": 0.5, "benchmark": 0.5,
}  # fmt: skip
"""Kind -> its share. TensorFlow takes seconds to start."""
MODEL = ("predict", "train", "evaluate", "export", "report", "benchmark")
HTTP, NOWHERE = "http://127.0.0.1:9", "127.0.0.1:9"

_ABSURD = ("", " ", "nonsense", "-1", "0", "1e400", "nan", "-inf", "99999999999999999999999", "½", "٣", "--", "None", "a=b",
           "\N{PILE OF POO}", "x" * 5000, b"\xff\xfe", "a\nb", "%s%n{0}", "~", "*", "[red]x[/red]")  # fmt: skip
_INTEGERS = ("0", "1", "2", "3", "7", "16", "64", " 5 ", "1_0", "+2", "0x10", "1.0")
_FLOATS = ("0", "1", "0.5", "0.01", "0.999", "1e-300", "-0.0", "1e-9", "inf", "nan", ".5", "1e3")
_INPUTS = (
    *("in/good", "in/good2", "in/test", "in/good.zip") * 6, "in/good/1001-c.gnt", "in/good/*.gnt", "in/HWDB [2020]/*.gnt",
    "in/HWDB [2020]", "in/mixed", "in/both", "in/loops", "in/**", "in", "in/empty folder",
    "in/folder.gnt", "in/cut.gnt", "in/random.gnt", "in/rar.gnt", "in/zip.gnt", "in/empty.gnt", "in/empty.zip",
    "in/none.zip", "in/html.zip", "in/cut.zip", "in/twice.zip", "in/outside.zip", "in/upper.zip", "in/gbk.zip",
    "in/gbk.zip", "in/bomb.zip", "in/tiny.gnt", "in/with space.gnt", "in/new\nline.gnt", "in/-dash.gnt", "in/train=2.gnt",
    f"in/{'long' * 60}.gnt", b"in/\xff\xfe.gnt", "in/fifo.gnt", "in/dangling", "in/characters.txt", "in/absent.gnt",
    "~/good", "sets/raw", "documents", "/dev/null", "/dev/zero", "", "https://host/a.zip", "s3://bucket/a",
    "file:///tmp", "in/good/", "./in/../in/good", "in/mutated", "in/mutated", "in/mutated", "in/good/1001-c.gnt/x",
)  # fmt: skip
_SETS = ("sets/raw",) * 6 + ("sets/png", "sets/png", "sets/old", "sets/other", "sets/unfinished", "sets/raw-spoilt",
    "sets/raw-spoilt", "sets/raw-spoilt", "out/link", "out/loop", "out/empty", "documents", "in/cut.gnt", "absent", "",
    "sets/raw/", "./sets/../sets/raw", "~/good", ".", "/dev/null", "s3://bucket/set", "ftp://host/x", "sets/kept")  # fmt: skip
_RUNS = ("runs/run",) * 6 + ("runs/run-spoilt", "runs/run-spoilt", "runs/unfinished", "sets/raw", "documents", "absent",
    "in/cut.gnt", "~/runs", "", "runs")  # fmt: skip
_OUTPUTS = ("out/new",) * 30 + ("out/empty", "out/empty", "sets/raw", "sets/unfinished", "sets/unfinished", "sets/kept",
    "runs/run", "runs/unfinished", "documents", "documents/letter.txt", "documents/letter.txt/x", "in/good", "in", ".", "..",
    "~/x", "~/documents", "~nobody/x", "out/link", "out/dangling", "out/loop", "out/locked/x", "out/locked", "out/odd [dir]",
    "out/deep/er/still", "out/new/", "out/with space", "out/new\nline", b"out/\xff", f"out/{'long' * 70}",
    "out/" + "/".join(["deep"] * 900), "-", "/dev/null", "/dev/full", "/proc/x", "/", "", "s3://bucket/new", "gs://bucket/new",
    "file:///tmp/x", "https://host/x", "out/训练")  # fmt: skip
_FILES = ("out/new{}",) * 8 + ("out/report.html", "documents/report.html", "documents/sheet.png", "documents/notes.json",
    "documents/letter.txt", "documents", "documents/thesis", "sets/raw/classes.txt", "sets/raw/dataset.json",
    "runs/run/config.json", "out/locked/x{}", "out/link", "out/dangling", "~/x{}", "out/deep/x{}", "/dev/null", "/dev/full",
    "out/new", "out/", "", "s3://bucket/x{}", "out/\N{PILE OF POO}{}", b"out/\xff{}", "runs/run/saved_model")  # fmt: skip
_QUERIES = (
    "SELECT count(*) FROM manifest", "SELECT * FROM manifest", "SELECT * FROM manifest LIMIT 0", "SELEC", "", ";", "--",
    "SELECT 1; SELECT 2", "DROP VIEW manifest", "COPY manifest TO 'documents/letter.txt'", "SELECT '\N{PILE OF POO}\n\t'",
    "COPY (SELECT 1) TO 'sets/raw/classes.txt'", "SELECT * FROM 'documents/letter.txt'", "SELECT 1/0, NULL, [1, 2], {'a': 1}",
    "CREATE TABLE t AS SELECT 1", "ATTACH 'out/new.db'", "EXPORT DATABASE 'documents'", "SET memory_limit='1KB'",
    "SELECT char, writer, count(*) FROM manifest GROUP BY ALL ORDER BY ALL", "SELECT absent FROM manifest",
    "SELECT 1e400::DOUBLE, 'nan'::DOUBLE, now(), uuid(), 'a'::BLOB, INTERVAL 1 DAY", "PRAGMA database_list", "\N{BOM}SELECT 1",
    "SELECT unnest(range(3000))", "INSTALL httpfs", "SELECT repeat('x', 10000)",
)  # fmt: skip
_ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"
_IDS = ("train/1001-c.gnt/0", "train/1001-c.gnt/3", "test/1241-c.gnt/1", "train/1001-c.gnt/999", "nonsense", "a/b/c", "/", "")
_BEAM = ("--direct_num_workers=1", "--direct_num_workers=2", "--direct_num_workers=5", "--direct_num_workers=x",
    "--direct_num_workers=-1", "--direct_num_workers", "--direct_running_mode=in_memory", "--direct_running_mode=bogus",
    "--direct_running_mode=multi_threading", "--streaming", "--temp_location=out/temp", "--save_main_session", "--nonsense",
    "--nonsense=1", "--job_name=ÄÖ", "--experiments=x", "--sdk_worker_parallelism=x", "--setup_file=absent", "-x", "stray",
    "--job_endpoint=127.0.0.1:9", "--type_check_additional=all", "--help", "--environment_type=LOOPBACK")  # fmt: skip
_ENVIRONMENTS: tuple[dict[str, str | None], ...] = (
    {"http_proxy": HTTP}, {"http_proxy": HTTP, "https_proxy": HTTP, "grpc_proxy": HTTP, "all_proxy": HTTP},
    {"HTTP_PROXY": HTTP, "no_proxy": ""}, {"TMPDIR": "tmp/" + "long" * 25}, {"TMPDIR": "absent"}, {"TMPDIR": "out/locked"},
    {"TMPDIR": "documents/letter.txt"}, {"TMPDIR": "out/odd [dir]"}, {"TMPDIR": ""}, {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-16"}, {"LC_ALL": "C", "LANG": "C"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "xx_YY.UTF-8"}, {"HOME": None},
    {"HOME": "/absent"}, {"HOME": ""}, {"HOME": "out/locked"}, {"KERAS_BACKEND": "torch"}, {"KERAS_BACKEND": "nonsense"},
    {"TF_CONFIG": "{'cluster': {}}"}, {"TF_CONFIG": "[]"}, {"TF_CONFIG": "{}"}, {"TF_CONFIG": '{"cluster": 7}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["127.0.0.1:9", "127.0.0.1:10"]}, "task": {"type": "worker", "index": 0}}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["127.0.0.1:34567"]}, "task": {"type": "worker", "index": 5}}'},
    {"TF_CONFIG": '{"cluster": {"worker": ["host:1"]}, "task": {"type": "ps", "index": "x"}}'}, {"PYTHONOPTIMIZE": "2"},
    {"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CACHE_DIR": "out/locked"}, {"OMP_NUM_THREADS": "0"}, {"COLUMNS": "0"},
    {"COLUMNS": "-5"}, {"COLUMNS": "20"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TZ": "Nowhere/Land"},
    {"PYTHONUNBUFFERED": "1"}, {"CUDA_VISIBLE_DEVICES": "7"}, {"AWS_PROFILE": "absent"}, {"MPLBACKEND": "Qt5Agg"},
    {"AWS_ENDPOINT_URL": HTTP, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, {"PATH": ""}, {"USER": ""},
)  # fmt: skip
_SMALL = {
    "sample": ("--writers", "2", "--characters", "3"),
    "train": ("--arch", "vgg11", "--width", "0.0625", "--global_batch", "8", "--steps", "3"),
    "benchmark": ("--stages", "input", "--seconds", "0.05", "--arch", "vgg11", "--width", "0.0625", "--replica_batch", "2"),
}
"""First, so that a trial is short; flags that are drawn come later and prevail."""
_BOUNDED: dict[str, tuple[str | bytes, ...]] = {
    # Work that is done as asked isn't a hang, and others use this machine.
    "writers": ("1", "2", "5", "0", "301", "-3", "x"), "characters": ("1", "4", "30", "0", "3756", "1e3"),
    "processes": ("1", "2", "4", "0", "-2", "x", "1_0"), "steps": ("1", "2", "0", "-1", "x"), "epochs": ("1", "0", "-1", "x"),
    "width": ("0.03", "0.0625", "0", "-1", "nan", "inf", "1e-9", "x"), "arch": ("vgg11", "vgg13", "VGG11", "x"),
    "dense_width": ("1", "8", "0", "-1"), "global_batch": ("1", "2", "7", "0", "-1", "x"), "replicas": ("1", "2", "0", "3", "x"),
    "replica_batch": ("1", "2", "0", "-1"), "seconds": ("0.05", "0", "-1", "nan", "inf", "x"), "stages": ("input", "step", "x"),
    "image_size": ("1", "2", "7", "16", "64", "65", "300", "0", "-1", "99999999999", "x"), "xla": ("on", "off"),
    "num_shards": ("train=1", "train=3", "test=2", "train=0", "train=-1", "train=100000", "x=1", "train", "=", "train=1=2",
                   "train=٣", "validation=4"),
    "runner": ("DirectRunner", "directrunner", "BundleBasedDirectRunner", "InteractiveRunner", "DaskRunner", "Nonsense", "",
               "DataflowRunner", "apache_beam.runners.direct.DirectRunner"),
}  # fmt: skip


@dataclass
class Trial:
    """One combination; paths are relative to the box unless they are absolute."""

    seed: int
    kind: str
    arguments: list[str | bytes]
    environment: dict[str, str | None] = field(default_factory=dict)
    folder: str = "."
    """Where it is started."""
    is_absolute: bool = False
    """Whether paths are handed over with the box in front."""
    stdout: str = "read"
    """read, closed, full, head (a reader that ends after a line), gone, terminal"""
    stderr: str = "read"
    stdin: str = "null"
    signals: list[tuple[float, int, bool]] = field(default_factory=list)
    """(seconds from the start, the signal, whether the whole group gets it)"""
    umask: int = 0o022
    limits: dict[str, int] = field(default_factory=dict)
    """RLIMIT_… -> most"""
    spoilt: list[str] = field(default_factory=list)
    """Folders of which there is a damaged copy."""


def placed(word: str | bytes, box: str) -> bytes:
    """A word in which what lies in the box is named from the root on."""
    return re.sub(rb"(^|=)(?=(in|out|sets|runs|documents|tmp)(/|$))", rb"\1" + os.fsencode(box) + b"/", os.fsencode(word))


def draw(seed: int) -> Trial:
    rng = random.Random(seed)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    trial = Trial(seed, kind, [])
    trial.arguments = _command(rng, kind)
    words = [os.fsdecode(word) for word in trial.arguments]
    spoilable = ("sets/raw", "runs/run", "in/mutated")
    trial.spoilt = [name for name in spoilable if any((name if "mut" in name else f"{name}-s") in word for word in words)]
    for chance in (0.5, 0.2):
        trial.environment |= rng.choice(_ENVIRONMENTS) if rng.random() < chance else {}
    trial.folder = rng.choices((".", "out/odd [dir]", "gone"), (90, 8, 2))[0]
    trial.is_absolute = trial.folder != "." or rng.random() < 0.3
    trial.stdout = rng.choices(("read", "closed", "full", "head", "gone", "terminal"), (75, 5, 5, 5, 5, 5))[0]
    trial.stderr = rng.choices(("read", "closed", "full", "gone", "terminal"), (92, 2, 2, 2, 2))[0]
    trial.stdin = rng.choices(("null", "closed", "silent"), (90, 5, 5))[0]
    trial.umask = rng.choices((0o022, 0o077, 0o777, 0), (85, 7, 3, 5))[0]
    if rng.random() < 0.05:
        trial.limits["RLIMIT_NOFILE"] = rng.choice((24, 40, 64, 128, 256))
    if rng.random() < 0.05:
        trial.limits["RLIMIT_FSIZE"] = rng.choice((0, 1, 1000, 20_000, 200_000))
    if rng.random() < 0.12 or _ENDLESS in trial.arguments:
        number, group = rng.choice(((signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)))
        moment = rng.uniform(0.3, 12 if kind in MODEL else 3)
        trial.signals = [(moment + again, number, group) for again in rng.choice(([0], [0], [0], [0, 0.2]))]
    return trial


def _command(rng: random.Random, kind: str) -> list[str | bytes]:
    name, _, form = kind.partition(" ")
    if name == "a":
        return ["-m", rng.choice(("pipeline", "model", "pipeline", "model")), rng.choice(("", "nonsense", "--help", "convert ", "-h"))]
    package = "model" if name in MODEL else "pipeline"
    start: list[str | bytes] = ["-m", f"{package}.{name}"] if rng.random() < 0.85 else ["-m", package, name]
    first = _positional(rng, name, form)
    flags = list(_SMALL.get(name, ()))
    if form == "--sql":
        flags += ["--sql", rng.choice((*_QUERIES, *_QUERIES, _ENDLESS))]
    elif form == "--html":
        flags += ["--html", _file(rng, ".html")]
    actions = [action for action in actions_of(name, form) if action.option_strings]
    weights = [0.15 if "--s3" in action.option_strings[0] else 1 for action in actions]
    for action in actions:
        if action.required and rng.random() < 0.98:
            flags += _flag(rng, name, action)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
        flags += _flag(rng, name, rng.choices(actions, weights)[0])
    if name == "convert" and rng.random() < 0.5:
        flags += ["--classes", LIST]
    if name == "convert" and rng.random() < 0.25:
        flags += [rng.choice(_BEAM)]
    if form == "show" and rng.random() < 0.5:
        flags += ["--char", rng.choice(CHARACTERS)]
    return [*start, *(first + flags if rng.random() < 0.7 or form in ("show", "diff") else flags + first)]


def _positional(rng: random.Random, name: str, form: str) -> list[str | bytes]:
    if name in ("verify", "inspect"):
        folders = [rng.choice(_SETS) for _ in range(2)]
        return ["diff", *folders] if form == "diff" else [folders[0], *([form] if form == "show" else [])]
    if name == "predict":
        images = ("in/picture.png", "in/picture.jpg", "in/torn.png", "in/good/1001-c.gnt", "in/test", *_INPUTS)
        return [rng.choice(rng.choice((images[:5], images))) for _ in range(rng.choice((1, 1, 2)))]
    return []


def _flag(rng: random.Random, name: str, action: argparse.Action) -> list[str | bytes]:
    flag = rng.choice(action.option_strings)
    if action.nargs == 0:
        return [flag]
    count = rng.choice((1, 1, 1, 2, 3)) if action.nargs in ("+", "*") else 1
    values = [_value(rng, name, action) for _ in range(count)]
    if len(values) == 1 and rng.random() < 0.5:
        return [os.fsencode(flag) + b"=" + os.fsencode(values[0])]
    return [flag, *values]


def _value(rng: random.Random, name: str, action: argparse.Action) -> str | bytes:
    by_name: dict[str, Callable[[], str | bytes]] = {
        "inputs": lambda: _split(rng) + os.fsencode(rng.choice(_INPUTS)),
        "against": lambda: (_split(rng) if name == "verify" else b"") + os.fsencode(rng.choice((*_INPUTS[:24], *_INPUTS))),
        "staging": lambda: rng.choice(("out/staging", "out/staging", "sets/kept", *_OUTPUTS)),
        "model_dir": lambda: rng.choice((*_OUTPUTS, "runs/unfinished", "runs/run-spoilt")),
        "save_seen": lambda: rng.choice(_OUTPUTS),
        "html": lambda: _file(rng, ".html"),
        "json": lambda: _file(rng, ".json"),
        "data": lambda: rng.choice(_SETS),
        "model": lambda: rng.choice(_RUNS),
        "classes": lambda: rng.choice((LIST, LIST, "in/latin.txt", "in/picture.png", "in", "absent", "/dev/null")),
        "sql": lambda: rng.choice(_QUERIES),
        "split": lambda: rng.choice(("train", "test", "validation", "nonsense", "")),
        "char": lambda: rng.choice((*CHARACTERS, "A", "")),
        "writer": lambda: rng.choice(("1001", "1241", "9", "")),
        "endpoint_url": lambda: rng.choice((HTTP, "nonsense", "http://", NOWHERE)),
    }
    if action.dest == "output":
        return _output(rng, name)
    if action.dest in _BOUNDED and rng.random() < 0.95:
        return rng.choice(_BOUNDED[action.dest])
    if rng.random() < 0.06:
        return rng.choice(_ABSURD)
    if action.choices:
        return rng.choice([str(choice) for choice in action.choices])
    if action.dest in by_name:
        return by_name[action.dest]()
    return rng.choice(_INTEGERS if action.type is int else _FLOATS if action.type is float else _ABSURD)


def _output(rng: random.Random, name: str) -> str | bytes:
    suffix = {"inspect": ".png", "evaluate": ".parquet", "export": rng.choice(("", ".onnx", ".tflite"))}.get(name)
    if suffix is None or (not suffix and rng.random() < 0.5):
        return rng.choice(_OUTPUTS)
    return _file(rng, suffix)


def _file(rng: random.Random, suffix: str) -> str | bytes:
    name = rng.choice(_FILES)
    return name.replace(b"{}", suffix.encode()) if isinstance(name, bytes) else name.replace("{}", suffix)


def _split(rng: random.Random) -> bytes:
    return rng.choices((b"", b"train=", b"test=", b"validation=", b"x=", b"="), (35, 35, 15, 10, 3, 2))[0]


class _Seen(BaseException):
    """Ends a command where it would parse its flags."""


@cache
def actions_of(name: str, form: str = "") -> list[argparse.Action]:
    """Every flag of a command, asked of the parsers that it makes."""
    sys.path.insert(0, str(ROOT))
    seen: list[argparse.ArgumentParser] = []
    parse = argparse.ArgumentParser.parse_known_args

    def note(self: argparse.ArgumentParser, *arguments: Any) -> Any:
        seen.append(self)
        if not self.add_help:  # the stores' flags are taken out first
            return parse(self, *arguments)
        raise _Seen

    arguments = {"show": ["DIR", "show"], "diff": ["diff"]}.get(form, [])
    module = import_module(f"{'model' if name in MODEL else 'pipeline'}.{name}")
    patched = mock.patch.multiple(argparse.ArgumentParser, parse_known_args=note, parse_args=note)
    with patched:
        try:
            module.main(arguments)
        except _Seen:
            pass
    if name == "convert":
        return [*seen[0]._actions, *(action for action in actions_of("verify") if action.option_strings and "--s3" in action.option_strings[0])]
    return [action for parser in seen for action in parser._actions]
