"""What is to be said of an export, in README.md and croissant.json: what, how many, how made, on what terms, limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.parquet.images import ImagesFile
from pipeline.source.origins import CASIA, DRAWN, ORIGINS
from pipeline.steps.settings import STEPS
from schemas.classes import ClassList
from schemas.dataset import Card, Origin
from schemas.errors import printable
from schemas.manifest import DROP_REASONS, REJECT_REASONS

_COLLECTION = {
    ORIGINS[
        CASIA
    ].name: "Written by hand on paper by many people, scanned, cut into characters and labelled by CASIA's "
    "National Laboratory of Pattern Recognition; the publications to cite say how.",
    ORIGINS[
        DRAWN
    ].name: "Drawn by a program, hwdb sample, from outlines or strokes of characters: nobody's handwriting.",
}
"""By the origin's name."""
_UNKNOWN = "Not known: whoever converted the archives didn't say whose handwriting they hold."
_NOBODYS = "No person wrote it: the writers are a program's."
_OF_PEOPLE = (
    "Handwriting can tell who wrote it, and the column writer says which images are by one person. Who they are isn't "
    "here."
)


@dataclass(frozen=True)
class SplitImages:
    """A split's files, and what they hold."""

    files: Sequence[ImagesFile]

    @property
    def images(self) -> int:
        return sum(file.images for file in self.files)

    @property
    def characters(self) -> int:
        return len(frozenset().union(*(file.labels for file in self.files)))

    @property
    def writers(self) -> frozenset[str]:
        return frozenset().union(*(file.writers for file in self.files))


@dataclass(frozen=True)
class About:
    """An export, in figures and words."""

    card: Card
    classes: ClassList
    origin: Origin | None
    splits: Mapping[str, SplitImages]
    where: str | None = None

    @property
    def files(self) -> Sequence[ImagesFile]:
        return [file for split in self.splits.values() for file in split.files]

    @property
    def images(self) -> int:
        return sum(split.images for split in self.splits.values())

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def title(self) -> str:
        of = f" ({self.origin.name})" if self.origin else ""
        return f"Handwritten Chinese characters{of}"

    @property
    def description(self) -> str:
        writers = frozenset().union(*(split.writers for split in self.splits.values()))
        size = self.card.image_size
        return (
            f"{self.images:,} images of single handwritten characters by {len(writers):,} writers, grey, "
            f"{size} × {size} pixels, ink 255 on 0, in {self.card.class_count:,} classes."
        )

    @property
    def collection(self) -> str:
        return _COLLECTION.get(self.origin.name, self.origin.name) if self.origin else _UNKNOWN

    @property
    def personal(self) -> str:
        return _NOBODYS if self.origin == ORIGINS[DRAWN] else _OF_PEOPLE

    @property
    def steps(self) -> Sequence[str]:
        """What was done to each bitmap, in the order it was done."""
        steps = self.card.config["preprocess"]
        size = self.card.image_size
        done = [meaning for step, (on, _, meaning) in STEPS.items() if steps.get(step) == on]
        return [*done, f"a PNG of {size} × {size} pixels, grey levels turned round: ink is 255 on 0"]

    @property
    def archives(self) -> Sequence[str]:
        return sorted({entry.archive for entry in self.card.inputs})

    @property
    def lost(self) -> Sequence[tuple[str, str, int, str]]:
        """(split, reason, records, what it means) of the records that were read and aren't among the images."""
        meaning = {**DROP_REASONS, **REJECT_REASONS}
        return [
            (name, reason, n, meaning.get(reason, ""))
            for name, split in self.card.splits.items()
            for reasons in (split.counts.dropped, split.counts.rejected)
            for reason, n in reasons.items()
        ]

    def limits(self) -> Iterator[str]:
        """What a user should know before relying on it, a sentence or two each."""
        card = self.card
        if self.where is not None:
            left = sum(split.counts.kept for split in card.splits.values()) - self.images
            yield f"A part of the data set: the records where {printable(self.where)}. {left:,} others were left out."
        yield (
            "Single characters, cut out and labelled by others: no lines, no pages, no photos. Labels are those of the "
            "archives and weren't checked; some will be wrong."
        )
        for name, split in self.splits.items():
            missing = card.class_count - split.characters
            if missing:
                yield f"{missing:,} of {card.class_count:,} classes have no image in {name}."
        outside = sum(n for _, reason, n, _ in self.lost if reason == "outside_class_set")
        if outside:
            yield f"{outside:,} records of characters outside the class list were left out."
        steps = card.config["preprocess"]
        if steps.get("crop") != "none" or steps.get("resize") != "none":
            yield "Where a character stood on its page and how large it was written can't be told from the images."
        if steps.get("binarize") != "none":
            yield "The images are ink or paper: grey levels were given up."
        if card.config.get("sample_fraction") != 1:
            yield f"A sample: {card.config.get('sample_fraction')} of the records, chosen by a hash of their names."
        yield self._writers()

    def _writers(self) -> str:
        counted = Counter(writer for split in self.splits.values() for writer in split.writers)
        shared = sum(n > 1 for n in counted.values())
        told = "Writers are told apart by the names of their files alone"
        if len(self.splits) == 1:
            return f"{told}. There is one split; a fair test needs writers of its own."
        if shared:
            return f"{told}. {shared:,} of them are in more than one split: accuracy there is of known hands."
        return f"{told}; by these no writer is in two splits."
