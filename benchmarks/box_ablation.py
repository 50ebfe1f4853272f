"""What each part of the drawn handwriting gives: small networks trained on drawings alone, asked real characters.

    python benchmarks/box_ablation.py --strokes FOLDER --font FILE ... [--variants whole fonts ...]

400 characters (300 of many-characters, and 100-characters), 30 drawings of each, every one in a hand of its own; a
VGG11 an eighth wide on 32 pixels, six epochs. Real images: half of many-characters, every tenth of 100-characters. The
other half of many-characters is kept aside. A character in 400 is easier than in 3,754: compare within the table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import gnt_files

from model.network.devices import setup_tensorflow
from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import draw
from pipeline.sample.strokes import Source, strokes_from
from pipeline.sample.style import WriterStyle, record_generator
from pipeline.steps.plain import pin_opencv, preprocess
from pipeline.steps.settings import PreprocessConfig
from schemas.classes import tag_of

DRAWINGS, EPOCHS, BATCH, SIZE, RATE = 30, 6, 64, 32, 0.006

Change = Callable[[WriterStyle], WriterStyle]
CHANGES: dict[str, Change] = {
    "whole": lambda style: style,
    "one font": lambda style: style,
    "medians alone": lambda style: style,
    "fonts alone": lambda style: style,
    "nothing joined": lambda style: replace(style, joining=0.0, flick=0.0),
    "nothing rounded": lambda style: replace(style, roundness=0.0),
    "parts and strokes in their places": lambda style: replace(
        style, parts=0.0, strokes=0.0, bow=0.0, lengths=(0.0, 0.0)
    ),
    "not bent": lambda style: replace(style, bend=0.0, habit=(0.0,) * len(style.habit)),
    "upright, of one width": lambda style: replace(style, slant=0.0, rise=0.0, aspect=0.9, unsteadiness=0.02),
    "one even pen": lambda style: replace(style, pen_radius=0.028 * style.size, taper=0.0, pressure=0.0),
    "hooks kept": lambda style: replace(style, hookless=0.0),
}


def real(folder: Path) -> list[tuple[str, str, np.ndarray]]:
    """(set, character, bitmap) of the images that are asked for."""
    found = []
    for name, pattern, every in (("many", "many-characters/*.gnt", 2), ("hundred", "100-characters/*.gnt", 10)):
        records = [r for path in sorted(folder.glob(pattern)) for r in gnt_files.parse(path.read_bytes())]
        found += [(name, tag.decode("gbk"), bitmap) for _, tag, bitmap in records[::every]]
    many = sorted({c for name, c, _ in found if name == "many"})
    chosen = {*many[:: max(1, len(many) // 300)][:300], *(c for name, c, _ in found if name == "hundred")}
    return [entry for entry in found if entry[1] in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--strokes", type=Path, required=True)
    parser.add_argument("--font", type=Path, action="append", required=True)
    parser.add_argument("--variants", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    setup_tensorflow()
    pin_opencv()
    asked = real(flags.real)
    characters = sorted({character for _, character, _ in asked})
    labels = {character: label for label, character in enumerate(characters)}
    config = PreprocessConfig(image_size=SIZE)
    pictures = np.stack([preprocess(bitmap, config).image for _, _, bitmap in asked])
    truth = np.array([labels[character] for _, character, _ in asked])
    sets = np.array([name for name, _, _ in asked])
    taught, fonts = Source(flags.strokes), [Source(path) for path in flags.font]
    mixed = [*[taught] * 2 * len(fonts), *fonts]
    sources = {"one font": [Source(font_path())], "medians alone": [taught], "fonts alone": fonts}
    print("| variant | many-characters | 100-characters | its own drawings |\n|---|---:|---:|---:|", flush=True)
    for variant in flags.variants:
        drawings, drawn = [], []
        for take in range(DRAWINGS):
            for number, character in enumerate(characters):
                writer = 1001 + take * len(characters) + number
                style = CHANGES[variant](WriterStyle.from_seed(flags.seed, writer))
                strokes = strokes_from(sources.get(variant, mixed), style.source, character)
                bitmap = draw(strokes, style, record_generator(flags.seed, writer, tag_of(character)))
                drawings.append(preprocess(bitmap, config).image)
                drawn.append(number)
        own, predicted = trained(np.stack(drawings), np.array(drawn), len(characters), pictures, flags.seed)
        right = predicted == truth
        shares = " | ".join(f"{right[sets == name].mean():.1%}" for name in ("many", "hundred"))
        print(f"| {variant} | {shares} | {own:.1%} |", flush=True)


def trained(
    images: np.ndarray, labels: np.ndarray, classes: int, asked: np.ndarray, seed: int
) -> tuple[float, np.ndarray]:
    """The share of the last epoch's images read right, and what the network takes `asked` for."""
    import keras
    import tensorflow as tf

    from model.network.augment import PRESETS, augment
    from model.network.vgg import build_vgg, normalize

    keras.utils.set_random_seed(seed)
    model = build_vgg("vgg11", SIZE, 1, classes, width=0.125, head="pool", dropout=0.1)
    steps = EPOCHS * (len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=RATE, warmup_steps=steps // 20)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.02)

    @tf.function
    def step(batch, truth, number):
        inputs = augment(normalize(batch), tf.stack([seed, number]), PRESETS["light"])
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits))
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == tf.cast(truth, tf.int64), tf.float32))

    random, number, last = np.random.default_rng(seed), 0, []
    for epoch in range(EPOCHS):
        order = random.permutation(len(images))
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[begin : begin + BATCH]
            share = step(
                tf.constant(images[chosen][..., None]), tf.constant(labels[chosen], tf.int32), tf.constant(number)
            )
            number += 1
            if epoch == EPOCHS - 1:
                last.append(float(share))
    answers = [
        np.asarray(model(normalize(asked[begin : begin + 256][..., None]), training=False)).argmax(1)
        for begin in range(0, len(asked), 256)
    ]
    return float(np.mean(last)), np.concatenate(answers)


if __name__ == "__main__":
    start = time.time()
    main()
    print(f"{(time.time() - start) / 60:.1f} minutes")
