"""The images' recipes: pinned, not root, and what they copy is what the package is built from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

RECIPES = sorted((ROOT / "scripts/images").glob("*.Dockerfile"))


def instructions(recipe: Path) -> list[tuple[str, str]]:
    """(instruction, its words), lines joined and comments gone."""
    text = re.sub(r"^#.*\n", "", recipe.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_pinned_and_its_program_isnt_root(recipe: Path) -> None:
    steps = instructions(recipe)
    assert {name for name, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT"}
    for words in (words for name, words in steps if name == "FROM"):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*( AS \w+)?", words), f"{words}: expected a version, whole"
    for words in (words for name, words in steps if name == "RUN"):
        assert "pip install" not in words or "--no-cache-dir --constraint constraints.txt" in words
        assert "apt-get" not in words or words.endswith("&& rm -rf /var/lib/apt/lists/*")
    after = steps[[name for name, _ in steps].index("USER") :]
    assert after[0] == ("USER", "hwdb")
    assert not any(name == "RUN" for name, _ in after)
    assert after[-1][0] == "ENTRYPOINT"


def test_the_harness_is_of_the_pinned_beam() -> None:
    beam = re.search(r"^apache-beam==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert beam is not None
    (of,) = [
        words for name, words in instructions(ROOT / "scripts/images/workers.Dockerfile") if "beam_python" in words
    ]
    assert f":{beam[1]} AS" in of
    python = re.search(r"beam_python(\d\.\d+)_sdk", of)
    assert python is not None
    assert ("FROM", f"python:{python[1]}.") in [
        (name, words[: len(f"python:{python[1]}.")])
        for name, words in instructions(ROOT / "scripts/images/workers.Dockerfile")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_package_is_built_from_what_is_copied(recipe: Path, tmp_path: Path) -> None:
    """The recipe's own steps in a clean folder, but for what others' packages are fetched by."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for name, words in instructions(recipe):
        if name == "COPY" and not words.startswith("--from"):
            *sources, target = words.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, folder / target)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, f"--target={tmp_path}/there", "."], cwd=folder, check=True, capture_output=True)
    command = "workers" if recipe.stem == "workers" else "train"
    asked = [sys.executable, "-c", "from schemas.command import main; main()", command, "--help"]
    said = subprocess.run(
        asked, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}/there"}, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("usage: ")
