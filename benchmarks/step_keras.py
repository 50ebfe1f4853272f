"""What benchmarks/step.py runs for Keras: model.fit on one batch again and again; prints images a second.

fit takes uint8 and scales in the model. An epoch ends when its metrics are on the host, so its seconds are whole.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from model.network.devices import setup_tensorflow

_ROUNDS = 5


def main() -> None:
    shape = json.loads(sys.argv[1])
    setup_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from model.network.vgg import build_vgg

    size = shape["image_size"]
    vgg = build_vgg(
        shape["arch"], size, 1, shape["classes"], width=shape["width"], head="pool", dropout=shape["dropout"],
        dtype=shape["policy"],
    )  # fmt: skip
    grey = keras.Input((size, size, 1), dtype="uint8")
    model = keras.Model(grey, vgg(keras.layers.Rescaling(1 / 255, dtype="float32")(grey)))
    steps_per_execution = shape["steps_per_execution"]
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.05, global_clipnorm=5.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=shape["xla"],
        steps_per_execution=steps_per_execution,
    )
    with np.load(shape["batch_file"]) as batch:
        batches = tf.data.Dataset.from_tensors((batch["images"], batch["labels"])).repeat().prefetch(2)

    class Watch(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, *_: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    def epochs_of(executions: int) -> list[float]:
        """Seconds of each epoch but the first, which compiles or traces; fit's own start isn't in any."""
        watch, steps = Watch(), executions * steps_per_execution
        model.fit(batches, steps_per_epoch=steps, epochs=1 + _ROUNDS, verbose=0, callbacks=[watch])
        return watch.seconds[1:]

    once = statistics.median(epochs_of(1))
    executions = max(1, round(shape["seconds"] / _ROUNDS / once))
    print(shape["batch"] * steps_per_execution * executions / statistics.median(epochs_of(executions)))


if __name__ == "__main__":
    main()
