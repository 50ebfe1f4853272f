"""Three characters of straight strokes, and a recogniser that knows them by their shapes alone."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from model.answers.reading import Recogniser
from pipeline.steps.plain import preprocess
from pipeline.steps.settings import PreprocessConfig

STROKES = {
    "一": [[(0.1, 0.5), (0.9, 0.5)]],
    "十": [[(0.1, 0.5), (0.9, 0.5)], [(0.5, 0.1), (0.5, 0.9)]],
    "口": [[(0.2, 0.2), (0.2, 0.8)], [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)], [(0.2, 0.8), (0.8, 0.8)]],
}
"""Character -> strokes of points (x, y), in sides of the field they are drawn in."""


def picture_of(character: str, side: int = 90, pen: int = 4) -> np.ndarray:
    """uint8 [side, side], black strokes on white."""
    canvas = np.full((side, side), 255, np.uint8)
    for stroke in STROKES[character]:
        points = (np.array(stroke) * side).round().astype(np.int32)
        cv2.polylines(canvas, [points], isClosed=False, color=0, thickness=pen, lineType=cv2.LINE_AA)
    return canvas


def shapes_recogniser() -> Recogniser:
    """Its logits are how much of the ink, blurred, is where a shape's is."""
    config = PreprocessConfig()
    shapes = np.stack([_blurred(preprocess(picture_of(character), config).image / 255.0) for character in STROKES])

    def logits(images: np.ndarray) -> np.ndarray:
        inks = np.stack([_blurred(image[..., 0]) for image in images])
        return 30 * np.einsum("nhw,chw->nc", inks, shapes)

    def model(images: Any, training: bool = False) -> Any:
        assert not training
        return tf.numpy_function(logits, [images], tf.float64)

    return Recogniser(tuple(STROKES), config, temperature=1.0, threshold=0.5, model=model)


def _blurred(ink: np.ndarray) -> np.ndarray:
    """float64 [h, w], of unit length."""
    blurred = cv2.GaussianBlur(ink.astype(np.float64), (0, 0), 4)
    unit: np.ndarray = blurred / np.linalg.norm(blurred)
    return unit
