"""A trained run, asked what character a picture shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.answers import metrics
from model.answers.calibration import read_calibration
from model.answers.picture import read_picture, to_bitmap
from model.answers.run import BOX, load_model, read_run
from pipeline.steps.plain import Unusable, pin_opencv, preprocess
from pipeline.steps.settings import PreprocessConfig
from schemas.errors import UserError
from schemas.manifest import REJECT_REASONS

Picture = str | Path | np.ndarray
"""A file, or uint8 [h, w], [h, w, 3] RGB or [h, w, 4] RGBA."""

_BATCH = 64


@dataclass(frozen=True)
class Character:
    """Something to read."""

    name: str
    bitmap: np.ndarray
    """uint8 [h, w], dark ink on white paper."""


@dataclass(frozen=True)
class Reading:
    """A picture with what the run takes it for."""

    name: str
    """The file's, or the number of an array among the pictures asked for, from 0."""
    image: np.ndarray
    """uint8 [size, size], ink 255 on 0: what the model saw."""
    candidates: Sequence[tuple[str, float]]
    """(character, calibrated probability), most likely first."""
    threshold: float
    """The probability below which the run would rather not answer."""

    @property
    def character(self) -> str:
        return self.candidates[0][0]

    @property
    def probability(self) -> float:
        return self.candidates[0][1]

    @property
    def recognised(self) -> bool:
        """Whether the answer is sure enough to be given."""
        return self.probability >= self.threshold


@dataclass(frozen=True)
class Recogniser:
    """A run that can be asked; `load_run` makes one."""

    classes: Sequence[str] = field(repr=False)
    """The characters it knows, in label order."""
    preprocess: PreprocessConfig
    """What is done to a picture before the model sees it."""
    temperature: float
    """What the logits are divided by."""
    threshold: float
    """The probability below which a character counts as not recognised."""
    model: Any = field(repr=False)
    """The Keras model: float32 [n, s, s, 1] in 0 … 1 to logits [n, classes]."""

    def read(self, picture: Picture, top: int = metrics.TOP) -> Reading:
        """The `top` likeliest characters of a picture of one. Raises UserError for one that can't be read."""
        (answer,) = self.read_all([picture], top)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def read_all(self, pictures: Iterable[Picture], top: int = metrics.TOP) -> Iterator[Reading | UserError]:
        """An answer for each picture, in order, or why there is none; many go through the model at once."""
        return self.answers((prepared(picture, str(number)) for number, picture in enumerate(pictures)), top)

    def answers(
        self, entries: Iterable[Character | UserError], top: int = metrics.TOP
    ) -> Iterator[Reading | UserError]:
        """As read_all, of pictures that are prepared already."""
        entries = iter(entries)
        while True:
            with _opencv_as_in_conversion():
                batch = [self._seen(entry) for entry in islice(entries, _BATCH)]
            if not batch:
                return
            images = [entry.bitmap for entry in batch if isinstance(entry, Character)]
            candidates = iter(self._candidates(np.stack(images), top) if images else [])
            for entry in batch:
                if isinstance(entry, Character):
                    yield Reading(entry.name, entry.bitmap, next(candidates), self.threshold)
                else:
                    yield entry

    def _seen(self, entry: Character | UserError) -> Character | UserError:
        """With the very sample that the conversion would have made, uint8 [size, size], in place of the bitmap."""
        if isinstance(entry, UserError):
            return entry
        try:
            return Character(entry.name, preprocess(entry.bitmap, self.preprocess).image)
        except Unusable as error:
            return UserError(f"{entry.name}: {REJECT_REASONS[error.reason]}; choose another picture")

    @cached_property
    def _forward(self) -> Any:
        """uint8 [n, size, size, 1] to logits, as one graph: layer by layer a single image takes six times as long."""
        import tensorflow as tf

        from model.network.vgg import normalize

        size = self.preprocess.image_size
        spec = tf.TensorSpec([None, size, size, 1], tf.uint8)
        return tf.function(lambda images: self.model(normalize(images), training=False), [spec], autograph=False)

    def _candidates(self, images: np.ndarray, top: int) -> list[list[tuple[str, float]]]:
        logits = self._forward(images[..., None]).numpy()
        probabilities = metrics.softmax(logits / self.temperature)
        best = metrics.best(probabilities, top)
        return [
            [(self.classes[label], float(likely[label])) for label in order]
            for likely, order in zip(probabilities, best, strict=True)
        ]


def load_run(folder: str | Path = BOX, threshold: float | None = None) -> Recogniser:
    """The run in `folder`, or the recogniser in the box, with `threshold` in place of its own. Raises UserError."""
    run = read_run(Path(folder))
    trust = read_calibration(run.folder)
    threshold = trust.threshold if threshold is None else threshold
    return Recogniser(run.classes.characters, run.preprocess, trust.temperature, threshold, load_model(run))


def prepared(picture: Picture, name: str = "") -> Character | UserError:
    """What a picture shows, on white paper, or why it can't be read; `name` is that of an array."""
    try:
        if not isinstance(picture, np.ndarray):
            return Character(str(picture), read_picture(Path(picture)))
        flat = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
        if picture.dtype != np.uint8 or not flat or not picture.size:
            raise UserError(
                f"picture {name}: expected uint8 [h, w], [h, w, 3] or [h, w, 4], found {picture.dtype} "
                f"{list(picture.shape)}; convert it"
            )
        return Character(name, to_bitmap(picture, name))
    except UserError as error:
        return error


@contextlib.contextmanager
def _opencv_as_in_conversion() -> Iterator[None]:
    """Pins OpenCV, so that a picture becomes the same sample, and gives the caller's settings back."""
    threads, ipp = cv2.getNumThreads(), cv2.ipp.useIPP() if hasattr(cv2, "ipp") else None
    pin_opencv()
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if ipp is not None:
            cv2.ipp.setUseIPP(ipp)
