"""An export as a whole: every shard in a process of its own, then what is said of them, and the sums of all last."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.parquet.about import About, SplitImages
from pipeline.parquet.croissant import CROISSANT, croissant_of
from pipeline.parquet.images import FOLDER, ImagesFile, ImagesJob, images_name, write_images
from pipeline.parquet.readme import README, readme_of
from pipeline.reader.dataset import read_card
from pipeline.source.origins import ORIGINS
from pipeline.verify.card import read_classes
from pipeline.verify.check import SMALL_BYTES, SUMS, Advance, pool, run
from schemas.command.outputs import Owned, as_summed, check_output, marked_by, output, sums_text
from schemas.errors import UserError, explained

COMMAND = "pipeline.parquet"


def export(
    folder: str,
    place: Path,
    origin: str | None,
    processes: int,
    advance: Advance = lambda _, __: None,
    where: str | None = None,
) -> About:
    """Writes the export of a data set, here or behind a URL, and returns what is to be said of it.

    `where` chooses records, as in the reader; a split of which it chooses none is left out. Nothing stands under its
    name before it is whole; only an earlier export makes room. Raises UserError.
    """
    card, _ = read_card(folder)
    classes = read_classes(card, folder)
    if classes is None:
        raise UserError(f"{folder}: expected its class list, found it damaged; python -m pipeline.verify says more")
    said = ORIGINS[origin] if origin else card.origin
    if card.origin not in (None, said):
        raise UserError(f"--origin {origin}: the card says {card.origin.name}; leave the flag out, or convert again")
    owned = _owned()
    check_output(place, COMMAND, owned)
    shards = [file for split in card.splits.values() for file in split.shards]
    with explained(f"write {place}"), output(place, COMMAND, owned) as temporary:
        (temporary / FOLDER).mkdir(parents=True)
        jobs = [ImagesJob(folder, card, classes.characters, file, temporary, where) for file in shards]
        total = sum(file.bytes for file in shards)
        written: dict[str, ImagesFile] = {}
        with pool(processes if total > SMALL_BYTES else 1) as executor:
            for job, file in run(executor, write_images, jobs):
                written[job.name] = file
                advance(job.file.bytes, total)
        of_splits = {
            name: SplitImages([written[images_name(file)] for file in split.shards])
            for name, split in card.splits.items()
        }
        if where is not None:
            for name in [name for name, split in of_splits.items() if not split.images]:
                for file in of_splits.pop(name).files:
                    (temporary / file.name).unlink()
            if not of_splits:
                raise UserError(f"where {where}: expected some of the records of {folder}, found none; ask for more")
        about = About(card, classes, said, of_splits, where)
        texts = {README: readme_of(about, COMMAND), CROISSANT: croissant_of(about)}
        for name, text in texts.items():
            (temporary / name).write_text(text, "utf-8")
        sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
        sums.update({file.name: file.sha256 for file in about.files})
        (temporary / SUMS).write_text(sums_text(sums), "utf-8")
    return about


def _owned() -> Owned:
    as_it_was, is_marked = as_summed(SUMS, [FOLDER]), marked_by(COMMAND)

    def owned(path: Path) -> list[Path] | None:
        """An earlier export as it was written, or an empty folder."""
        files = as_it_was(path)
        return None if files is None or (files and is_marked(path / README) is None) else list(files)

    return owned
