"""A scanned character as a phone would see it on paper: a shadow across it, coloured ink, pale, blurred, noisy."""

from __future__ import annotations

import cv2
import numpy as np

_SIDE = 224  # pixels of a photo's sides
_INKS = ((25, 25, 35), (40, 60, 150), (150, 40, 45), (70, 75, 80), (20, 90, 60))  # black, blue, red, pencil, green


def photo_of(bitmap: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """uint8 [224, 224, 3] RGB from uint8 [h, w], 255 is paper; place and size of the character are left to chance."""
    ink = (255 - bitmap).astype(np.float32) / 255
    ink = np.pad(ink, 4)
    scale = _SIDE * random.uniform(0.45, 0.75) / max(ink.shape)
    ink = np.clip(cv2.resize(ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), 0, 1)
    height, width = ink.shape
    top, left = random.integers(0, _SIDE - height + 1), random.integers(0, _SIDE - width + 1)
    cover = np.zeros((_SIDE, _SIDE), np.float32)
    cover[top : top + height, left : left + width] = ink
    cover *= random.uniform(0.55, 1.0)  # a pen that is running dry

    paper = np.array([1.0, random.uniform(0.93, 1.0), random.uniform(0.82, 1.0)], np.float32)
    colour = np.array(_INKS[random.integers(len(_INKS))], np.float32) / 255
    page = paper * (1 - cover[:, :, None]) + colour * cover[:, :, None]
    scene = page * _light(random)[:, :, None]
    scene = cv2.GaussianBlur(scene, (0, 0), random.uniform(0.6, 2.2))
    scene += random.uniform(0.005, 0.03) * random.standard_normal(scene.shape, np.float32)
    return np.clip(np.rint(scene * 255), 0, 255).astype(np.uint8)


def _light(random: np.random.Generator) -> np.ndarray:
    """float32 [side, side]: brightness that falls across the page, and the border of a shadow on half of the photos."""
    position = np.arange(_SIDE, dtype=np.float32) / _SIDE - 0.5
    angle = random.uniform(0, 2 * np.pi)
    across = np.cos(angle) * position[None, :] + np.sin(angle) * position[:, None]
    light = random.uniform(0.6, 0.9) + random.uniform(0.0, 0.35) * across
    if random.random() < 0.5:
        depth, softness = random.uniform(0.15, 0.4), random.uniform(0.02, 0.15)
        light *= 1 - depth / (1 + np.exp(-(across - random.uniform(-0.3, 0.3)) / softness))
    return light.astype(np.float32)
