"""run_local.sh: paths are meant from where one stands, whatever leads to the script; what isn't its own stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

PYTHON = """#!/bin/bash
printf '%s|' "$PWD" "$@" >>"$(dirname "$0")/../calls"
echo >>"$(dirname "$0")/../calls"
[ "$2" = venv ] || { for folder; do [ "$before" != --output ] || mkdir -p "$folder"; before=$folder; done; }
[ "$2" != pipeline.convert ] || touch "$PWD/data/hwdb/dataset.json"
"""
"""Stands in for the interpreter of .venv: notes how it was called."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my projects" / "hwdb shards"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("run_local.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return folder


def run(command: str, where: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def calls(project: Path, module: str) -> list[list[str]]:
    """Folder and arguments of each call of a module."""
    lines = [line.split("|")[:-1] for line in (project / ".venv" / "calls").read_text().splitlines()]
    return [[line[0], *line[3:]] for line in lines if line[1:3] == ["-m", module]]


@pytest.mark.parametrize("shell", ["", "sh "])
def test_paths_are_meant_from_where_one_stands(project: Path, tmp_path: Path, shell: str) -> None:
    where = tmp_path / "down loads"
    where.mkdir()
    done = run(f"{shell}'{project}/run_local.sh' train=a.zip 'test=b c/*.gnt' validation=s3://x/y.zip", where)
    assert done.returncode == 0, done.stderr
    (call,) = calls(project, "pipeline.convert")
    assert call[0] == str(project)
    assert [word for word in call if "=" in word and not word.startswith("--")] == [
        f"train={where}/a.zip",
        f"test={where}/b c/*.gnt",
        "validation=s3://x/y.zip",
    ]


def test_a_link_leads_to_the_project(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "bin"
    elsewhere.mkdir()
    (elsewhere / "second").symlink_to(project / "run_local.sh")
    (elsewhere / "first").symlink_to("second")
    done = run("bin/first train=/a.zip", tmp_path)
    assert done.returncode == 0, done.stderr
    assert calls(project, "pipeline.convert")[0][0] == str(project)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["first", "second"]


def test_cdpath_leads_nowhere_else(project: Path, tmp_path: Path) -> None:
    decoy = tmp_path / "decoy" / project.name
    decoy.mkdir(parents=True)
    done = run(f"'{project.name}/run_local.sh' train=a.zip", project.parent, CDPATH=str(decoy.parent))
    assert done.returncode == 0, done.stderr
    assert calls(project, "pipeline.convert")[0][0] == str(project)
    assert not list(decoy.iterdir())


def test_an_interpreter_with_a_space_in_its_path(project: Path, tmp_path: Path) -> None:
    shutil.move(project / ".venv" / "bin" / "python", tmp_path / "my python")
    done = run(f"PYTHON='./my python' '{project}/run_local.sh' train=a.zip", tmp_path)
    assert "expected Python 3.11" not in done.stderr


def test_another_input_is_not_converted_already(project: Path) -> None:
    assert run("./run_local.sh train=a.zip", project).returncode == 0
    again = run("./run_local.sh train=a.zip", project)
    assert (again.returncode, len(calls(project, "pipeline.convert"))) == (0, 1)
    assert "Converted already" in again.stdout
    other = run("./run_local.sh train=b.zip", project)
    assert other.returncode == 2
    assert "holds the data set of other input" in other.stderr
    assert len(calls(project, "pipeline.convert")) == 1


def test_what_it_did_not_draw_stays(project: Path) -> None:
    mine = project / "data" / "sample" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    done = run("./run_local.sh", project)
    assert done.returncode == 2
    assert "data/sample to be what this script drew, found something else" in done.stderr
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("argument", ["train=", "tarin=a.zip", "--help"])
def test_what_makes_no_sense_is_one_line(project: Path, argument: str) -> None:
    done = run(f"./run_local.sh {argument}", project)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_tests_are_named_from_where_one_stands(project: Path) -> None:
    (project / "tests" / "x").mkdir(parents=True)
    (project / "tests" / "x" / "test_a.py").touch()
    assert run("../../run_local.sh test test_a.py::test_b -q", project / "tests" / "x").returncode == 0
    assert calls(project, "pytest") == [[str(project), f"{project}/tests/x/test_a.py::test_b", "-q"]]
