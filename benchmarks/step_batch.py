"""What benchmarks/step.py runs first: writes the batch that every row trains on; prints what every row is told.

    python benchmarks/step_batch.py DATA ARCH WIDTH BATCH FILE

A process of its own, since the device's memory stays taken as long as the process lives. The batch is the data set's
first one, which model.benchmark takes, too: FILE is an .npz of `images`, uint8 [B, s, s, 1], and `labels`, int32 [B].
"""

from __future__ import annotations

import json
import sys

from model.network.devices import setup_tensorflow
from model.train.options import TrainConfig


def main() -> None:
    folder, arch, width, batch, file = sys.argv[1:]
    setup_tensorflow()
    import numpy as np

    from model.benchmark.timing import machine
    from model.data.batches import training_source
    from model.network.flops import peak_tflops, training_flops
    from model.network.vgg import build_vgg
    from model.train.steps.step import policy_of, resolve_precision
    from pipeline.reader.dataset import open_dataset

    config = TrainConfig(folder, "", arch=arch, width=float(width), global_batch=int(batch))
    data = open_dataset(folder)
    card = data.card
    source = training_source(
        data.records(config.split), mode="memory", global_batch=config.global_batch, seed=config.seed
    )
    ((images, labels),) = next(iter(source.batches(0, 1)))
    np.savez(file, images=images.numpy(), labels=labels.numpy())
    model = build_vgg(arch, card.image_size, 1, card.class_count, width=config.width, head="pool")
    precision = resolve_precision("auto")
    gpus = machine()["gpus"]
    shape = {
        "arch": arch, "width": config.width, "dropout": config.dropout, "batch": config.global_batch,
        "image_size": card.image_size, "classes": card.class_count, "precision": precision,
        "policy": policy_of(precision), "flops": training_flops(model), "gpu": gpus[0] if gpus else None,
        "peak_tflops": peak_tflops(gpus[0], precision) if gpus else None,
    }  # fmt: skip
    print(json.dumps(shape))


if __name__ == "__main__":
    main()
