"""verify: what is wrong with a card, however good its digest is, and what is no data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from damaged import findings, reseal

from pipeline import verify
from pipeline.verify.card import check_card
from schemas.dataset import CARD, Card, DamagedCard, parse_card, read_card


def recount(**counts: int) -> Callable[[Card], Card]:
    def edit(card: Card) -> Card:
        entry = card.inputs[0]
        return replace(card, inputs=[replace(entry, counts=replace(entry.counts, **counts)), *card.inputs[1:]])

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (recount(kept=3), "expected read = kept + dropped + rejected"),
        (recount(kept=19, read=20), "expected the counts to be the sum"),
        (
            lambda card: replace(card, inputs=[replace(card.inputs[0], bytes=1), *card.inputs[1:]]),
            "the member at byte 1",
        ),
        (lambda card: replace(card, class_count=3755), "expected class_count 3,754"),
        (lambda card: replace(card, class_digest="0" * 64), "classes.txt: expected SHA-256 0000"),
        (lambda card: replace(card, libraries={}), "expected the version of numpy"),
        (
            lambda card: replace(card, splits={**card.splits, "train": replace(card.splits["train"], writers=3)}),
            "expected 3 writers, found 2",
        ),
        (
            lambda card: replace(card, splits={**card.splits, "train": replace(card.splits["train"], characters=3)}),
            "expected 3 characters, found 20",
        ),
    ],
)
def test_a_wrong_card_is_found_however_good_its_digest_is(
    dataset: Path, edit: Callable[[Card], Card], says: str
) -> None:
    reseal(dataset, edit)
    found = findings(dataset)
    assert any(says in line for line in found), found


def test_a_card_that_leads_out_of_its_folder_is_refused(dataset: Path) -> None:
    def edit(card: Card) -> Card:
        split = card.splits["test"]
        shards = [replace(split.shards[0], path="../../etc/passwd")]
        return replace(card, splits={**card.splits, "test": replace(split, shards=shards)})

    (dataset / CARD).write_text(edit(read_card(dataset)).to_json())
    found = findings(dataset)
    assert any("found ../../etc/passwd" in line for line in found)
    assert not any(line.startswith("../../etc/passwd") for line in found)


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "expected the folder of a data set, found none"),
        (lambda folder: (folder / CARD).unlink(), "the conversion isn't finished, run its command again"),
        (
            lambda folder: (folder / CARD).write_text(replace(read_card(folder), format_version="2.0.0").to_json()),
            "expected format version 1.x, found 2.0.0; read it with the release that wrote it",
        ),
    ],
)
def test_what_is_no_data_set_is_one_line(
    dataset: Path, prepare: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(dataset)
    assert verify.main([str(dataset)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert says in err


def test_the_card_carries_its_own_digest(intact: Path) -> None:
    fields = json.loads((intact / CARD).read_text())
    assert list(fields)[-1] == "digest"
    assert read_card(intact).to_json() == (intact / CARD).read_text()


def test_every_byte_of_the_card_counts(intact: Path) -> None:
    content = (intact / CARD).read_bytes()
    for at in range(0, len(content), 3):
        changed = content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        try:
            card = parse_card(changed, CARD)
        except DamagedCard:
            continue
        assert check_card(card, changed), f"byte {at}: {content[at]} -> {changed[at]}"


def test_readers_refuse_a_card_with_another_value(intact: Path) -> None:
    text = (intact / CARD).read_text()
    with pytest.raises(DamagedCard, match="expected the card as it was written, found it changed"):
        parse_card(text.replace('"image_size": 64', '"image_size": 65'), CARD)
    with pytest.raises(DamagedCard):
        parse_card(text.replace('"format_version": "1', '"format_version": "2'), CARD)
