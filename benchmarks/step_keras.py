"""What benchmarks/step.py runs for Keras: model.fit on one batch again and again; prints images a second."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from model.devices import setup_tensorflow

_ROUNDS = 5


def main() -> None:
    shape = json.loads(sys.argv[1])
    setup_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from model.vgg import build_vgg

    model = build_vgg(
        shape["arch"], shape["image_size"], 1, shape["classes"], width=shape["width"], head="pool",
        dtype=shape["policy"],
    )  # fmt: skip
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.05, global_clipnorm=5.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=shape["xla"],
    )
    rng = np.random.default_rng(0)
    size = shape["image_size"]
    images = rng.integers(0, 256, (shape["batch"], size, size, 1), np.uint8)
    labels = rng.integers(0, shape["classes"], shape["batch"], np.int32)

    def floating(images: Any, labels: Any) -> tuple[Any, Any]:
        return tf.cast(images, tf.float32) / 255, labels

    batches = tf.data.Dataset.from_tensors((images, labels)).repeat().map(floating).prefetch(2)
    model.fit(batches, steps_per_epoch=2, epochs=1, verbose=0)
    began = time.perf_counter()
    model.fit(batches, steps_per_epoch=2, epochs=1, verbose=0)
    once = (time.perf_counter() - began) / 2
    steps = max(1, round(shape["seconds"] / _ROUNDS / once))
    seconds = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, *_: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    model.fit(batches, steps_per_epoch=steps, epochs=_ROUNDS, verbose=0, callbacks=[Watch()])
    print(shape["batch"] * steps / statistics.median(seconds))


if __name__ == "__main__":
    main()
