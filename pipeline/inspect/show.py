"""`show`: records as pictures, from the original bitmap to the sample."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TextIO

from pipeline import storage
from pipeline.inspect.manifest import COMMAND, Inspected, Row
from pipeline.inspect.pictures import blocks
from pipeline.inspect.pictures.originals import Originals
from pipeline.inspect.pictures.sheet import png, sheet
from pipeline.inspect.pictures.steps import STORED, Picture, step_pictures
from pipeline.inspect.pictures.stored import read_sample
from pipeline.reader.dataset import preprocess_config
from schemas.command.outputs import marked_png
from schemas.errors import UserError, explained, printable
from schemas.manifest import KEPT


def show(inspected: Inspected, rows: Sequence[Row], against: Sequence[str], output: str | None, out: TextIO) -> None:
    """Draws the records on `out`, or into the PNG `output`. Raises UserError if there are none to draw."""
    if output:
        storage.check_output(output, COMMAND)
    drawn, lost = pictures_of(inspected, rows, against)
    if lost and not drawn:
        raise UserError(lost[0])
    columns = shutil.get_terminal_size((100, 24)).columns
    for row in rows:
        print(printable(describe(row)), file=out)
        if row.sample_id not in drawn:
            print("  no picture: its bitmap can't be read", file=out)
        elif not output:
            print(blocks.draw(drawn[row.sample_id], columns, blocks.colours_of(out)), file=out)
    for line in lost:
        print(printable(f"without its original: {line}"), file=out)
    if output:
        with_pictures = [(_caption(row), drawn[row.sample_id]) for row in rows if row.sample_id in drawn]
        if not with_pictures:
            raise UserError(f"{output}: expected a picture to write, found none of these records readable; name others")
        with explained(f"write {output}"):
            storage.write_output(output, marked_png(png(sheet(with_pictures)), COMMAND), COMMAND)
        print(output, file=out)


def pictures_of(
    inspected: Inspected, rows: Sequence[Row], against: Sequence[str]
) -> tuple[dict[str, list[Picture]], list[str]]:
    """sample_id -> its pictures, and a line for whatever can't be read.

    Where the original can't be read, a kept record has one picture, the stored sample; any other record has none.
    """
    originals = Originals(inspected.card, against)
    bitmaps = originals.read(rows)
    config = preprocess_config(inspected.card)
    drawn, lost = {}, originals.lost
    for row in rows:
        if row.sample_id in bitmaps:
            drawn[row.sample_id] = step_pictures(bitmaps[row.sample_id], config)
        elif row.status == KEPT:
            try:
                drawn[row.sample_id] = [Picture(STORED, read_sample(inspected, row))]
            except UserError as error:
                lost.append(str(error))
    return drawn, lost


def describe(row: Row) -> str:
    """A record in a line: what it is, what became of it, and where in the archive it stands."""
    label = "no label" if row.label is None else f"label {row.label}"
    size = "" if row.width is None else f", {row.width} × {row.height} pixels"
    ink = "" if row.ink_fraction is None else f", ink {row.ink_fraction:.1%}"
    fate = row.status if row.reason is None else f"{row.status} ({row.reason})"
    return (
        f"{row.sample_id}  {row.char or '?'}  tag {row.tag or '?'}, {label}, {fate}{size}{ink}; "
        f"{row.archive}, byte {row.source_offset:,}, {row.source_bytes:,} bytes"
    )


def _caption(row: Row) -> str:
    label = "no label" if row.label is None else f"label {row.label}"
    return f"{row.sample_id}   tag {row.tag or '?'}   {label}   {row.status if row.reason is None else row.reason}"


def choose_named(inspected: Inspected, sample_ids: Sequence[str]) -> list[Row]:
    """The records in that order. Raises UserError for one that isn't there."""
    found = {row.sample_id: row for row in inspected.named(sample_ids)}
    for sample_id in sample_ids:
        if sample_id not in found:
            ((like,),) = inspected.query("SELECT any_value(sample_id) FROM manifest")
            what = f"expected a sample_id like {like}, found no such record"
            raise UserError(f"{sample_id}: {what}; --char and --writer show some")
    return [found[sample_id] for sample_id in sample_ids]


def choose_where(inspected: Inspected, columns: Mapping[str, str | None], limit: int) -> list[Row]:
    """Some records with those values in the columns, None for any. Raises UserError if there are none."""
    wanted = {column: value for column, value in columns.items() if value is not None}
    conditions = " AND ".join(f"{column} = ?" for column in wanted)
    # By digest: the same ones each time, from writers and members all over the set.
    rest = f"WHERE {conditions} ORDER BY bitmap_digest, sample_id LIMIT {limit}"
    rows = inspected.rows(rest, [*wanted.values()])
    if not rows:
        what = " and ".join(f"{column} {value}" for column, value in wanted.items())
        raise UserError(
            f"{inspected.folder}: expected records of {what}, found none; the summary names some that are there"
        )
    return rows
