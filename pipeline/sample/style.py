"""A writer: the habits that all records of one hand have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KNOTS = 7
"""Knots of a sheet of distortion, each way."""


@dataclass(frozen=True)
class WriterStyle:
    """Lengths are in parts of the em square where nothing else is said."""

    source: float
    """Which of the sources of strokes this writer learned from, 0 ... 1."""
    hurry: float
    """From 0, careful, to 1, running: how much is joined, rounded and left out."""
    size: float
    """Height of the em square in pixels."""
    aspect: float
    """Width over height."""
    slant: float
    """How far the top leans to the right, in parts of the height."""
    rise: float
    """How far horizontal strokes climb to the right, in parts of the width."""
    joining: float
    """How readily the pen stays on the paper between two strokes."""
    roundness: float
    """How far corners are rounded, 0 ... 1."""
    hookless: float
    """The share of hooks left out."""
    flick: float
    """How often a stroke ends in a flick towards the next one."""
    lengths: tuple[float, float]
    """How much longer than usual horizontal and vertical strokes are, in parts of their length."""
    bow: float
    """How far strokes are bent to one side, in parts of their length."""
    parts: float
    """How far the parts of a character stray and change their size, as a standard deviation."""
    strokes: float
    """The same for single strokes."""
    tremor: float
    """How far the pen strays from point to point, as a standard deviation."""
    bend: float
    """How far a character is distorted as a whole, from record to record."""
    unsteadiness: float
    """How much size, aspect, slant and rise differ from record to record."""
    pen_radius: float
    """Half the width of a stroke in pixels."""
    taper: float
    """How much thinner and paler a stroke gets towards its end, 0 ... 1."""
    pressure: float
    """How much the pen's pressure wanders, as a standard deviation."""
    ligature: float
    """How thick and dark the line between two joined strokes is, 0 ... 1."""
    hollow: float
    """How much paler a stroke is at its edge than in its middle, 0 ... 1."""
    softness: float
    """How many pixels the edge of a stroke takes."""
    darkness: float
    """How dark full ink is: 255 less its grey level."""
    faintest: float
    """What is fainter, in grey levels, is paper, as in CASIA's scans, some of which lost their light strokes."""
    grain: float
    """How unevenly the paper takes the ink, 0 ... 1."""
    raggedness: float
    """How far a stroke's edge strays, in pixels."""
    habit: tuple[float, ...]
    """The distortion this writer gives every character: 2 x KNOTS x KNOTS shifts of knots."""

    @classmethod
    def from_seed(cls, seed: int, writer: int) -> WriterStyle:
        """The style of writer number `writer` (1001 ...): the same in every data set drawn with `seed`."""
        rng = generator(seed, writer)
        hurry = rng.uniform(0, 1) ** 1.2
        size = rng.uniform(54, 84)
        return cls(
            source=rng.uniform(0, 1),
            hurry=hurry,
            size=size,
            aspect=rng.uniform(0.6, 1.3),
            slant=0.04 + 0.14 * rng.standard_normal(),
            rise=0.1 + 0.09 * rng.standard_normal(),
            joining=rng.uniform(0, 1) * (0.3 + hurry),
            roundness=min(1.0, rng.uniform(0, 0.5) + 0.6 * hurry * rng.uniform(0, 1)),
            hookless=rng.uniform(0, 0.7),
            flick=0.5 * hurry * rng.uniform(0, 1),
            lengths=(0.12 * rng.standard_normal(), 0.1 * rng.standard_normal()),
            bow=0.04 * rng.standard_normal(),
            parts=rng.uniform(0.02, 0.065),
            strokes=rng.uniform(0.01, 0.032) * (0.7 + 0.6 * hurry),
            tremor=rng.uniform(0.001, 0.008),
            bend=rng.uniform(0.012, 0.035),
            unsteadiness=rng.uniform(0.02, 0.06),
            pen_radius=size * rng.uniform(0.019, 0.036),
            taper=rng.uniform(0.0, 0.7),
            pressure=rng.uniform(0.05, 0.25),
            ligature=rng.uniform(0.4, 0.95),
            hollow=rng.uniform(0.2, 0.75),
            softness=rng.uniform(0.9, 2.0),
            darkness=rng.uniform(130, 250),
            faintest=rng.uniform(5, 5 + 45 * rng.uniform(0, 1)),
            grain=rng.uniform(0.05, 0.28),
            raggedness=rng.uniform(0.02, 0.18),
            habit=tuple((0.025 * rng.standard_normal(2 * KNOTS**2)).tolist()),
        )


def record_generator(seed: int, writer: int, tag: bytes, take: int = 0) -> np.random.Generator:
    """The generator of one record; `take` counts the times this writer wrote this character."""
    return generator(seed, writer, int.from_bytes(tag, "big"), take)


def generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
