"""What the README and the format's page show is true: their code runs, their tables say what the code says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.example import FEATURES, FORMAT_VERSION
from schemas.manifest import DROP_REASONS, MANIFEST_SCHEMA, REJECT_REASONS

ROOT = Path(__file__).resolve().parents[1]
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


def test_the_file_tree_in_the_readme_is_the_one_in_the_project() -> None:
    tree = README.split("## The files")[1]
    for folder in ("pipeline", "model", "schemas"):
        for path in (ROOT / folder).glob("*.py"):
            if path.name != "__init__.py":
                assert re.search(rf"^\s+{re.escape(path.name)}\s+\S", tree, flags=re.MULTILINE), path
