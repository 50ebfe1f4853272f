"""What the README and the format's page show is true: their code runs, their tables say what the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from places import ROOT

from schemas.example import FEATURES, FORMAT_VERSION
from schemas.manifest import DROP_REASONS, MANIFEST_SCHEMA, REJECT_REASONS

README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs/format.md").read_text()
SNIPPETS = re.findall(r"\*\*(\w+)\*\*\n\n```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_shows_three_readers() -> None:
    assert {"TensorFlow", "pandas", "DuckDB"} <= {name for name, _ in SNIPPETS}


@pytest.mark.parametrize(("name", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_the_readmes_readers_run(
    name: str,
    code: str,
    archives: Path,
    tmp_path: Path,
    convert: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    convert(f"--input=train={archives}/train", f"--output={tmp_path}/data/sample-shards", "--num_shards=train=2")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    printed = capsys.readouterr().out
    if name == "TensorFlow":
        batches = list(names["data"])  # type: ignore[call-overload]
        assert sum(len(labels) for _, labels in batches) == 3 * 38
        assert {images.shape[1:] for images, _ in batches} == {(64, 64, 1)}
    else:
        assert "硷" in printed or "1001" in printed


def test_the_formats_page_names_every_column_and_reason() -> None:
    assert f"Version {FORMAT_VERSION}." in FORMAT
    for field in MANIFEST_SCHEMA:
        null = "" if field.nullable else ", never null"
        assert f"| `{field.name}` | {field.type}{null} | {field.metadata[b'meaning'].decode()} |" in FORMAT
    for reason, meaning in {**DROP_REASONS, **REJECT_REASONS}.items():
        assert f"`{reason}` ({meaning})" in FORMAT
    for feature in FEATURES:
        assert f"| `{feature.name}` | {feature.kind.removesuffix('_list')} |" in FORMAT


def test_every_local_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


FOLDERS = {
    "schemas": "the contracts both sides share",
    "pipeline": "archives in, shards out",
    "model": "shards in, a recogniser out",
}


def expected_tree() -> str:
    """Every module with the first line of its docstring; a package in a package is one line."""
    lines = []
    for folder, meaning in FOLDERS.items():
        lines.append(f"{folder + '/':<22}{meaning}")
        for path in sorted((ROOT / folder).iterdir()):
            source = path / "__init__.py" if path.is_dir() else path
            if path.name == "__init__.py" or source.suffix != ".py" or not source.is_file():
                continue
            summary = (ast.get_docstring(ast.parse(source.read_text())) or "").split("\n")[0].rstrip(".")
            lines.append(f"  {path.name + ('/' if path.is_dir() else ''):<20}{summary}")
    return "\n".join(lines) + "\n"


def test_the_file_tree_in_the_readme_is_the_one_in_the_project() -> None:
    """On failure, paste what expected_tree() gives between the fences."""
    assert f"```text\n{expected_tree()}```" in README
