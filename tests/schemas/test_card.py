"""parse_card: a card that can't be what a conversion wrote is refused, however good its digest is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import write_dataset

from schemas.dataset import CARD, DamagedCard, _digest, parse_card


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    folder = write_dataset(tmp_path / "data", {"train": 9})
    found: dict[str, Any] = json.loads((folder / CARD).read_text())
    counts = {"read": 9, "kept": 9, "dropped": {}, "rejected": {}}
    member = {"split": "train", "location": "/in/a.zip", "archive": "a.zip", "member": "1001-c.gnt", "writer": "1001"}
    found["inputs"] = [{**member, "bytes": 5_000, "counts": counts}]
    return found


def sealed(fields: dict[str, Any]) -> str:
    fields.pop("digest", None)
    return json.dumps({**fields, "digest": _digest(fields)})


def test_a_sound_card_is_read_and_what_a_later_release_adds_is_left_alone(fields: dict[str, Any]) -> None:
    card = parse_card(sealed(fields), CARD)
    fields["added_later"] = ["x"]
    fields["inputs"][0]["added_later"] = "x"
    fields["splits"]["train"]["counts"]["added_later"] = 10
    assert parse_card(sealed(fields), CARD) == card


def test_a_card_without_its_digest_is_refused(fields: dict[str, Any]) -> None:
    del fields["digest"]
    with pytest.raises(DamagedCard, match="expected the card as it was written"):
        parse_card(json.dumps(fields), CARD)


def counts(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = fields["splits"]["train"]["counts"]
    return found


def shard(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = fields["splits"]["train"]["shards"][0]
    return found


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: counts(f).update(kept=-1, rejected={"blank": 10}), "expected a count for kept"),
        (lambda f: counts(f).update(kept=10), "9 rows in the shards of train|10 records"),
        (lambda f: counts(f).update(rejected={"blank": -9}, dropped={"not_sampled": 9}), "expected a count for"),
        (lambda f: counts(f).update(rejected={"blank": 2}), "read = kept"),
        (lambda f: counts(f).update(read=float("nan")), "expected a count for read of counts .*, found nan"),
        (lambda f: counts(f).update(kept=True), "found True"),
        (lambda f: counts(f).update(kept=9.0), "found 9.0"),
        (lambda f: counts(f).update(kept="9"), "found '9'"),
        (lambda f: counts(f).update(dropped=[]), "expected an object for dropped"),
        (lambda f: counts(f).pop("rejected"), "expected rejected of counts"),
        (lambda f: shard(f).update(records=shard(f)["records"] + 1), "expected 9 records and 9 rows"),
        (lambda f: shard(f).update(manifest_rows=2**62), "in the shards of train"),
        (lambda f: shard(f).update(bytes=2**70), "expected a count for bytes"),
        (lambda f: shard(f).update(sha256=None), "expected a text for sha256"),
        (lambda f: f["splits"].update(train=None), "expected train, of splits|as an object"),
        (lambda f: f.update(splits=[]), "expected an object for splits"),
        (lambda f: f["splits"]["train"].update(characters=10), "expected at most 10 characters"),
        (lambda f: f["splits"]["train"].update(writers=10), "nor more writers, found 9 and 10"),
        (lambda f: f["splits"]["train"].update(shards={}), "expected a list for shards"),
        (lambda f: f["inputs"][0]["counts"].update(kept=8), "read = kept .* 1001-c.gnt of a.zip"),
        (lambda f: f["inputs"][0].update(bytes=-1), "expected a count for bytes of inputs of the card, 0"),
        (lambda f: f.update(inputs=None), "expected a list for inputs"),
        (lambda f: f.update(class_count=float("inf")), "found inf"),
        (lambda f: f.update(class_count=False), "found False"),
        (lambda f: f.update(libraries={"numpy": 2}), "expected a text for libraries of the card, numpy, found 2"),
        (lambda f: f.update(config={}), "expected preprocess and image_encoding"),
        (lambda f: f["config"]["preprocess"].update(image_size="64"), "expected a count for image_size"),
        (lambda f: f["config"]["preprocess"].update(image_size=0), "image_size of 1 or more"),
        (lambda f: f["config"].update(image_encoding=["raw"]), "expected preprocess and image_encoding"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    fields: dict[str, Any], spoil: Callable[[dict[str, Any]], object], says: str
) -> None:
    spoil(fields)
    with pytest.raises(DamagedCard, match=says) as refused:
        parse_card(sealed(fields), CARD)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '""', "{}", '{"format_version": "1.1.0"}', "[" * 9_999])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(DamagedCard):
        parse_card(text, CARD)
