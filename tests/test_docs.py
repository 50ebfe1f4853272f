"""What README.md, CONTRIBUTING.md and docs/ show is true: code runs, tables, paths and links are as they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from inspected import converted
from pages import GUIDES, PAGES
from places import ROOT

from schemas.command import COMMANDS
from schemas.example import FEATURES, FORMAT_VERSION
from schemas.manifest import DROP_REASONS, MANIFEST_SCHEMA, REJECT_REASONS

README = (ROOT / "README.md").read_text()
FORMAT = (ROOT / "docs/format.md").read_text()
SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in GUIDES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    if "torch" not in code  # tests/test_readers.py runs that one
]
MOST_README_LINES, MOST_PICTURE_BYTES = 150, 150_000


def test_the_readme_is_a_page() -> None:
    assert len(README.splitlines()) <= MOST_README_LINES


def test_the_guides_show_readers() -> None:
    shown = "".join(page.read_text() for page in GUIDES)
    assert {"TensorFlow", "pandas", "DuckDB"} <= set(re.findall(r"\*\*(\w+)\*\*\n\n```python\n", shown))


@pytest.fixture(scope="module")
def beside_data(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the snippets name: data/sample, archives, and data/sample-shards, converted."""
    folder = tmp_path_factory.mktemp("snippets")
    (folder / "data").mkdir()
    (folder / "data/sample").symlink_to(archives)
    converted(folder / "data/sample-shards", f"--input=train={archives}/train", "--num_shards=train=2")
    return folder


@pytest.mark.parametrize("code", SNIPPETS)
def test_every_snippet_runs(
    code: str, beside_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "grain" in code:
        pytest.importorskip("grain", reason="Grain isn't installed")
    monkeypatch.chdir(beside_data)
    names: dict[str, object] = {}
    exec(code, names)
    printed = capsys.readouterr().out
    if "tensorflow" in code:
        batches = list(names["data"])  # type: ignore[call-overload]
        assert sum(len(labels) for _, labels in batches) == 3 * 38
        assert {images.shape[1:] for images, _ in batches} == {(64, 64, 1)}
    else:
        assert re.search("硷|100[1-3]", printed)


def test_the_formats_page_names_every_column_and_reason() -> None:
    assert f"Version {FORMAT_VERSION}." in FORMAT
    for field in MANIFEST_SCHEMA:
        null = "" if field.nullable else ", never null"
        assert f"| `{field.name}` | {field.type}{null} | {field.metadata[b'meaning'].decode()} |" in FORMAT
    for reason, meaning in {**DROP_REASONS, **REJECT_REASONS}.items():
        assert f"`{reason}` ({meaning})" in FORMAT
    for feature in FEATURES:
        assert f"| `{feature.name}` | {feature.kind.removesuffix('_list')} |" in FORMAT


def test_the_readmes_table_is_that_of_the_commands() -> None:
    rows = "".join(f"| `{name}` | {meaning} |\n" for name, (_, meaning) in COMMANDS.items())
    assert f"|---|---|\n{rows}\n" in README


def test_the_changelog_has_an_entry_for_this_release() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heading = rf"^## {re.escape(version)}\b.*, format {re.escape(FORMAT_VERSION)}\n\n- "
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert f"| {FORMAT_VERSION} | " in FORMAT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file.read_text()), f"{page.name}: {target}"
        if page.parent.name == "docs":
            assert file.resolve().is_relative_to(ROOT / "docs"), f"{page.name}: {target} isn't on the site"


def anchors(text: str) -> set[str]:
    """What GitHub and mkdocs make of the headings."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


FOLDERS = ("pipeline", "model", "schemas", "tests", "benchmarks", "docs", "scripts")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_is_named_is_there(page: Path) -> None:
    """pipeline/shards/chunk.py, tests/helpers/, CHANGELOG.md; a room that is one module without its suffix, too."""
    text = page.read_text()
    for path in re.findall(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w/?|[A-Z]+\.md)", text):
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), f"{page.name}: {path}"


def test_pictures_are_small_and_shown() -> None:
    shown = "".join(page.read_text() for page in GUIDES)
    for picture in (ROOT / "docs/images").iterdir():
        assert picture.stat().st_size < MOST_PICTURE_BYTES, picture.name
        assert f"images/{picture.name})" in shown, f"{picture.name} stands on no page"
