"""The floor of a conversion: the library calls of the six steps on every record, one process per core, nothing kept.

No label, no digest, no manifest, no Example, no byte written: what stands above it is what a data set costs. The calls
are pipeline.steps.plain's, with its shortcuts: one table stretches and inverts, and the edges take one array.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import cv2
import numpy as np

from pipeline.source import gnt
from pipeline.steps.plain import denoise, pin_opencv
from pipeline.steps.settings import EDGE_LEVEL, PreprocessConfig

_INNER = PreprocessConfig().image_size - 2 * PreprocessConfig().margin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    arguments = parser.parse_args()
    with multiprocessing.Pool(initializer=pin_opencv) as pool:
        records = sum(pool.imap_unordered(through_the_steps, sorted(Path(arguments.input).glob("*.gnt"))))
    print(f"{records:,} records")


def through_the_steps(path: Path) -> int:
    """Reads a member and puts each record through the steps that are on by default; returns how many there were."""
    config = PreprocessConfig()
    octets = np.fromfile(path, np.uint8)
    records = gnt.walk(octets.data)
    median, otsu = config.denoise == "median", config.binarize == "otsu"
    neighbours = np.ones((3, 3), np.uint8)
    levels = np.arange(256, dtype=np.uint8)  # any table costs the same
    inverted = 255 - levels
    rows = zip(records.offset.tolist(), records.width.tolist(), records.height.tolist(), strict=True)
    for offset, width, height in rows:
        begin = offset + gnt.HEADER_BYTES
        grey = octets[begin : begin + width * height].reshape(height, width)
        if median:
            grey = denoise(grey)
        cv2.minMaxLoc(grey)
        if otsu:
            stretched = cv2.LUT(grey, levels)
            ink = edges = cv2.threshold(stretched, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]
        else:
            ink = cv2.LUT(grey, inverted)
            edges = cv2.erode(ink, neighbours, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            cv2.subtract(ink, edges, dst=edges)
            cv2.threshold(edges, EDGE_LEVEL - 1, 255, cv2.THRESH_BINARY, dst=edges)
        x, y, w, h = cv2.boundingRect(edges)
        if w:
            scale = _INNER / max(w, h)
            size = (max(1, round(w * scale)), max(1, round(h * scale)))
            cv2.resize(ink[y : y + h, x : x + w], size, interpolation=cv2.INTER_LINEAR_EXACT)
    return len(records)


if __name__ == "__main__":
    main()
