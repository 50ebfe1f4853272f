"""How many operations a model takes, and how many a device could do: the share is what a benchmark tells."""

from __future__ import annotations

import math
from typing import Any

PEAK_TFLOPS = {
    # Vendors' figures without sparsity: (16 bits, float32). float32 is TF32 where there is one: TensorFlow uses it.
    "H200": (989.0, 494.0),
    "H100 PCIe": (756.0, 378.0),
    "H100": (989.0, 494.0),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "L4": (121.0, 60.0),
    "A10": (125.0, 62.5),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
}
"""Part of a device's name -> TFLOP/s. The first that fits counts."""


def peak_tflops(device: str, precision: str) -> float | None:
    """TFLOP/s of one device, None where it isn't known."""
    for name, (short, full) in PEAK_TFLOPS.items():
        if all(part in device.replace("-", " ").split() for part in name.split()):
            return full if precision == "float32" else short
    return None


def peak_of(devices: list[str], precision: str, replicas: int) -> float | None:
    """TFLOP/s of the devices in use together, None where one isn't known; more replicas than devices share them."""
    peaks = [peak_tflops(name, precision) for name in devices[: max(1, replicas)]]
    return None if not peaks or None in peaks else math.fsum(peak for peak in peaks if peak is not None)


def forward_flops(model: Any) -> int:
    """Operations of one image's forward pass: two for each multiplication of its convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "Conv2D":
            rows, columns, filters = layer.output.shape[1:]
            total += 2 * rows * columns * filters * math.prod(layer.kernel.shape[:3])
        elif kind == "Dense":
            total += 2 * math.prod(layer.kernel.shape)
    return int(total)


def training_flops(model: Any) -> int:
    """Of one image, forward and backward: gradients of inputs and of weights take a forward pass's worth each."""
    return 3 * forward_flops(model)
