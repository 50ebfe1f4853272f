"""schemas/card.schema.json and the code say the same of the card."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from pipeline.shards.config import LIBRARIES, ConvertConfig
from pipeline.steps.settings import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, STEPS, PreprocessConfig
from schemas.dataset import (
    MAX_SHARDS,
    MOST_PASSED,
    SPLITS,
    Card,
    Counts,
    MemberInput,
    Origin,
    PassedFile,
    PassedOver,
    ShardFile,
    Split,
)
from schemas.example import FORMAT_VERSION, IMAGE_ENCODINGS
from schemas.manifest import DROP_REASONS, REJECT_REASONS

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema isn't installed; it comes with the dev extra")

SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas/card.schema.json").read_text())
PARTS: dict[str, Any] = SCHEMA["$defs"]
OPTIONAL = {"input": {"lost_bytes", "what"}, "origin": {"license", "citation", "homepage"}}
"""Fields that a card of an earlier format doesn't have, or that nobody said."""


@pytest.fixture
def card(archives: Path, tmp_path: Path, convert: Callable[..., tuple[int, str, str]]) -> dict[str, Any]:
    status, _, err = convert(f"--input=train={archives}/train", f"--input=test={archives}/test", f"--output={tmp_path}")
    assert status == 0, err
    fields: dict[str, Any] = json.loads((tmp_path / "dataset.json").read_text())
    return fields


def faults(card: dict[str, Any]) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(card)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_card_of_a_conversion_is_valid_and_a_damaged_one_is_not(card: dict[str, Any]) -> None:
    assert faults(card) == []
    for spoil, where in (
        (lambda c: c.pop("class_digest"), "$"),
        (lambda c: c.update(format_version="2.0.0"), "$.format_version"),
        (lambda c: c["config"]["preprocess"].update(crop="tight"), "$.config.preprocess.crop"),
        (lambda c: c["splits"].update(dev=c["splits"]["test"]), "$.splits"),
        (lambda c: c["splits"]["train"]["counts"]["dropped"].update(bored=1), "$.splits.train.counts.dropped"),
        (lambda c: c["splits"]["train"]["shards"][0].update(path="../x.tfrecord"), "$.splits.train.shards[0].path"),
        (lambda c: c["splits"]["test"]["shards"][0].update(sha256="0" * 63), "$.splits.test.shards[0].sha256"),
        (lambda c: c["inputs"][2].update(bytes=-1), "$.inputs[2].bytes"),
        (lambda c: c.pop("digest"), "$"),
    ):
        spoilt = copy.deepcopy(card)
        spoil(spoilt)
        assert faults(spoilt) == [where]


@pytest.mark.parametrize(
    ("version", "missing"),
    [("1.0.0", []), ("1.0.3", []), ("1.1.0", ["$.libraries"]), ("1.2.0", ["$.libraries"]), ("1.10.0", ["$.libraries"])],
)
def test_deflate_is_named_from_format_1_1_on(card: dict[str, Any], version: str, missing: list[str]) -> None:
    card["format_version"] = version
    card["libraries"]["opencv-python"] = "5.0"
    assert faults(card) == []
    del card["libraries"]["deflate"]
    assert faults(card) == missing
    del card["libraries"]["numpy"]
    assert set(faults(card)) == {"$.libraries"}


@pytest.mark.parametrize(
    ("version", "is_asked_for"), [("1.0.3", False), ("1.1.0", False), ("1.2.0", True), ("1.10.0", True)]
)
def test_losses_are_told_from_format_1_2_on(card: dict[str, Any], version: str, is_asked_for: bool) -> None:
    card["format_version"] = version
    card["libraries"]["opencv-python"] = "5.0"
    assert faults(card) == []
    for spoil in (lambda c: c.pop("passed_over"), lambda c: c["inputs"][1].pop("lost_bytes")):
        spoilt = copy.deepcopy(card)
        spoil(spoilt)
        assert bool(faults(spoilt)) == is_asked_for


def test_numba_and_this_package_are_named_from_format_1_2_on(card: dict[str, Any]) -> None:
    assert "opencv-python" not in card["libraries"]
    for version, missing in (("1.1.0", ["$.libraries"]), ("1.2.0", []), ("1.2.10", []), ("1.10.0", [])):
        assert faults({**card, "format_version": version}) == missing
    for library in ("numba", "hwdb-shards"):
        libraries = {name: found for name, found in card["libraries"].items() if name != library}
        assert faults({**card, "libraries": libraries}) == ["$.libraries"]


def test_the_schema_names_the_fields_that_the_code_writes() -> None:
    def names(cls: type) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)}

    for part, fields in {
        "counts": names(Counts),
        "split": names(Split),
        "shard": names(ShardFile),
        "input": names(MemberInput),
        "passed_over": names(PassedOver),
        "passed_file": names(PassedFile),
        "origin": names(Origin),
        "config": set(ConvertConfig().as_json()),
    }.items():
        assert set(PARTS[part]["required"]) | OPTIONAL.get(part, set()) == set(PARTS[part]["properties"]) == fields
    assert set(SCHEMA["required"]) | {"passed_over", "origin"} == set(SCHEMA["properties"]) == names(Card) | {"digest"}
    steps = PARTS["config"]["properties"]["preprocess"]
    assert set(steps["required"]) == set(steps["properties"]) == names(PreprocessConfig)


def test_the_schemas_choices_are_the_codes() -> None:
    steps = PARTS["config"]["properties"]["preprocess"]["properties"]
    assert {name: tuple(steps[name]["enum"]) for name in STEPS} == {
        name: choices[:2] for name, choices in STEPS.items()
    }
    assert (steps["image_size"]["minimum"], steps["image_size"]["maximum"]) == (MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
    assert tuple(PARTS["config"]["properties"]["image_encoding"]["enum"]) == IMAGE_ENCODINGS
    assert PARTS["config"]["properties"]["num_shards"]["additionalProperties"]["maximum"] == MAX_SHARDS
    assert tuple(PARTS["split_name"]["enum"]) == SPLITS
    assert PARTS["passed_over"]["properties"]["files"]["maxItems"] == MOST_PASSED
    counts = PARTS["counts"]["properties"]
    assert set(counts["dropped"]["propertyNames"]["enum"]) == set(DROP_REASONS)
    assert set(counts["rejected"]["propertyNames"]["enum"]) == set(REJECT_REASONS)
    libraries = SCHEMA["properties"]["libraries"]["required"] + [
        library
        for since in SCHEMA["allOf"]
        if "else" in since
        for library in since["else"]["properties"]["libraries"]["required"]
    ]
    assert sorted(libraries) == sorted(LIBRARIES)
    assert SCHEMA["description"].startswith(f"Format {FORMAT_VERSION.split('.')[0]}.x")


def test_the_digest_is_what_the_formats_page_says(card: dict[str, Any]) -> None:
    digest = card.pop("digest")
    assert digest == hashlib.sha256(json.dumps(card, ensure_ascii=False, indent=1).encode()).hexdigest()


def test_the_formats_page_names_every_field() -> None:
    page = (ROOT / "docs/format.md").read_text().split("## The card")[1]
    shown = set(SCHEMA["properties"]) | {
        name for part in ("shard", "input", "config") for name in PARTS[part]["properties"]
    }
    for name in shown:
        assert f"`{name}`" in page, name
