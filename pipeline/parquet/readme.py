"""README.md: the card that the Hugging Face Hub shows, and that tells load_dataset where each split is."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.parquet.about import About
from pipeline.parquet.images import COLUMNS, FOLDER
from schemas.command.outputs import mark_of
from schemas.errors import printable

README = "README.md"
_MOST_ARCHIVES = 10
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"


def readme_of(about: About, command: str) -> str:
    return "".join(f"{line}\n" for line in (*_header(about), "", f"<!-- {mark_of(command)} -->", "", *_body(about)))


def _header(about: About) -> Iterator[str]:
    """YAML; a JSON string is one of YAML's."""
    origin = about.origin
    yield "---"
    yield f"pretty_name: {json.dumps(about.title)}"
    if origin and origin.license:
        yield "license: other"
        yield f"license_name: {json.dumps(origin.name.lower())}"
        yield f"license_link: {origin.homepage}"
    else:
        yield "license: unknown"
    yield from ("language:", "- zh", "task_categories:", "- image-classification")
    yield from ("tags:", "- handwriting", "- ocr")
    yield f"size_categories:\n- {next((name for most, name in _SIZES if about.images < most), _LARGEST)}"
    yield from ("configs:", "- config_name: default", "  data_files:")
    for name in about.splits:
        yield f"  - split: {name}"
        yield f"    path: {FOLDER}/{name}-*.parquet"
    yield "---"


def _body(about: About) -> Iterator[str]:
    card, origin = about.card, about.origin
    yield from (f"# {about.title}", "", about.description, "")
    yield from ("```python", "from datasets import load_dataset", "")
    yield 'data = load_dataset(".")  # in this folder; or its name on the Hub'
    first = next(iter(about.splits))
    yield from (f'print(data["{first}"].features["label"].int2str(data["{first}"][0]["label"]))', "```", "")
    yield from ("## What it holds", "", "| split | images | characters | writers | files |", "|---|---|---|---|---|")
    for name, split in about.splits.items():
        figures = (split.images, split.characters, len(split.writers), len(split.files))
        yield f"| {name} | {' | '.join(f'{n:,}' for n in figures)} |"
    yield from ("", "| column | what it is |", "|---|---|")
    yield from (f"| `{column}` | {meaning} |" for column, meaning in COLUMNS.items())
    yield from ("", "The split is in a file's name. The order is that of a hash, so any stretch is a fair sample.", "")
    yield from ("## How it was made", "", about.collection, "")
    yield f"hwdb-shards {card.libraries.get('hwdb-shards', '')} (format {card.format_version}) read {_archives(about)}."
    yield from ("What it did to each bitmap:", "")
    yield from (f"{number}. {step}" for number, step in enumerate(about.steps, start=1))
    yield ""
    if about.lost:
        yield from (
            "These records were read and aren't here:",
            "",
            "| split | reason | records | |",
            "|---|---|---|---|",
        )
        yield from (f"| {split} | {reason} | {n:,} | {meaning} |" for split, reason, n, meaning in about.lost)
    elif about.where is None:
        yield "Every record that was read is here."
    yield from ("", "## Terms", "")
    if origin and origin.license:
        yield f"{printable(origin.license)}: <{origin.homepage}>."
        yield "These images are made of that data; read its terms before you use or publish them."
    elif origin:
        yield f"None are stated: {printable(origin.name)}."
    else:
        yield "Not known: nobody said whose handwriting it is. Find out before you use or publish it."
    if origin and origin.citation:
        yield from ("", "Cite:", "", "```bibtex", *origin.citation.splitlines(), "```")
    yield from ("", "## Known limits", "", *(f"- {limit}" for limit in about.limits()), f"- {about.personal}", "")
    yield from ("## Check it, publish it", "")
    yield from ("```console", "$ sha256sum --check --quiet SHA256SUMS", "```", "")
    yield "says nothing if every file is as it was written; `hwdb verify` finds what is too many, too. `croissant.json`"
    yield "says all this to programs. Nothing has been uploaded. If the terms allow it:"
    yield from ("", "```console", "$ hf upload NAME/OF-IT . --repo-type dataset", "```")


def _archives(about: About) -> str:
    names = [f"`{printable(name)}`" for name in about.archives[:_MOST_ARCHIVES]]
    more = len(about.archives) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")
