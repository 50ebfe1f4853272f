"""The flags of every command: ~ in each that is a path, and lines that name what was typed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from commands import Run, assert_refused, called, inputs

from pipeline import Settings, sample, verify
from pipeline.convert import main as convert_main
from schemas.command import COMMANDS, Parser, expanded, local_path, path_or_url
from schemas.errors import UserError

PATHS = {"DIR", "FILE", "PATH", "RUN", "IMAGE", "[SPLIT=]PATH"}
"""What a flag that is a path calls its value."""
VARIANTS = {"inspect": [[], ["DIR", "show"], ["diff"]]}
PARSERS = [(name, variant) for name in COMMANDS for variant in VARIANTS.get(name, [[]])]


class Found(BaseException):
    """Carries a parser out of its command."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """~; and another folder to stand in."""
    folder = tmp_path / "home"
    elsewhere = tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(elsewhere)
    return folder


def parser_of(name: str, variant: list[str]) -> Parser:
    def parse(self: Parser, *_: object) -> object:
        raise Found(self)

    main = import_module(COMMANDS[name][0]).main
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Parser, "parse_known_args", parse)
        with pytest.raises(Found) as found:
            main(variant)
    (parser,) = found.value.args
    assert isinstance(parser, Parser)
    return parser


def path_flags() -> Iterator[tuple[str, argparse.Action]]:
    for name, variant in PARSERS:
        yield from ((name, action) for action in parser_of(name, variant)._actions if action.metavar in PATHS)
        others = {str(a.metavar) for a in parser_of(name, variant)._actions if a.metavar} - PATHS
        assert not {metavar for metavar in others if metavar.endswith(("DIR", "FILE", "PATH", "FOLDER"))}


def test_every_flag_that_is_a_path_expands_a_tilde() -> None:
    found = list(path_flags())
    assert len(found) >= 25
    for name, action in found:
        # The conversion's go through Settings, for callers from Python too.
        assert name == "convert" or action.type in (path_or_url, local_path), (name, action.dest)


def test_settings_expand_their_paths(home: Path) -> None:
    settings = Settings(
        ["~/a.zip", "train=~/b/*.gnt", "test=s3://~/c", "validation=d/~e"],
        "~/out/",
        classes="~/list.txt",
        staging="~",
        beam=["--temp_location=~/t", "--prism_location", "~/prism", "--x=~", "--job_name=~a"],
    )
    assert settings.inputs == [f"{home}/a.zip", f"train={home}/b/*.gnt", "test=s3://~/c", "validation=d/~e"]
    assert (settings.output, settings.classes, settings.staging) == (f"{home}/out", f"{home}/list.txt", str(home))
    assert settings.beam == [
        f"--temp_location={home}/t",
        "--prism_location",
        f"{home}/prism",
        f"--x={home}",
        "--job_name=~a",
    ]


def test_no_folder_is_called_tilde(home: Path, archives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_main([*inputs(archives), "--output=~/out", "--staging=~/staged", "--keep_staging"]) == 0
    assert sample.main(["--output=~/drawn", "--writers=1", "--characters=1"]) == 0
    assert verify.main(["~/out", "--against", f"train={archives}/train", f"test={archives}/test"]) == 0
    (home / "in").symlink_to(archives)
    assert verify.main(["~/out", "--against", "train=~/in/train", "--against=test=~/in/test"]) == 0
    assert not list(Path.cwd().iterdir())
    assert {path.name for path in home.iterdir()} == {"out", "staged", "drawn", "in"}
    capsys.readouterr()


def test_a_path_that_leads_nowhere_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("~nobody-of-that-name/x", "train=~nobody-of-that-name"):
        with pytest.raises(UserError, match=r"expected ~ to be a home folder, found none; write the folder out"):
            expanded(text)
    (Path.cwd() / "~$draft.gnt").touch()
    assert expanded("~$draft.gnt") == "~$draft.gnt"
    assert expanded("./~x") == "./~x"
    assert expanded("~") == str(home)
    assert expanded("gs://~/x") == "gs://~/x"
    for text in ("gs://", "train=s3:///x", "s3://"):
        with pytest.raises(UserError, match="expected a bucket's name after ://, found none"):
            expanded(text)
    monkeypatch.setenv("HOME", "")
    with pytest.raises(UserError, match="expected ~ to be a home folder"):
        expanded("~/x")  # /x, otherwise


@pytest.mark.parametrize("value", ["", "a\0b"])
def test_a_path_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for main, flags in ((sample.main, []), (verify.main, ["x", "--against"])):
        run = called(main, capsys)
        flag = [*flags, value] if flags else [f"--output={value}"]
        assert_refused(run(*flag), "expected a path, found ")
    assert_refused(called(convert_main, capsys)("--input=x", f"--output={value}"), "expected a (folder|path), found ")
    assert_refused(called(convert_main, capsys)(f"--input=train={value}", "--output=o"), "expected a (path|.gnt)")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--image-size", "--image_size"),
        ("-output", "--output"),
        ("--OUTPUT", "--output"),
        ("--keep-staging", "--keep_staging"),
        ("--s3-endpoint-url", "--s3_endpoint_url"),
    ],
)
def test_a_flag_spelt_in_another_way(convert: Run, tmp_path: Path, typed: str, meant: str) -> None:
    outcome = convert("--input", tmp_path, f"--output={tmp_path}/o", f"{typed}=96")
    assert_refused(outcome, f"pipeline.convert: {typed}(=96)?: there is no such flag; did you mean {meant}?")


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("pipeline.convert", ["--inptu=x", "--output=y"], "--inptu: there is no such flag; did you mean --input?"),
        ("pipeline.verify", ["d", "--sampel=3"], "--sampel: there is no such flag; did you mean --sample?"),
        ("pipeline.sample", ["--out=x"], "the following arguments are required: --output"),
        ("model.train", ["--data=d", "--model-dir=r"], "--model-dir: there is no such flag; did you mean --model_dir?"),
        ("model.train", ["--data=d", "--model_dir=r", "--no_batch_norm"], "did you mean --no-batch_norm?"),
        ("model.train", ["--data=d", "--model_dir=s3://b/r"], "s3://b/r: expected a local path, found a URL; copy it"),
        ("model.export", ["--model=~nobody-there/x", "--format=onnx"], "expected ~ to be a home folder, found none"),
        ("pipeline.inspect", ["~nobody-there/x", "show", "--char=x"], "expected ~ to be a home folder, found none"),
        ("schemas.command", ["vefiry"], "expected one of convert, "),
    ],
)
def test_lines_name_what_was_typed(
    module: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(called(import_module(module).main, capsys)(*arguments), said)


def test_a_flag_of_another_program_that_is_like_ours_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A value that looks like a flag after `--`, and Beam's own."""
    parser = Parser("x", "")
    parser.add_argument("--output")
    parser.add_argument("rest", nargs="*")
    assert parser.parse_known_args(["--outputs_of_beam=3", "--", "--out-put"])[0].rest == ["--out-put"]
    assert os.path.expanduser("~") != "~"
    capsys.readouterr()


def test_two_dashes_are_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(called(sample.main, capsys)("--output=--"), "--output=--: expected a value, found --")
    assert_refused(called(convert_main, capsys)("--input=--", "--output=o"), "--input=--: expected a value, found --")
