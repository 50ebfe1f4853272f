"""What benchmarks/step.py runs for PyTorch: a compiled step on one batch again and again; prints images a second.

The same VGG19: batch normalisation after every convolution, the normalised mean of each map, dropout and one layer;
16 bits by autocast, channels last, fused AdamW. To a GPU the uint8 batch travels from pinned memory in each step. It
needs torch and numpy, and nothing of this project.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

_BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_FILTERS = (64, 128, 256, 512, 512)
_ROUNDS = 5


def main() -> None:
    shape = json.loads(sys.argv[1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = _vgg(shape).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05, fused=True)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(shape["precision"])
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    with np.load(shape["batch_file"]) as file:
        # One channel: [B, s, s, 1] and [B, 1, s, s] are the same bytes.
        batch = [torch.from_numpy(file["images"]).movedim(3, 1).contiguous(), torch.from_numpy(file["labels"])]
    if device.type == "cuda":
        batch = [values.pin_memory() for values in batch]

    @torch.compile
    def loss_of(images: Any, labels: Any) -> Any:
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            logits = model(images.to(torch.float32).div(255).contiguous(memory_format=torch.channels_last))
        return nn.functional.cross_entropy(logits.float(), labels.long())

    def step() -> None:
        images, labels = (values.to(device, non_blocking=True) for values in batch)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss_of(images, labels)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()

    def seconds(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds(3)
    count = max(1, round(shape["seconds"] / _ROUNDS / (seconds(2) / 2)))
    print(shape["batch"] * count / statistics.median(seconds(count) for _ in range(_ROUNDS)))


def _vgg(shape: dict[str, Any]) -> nn.Module:
    layers: list[nn.Module] = []
    channels, side = 1, shape["image_size"]
    for convolutions, full in zip(_BLOCKS[shape["arch"]], _FILTERS, strict=True):
        filters = max(1, round(full * shape["width"]))
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(True)]
            channels = filters
        if side >= 2:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels), nn.Dropout(shape["dropout"]))
    return nn.Sequential(*layers, *head, nn.Linear(channels, shape["classes"]))


if __name__ == "__main__":
    main()
