"""A contact sheet of drawn handwriting: characters of many-characters, each in a hand of its own.

python benchmarks/box_sheet.py sheet.png [--strokes FOLDER] [--font FILE ...] [--seed 1]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from pipeline.sample.files import SampleConfig, sources_of
from pipeline.sample.handwriting import draw
from pipeline.sample.strokes import strokes_from
from pipeline.sample.style import WriterStyle, record_generator
from schemas.classes import tag_of

CHARACTERS = "瓣银会涉俯序祖针砒酱养踢苯纶泄蛤祸勋素庙窍去嚼要妖锋碑踩宰恋漫怀揪进办已芦吨抚情杖嫡己衷豺发图酿鸽绪"
COLUMNS, CELL = 17, 76


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--strokes", type=Path)
    parser.add_argument("--font", type=Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    sources = sources_of(SampleConfig(Path("nowhere"), font=flags.font, strokes=flags.strokes))
    cells = []
    for number, character in enumerate(CHARACTERS):
        style = WriterStyle.from_seed(flags.seed, 1001 + number)
        strokes = strokes_from(sources, style.source, character)
        cells.append(draw(strokes, style, record_generator(flags.seed, 1001 + number, tag_of(character))))
    cv2.imwrite(str(flags.sheet), sheet(cells))


def sheet(bitmaps: list[np.ndarray]) -> np.ndarray:
    """uint8 [h, w]: the bitmaps in rows of COLUMNS."""
    rows = -(-len(bitmaps) // COLUMNS)
    page = np.full((rows * CELL, COLUMNS * CELL), 255, np.uint8)
    for number, bitmap in enumerate(bitmaps):
        scale = min(1.0, (CELL - 8) / max(bitmap.shape))
        small = cv2.resize(bitmap, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        y, x = (
            number // COLUMNS * CELL + (CELL - small.shape[0]) // 2,
            number % COLUMNS * CELL + (CELL - small.shape[1]) // 2,
        )
        page[y : y + small.shape[0], x : x + small.shape[1]] = small
    return page


if __name__ == "__main__":
    main()
