"""A packed run: the same answers from a fraction of the bytes, and one line where its weights aren't its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_run import CHARACTERS, make_run

from model.answers.compact import pack
from model.answers.reading import load_run
from model.answers.run import CONFIG, MODEL, WEIGHTS, load_model, read_run
from model.network.vgg import build_vgg
from schemas.errors import UserError


def packed(tmp_path: Path) -> tuple[Path, Path]:
    network = {"width": 0.125, "head": "pool", "dense_width": 512, "batch_norm": True}
    whole, small = (
        make_run(tmp_path / "whole", train={"data": "/my/shards", "epochs": 3}, **network),
        tmp_path / "small",
    )
    model = build_vgg("vgg11", 64, 1, len(CHARACTERS), width=0.125, head="pool")
    random = np.random.default_rng(1)
    for variable in model.weights:
        if "moving_variance" in variable.path:
            variable.assign(random.uniform(1e-6, 2, variable.shape))
    model.save(whole / MODEL)
    run = read_run(whole)
    size = pack(run, load_model(run), small)
    assert size == sum(path.stat().st_size for path in small.iterdir())
    return whole, small


def test_a_packed_run_gives_the_answers_of_the_whole_one(tmp_path: Path) -> None:
    whole, small = packed(tmp_path)
    assert not (small / MODEL).exists()
    assert (small / WEIGHTS).stat().st_size < 0.7 * (whole / MODEL).stat().st_size
    images = np.random.default_rng(3).random((16, 64, 64, 1), np.float32)
    logits = [np.asarray(load_model(read_run(folder))(images, training=False)) for folder in (whole, small)]
    assert np.ptp(logits[0]) > 0
    np.testing.assert_allclose(logits[1], logits[0], atol=4e-3 * np.abs(logits[0]).max())
    assert "/my/shards" not in (small / CONFIG).read_text()
    assert load_run(small).temperature == load_run(whole).temperature


@pytest.mark.parametrize("harm", ["torn", "another network's", "no archive"])
def test_weights_that_are_not_its_own_are_told_in_one_line(harm: str, tmp_path: Path) -> None:
    _, small = packed(tmp_path)
    path = small / WEIGHTS
    if harm == "torn":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "no archive":
        path.write_bytes(b"weights")
    else:
        with np.load(path) as arrays:
            np.savez(path, **dict(list(arrays.items())[1:]))
    with pytest.raises(UserError, match=r"weights\.npz: can't be read \(") as error:
        load_model(read_run(small))
    assert "\n" not in str(error.value)
