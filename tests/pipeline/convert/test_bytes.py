"""Bytes are a contract: neither engine, workers, order, folder nor packing changes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import commands
import gnt_files
import pyarrow.parquet as pq
import pytest
from commands import Run, converted, inputs

from schemas.dataset import read_card

SHARDS = ("--num_shards=train=3", "--num_shards=test=2")

GOLDEN = {
    "--preset=article": {
        "manifest/test-00000-of-00001.parquet": "7ede7c89d6abb7144896cd6c14621ffa166767dde94b400fa1f6dfe00c883bd0",
        "manifest/train-00000-of-00001.parquet": "ba2311b94ae7a9b8369d5033967781029a0e8f8383768759816296e3042c28c8",
        "test-00000-of-00001.tfrecord": "351c56652e6b7ba48974d6cb20695f6dc562594935cfeeaafa3fcc7a2d2fa976",
        "train-00000-of-00001.tfrecord": "d8ce23732160bfd771c65bfbeff783317d86113a7b57dcbc4613c2c6386bfc71",
    },
    "--preset=best": {
        "manifest/test-00000-of-00001.parquet": "435a8f6ec166ff21232de53465201e9e269ea11da237c2f1337f1b340fdaa31f",
        "manifest/train-00000-of-00001.parquet": "ea0a75a1f244deed372167c5c38db79e48e8c13094d9815262ec4e1bfa00daed",
        "test-00000-of-00001.tfrecord": "af0a5c266c4137490a5c7708b082e623375c56ba5fde231e098655ce37084186",
        "train-00000-of-00001.tfrecord": "0630e7a0d924b143c07871e8eed68298d8ae2ff9fe9d48c0fb038d43ca57ccad",
    },
    "--image_encoding=png": {
        "manifest/test-00000-of-00001.parquet": "7f7fe66ff91f7fbaa7d4177977a9a05cc56d8d0f4eadaec6a57e9c4e33a0d7bc",
        "manifest/train-00000-of-00001.parquet": "a0840d8ced50b4f44523cbf2f846c86c7a38af50cc60345a72c0de25613c6bca",
        "test-00000-of-00001.tfrecord": "52db33a078a59f2860a263c569f8eb0f88c75d802a9a29eacb425567d071fe14",
        "train-00000-of-00001.tfrecord": "2bb70acca3a5bf5f0907d16c2dec118b9d973a8521704c982eadc917d5e4a48a",
    },
}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every shard and manifest file."""
    found = commands.digests(folder)
    return {name: digest for name, digest in found.items() if name.endswith((".tfrecord", ".parquet"))}


@pytest.fixture(scope="module")
def reference(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference") / "out"
    return digests(converted(folder, *inputs(archives), *SHARDS, "--direct_num_workers=1"))


@pytest.mark.parametrize("flag", list(GOLDEN))
def test_golden_digests(archives: Path, tmp_path: Path, convert: Run, flag: str) -> None:
    """These change only with FORMAT_VERSION, or with a library named on the card; the CHANGELOG says why."""
    status, _, _ = convert(*inputs(archives), flag, f"--output={tmp_path}/o")
    assert status == 0
    assert digests(tmp_path / "o") == GOLDEN[flag]


def test_the_card_knows_the_digests(archives: Path, tmp_path: Path, convert: Run) -> None:
    convert(f"--input=train={archives}/train", SHARDS[0], f"--output={tmp_path}/o")
    shards = read_card(tmp_path / "o").split("train").shards
    known = {shard.path: shard.sha256 for shard in shards} | {s.manifest_path: s.manifest_sha256 for s in shards}
    assert known == digests(tmp_path / "o")


@pytest.mark.parametrize(
    "flags",
    [
        ("--direct_running_mode=in_memory",),
        ("--direct_runner_bundle_repeat=1",),
        ("--direct_running_mode=multi_threading", "--direct_num_workers=3"),
        pytest.param(("--direct_running_mode=multi_processing", "--direct_num_workers=2"), marks=pytest.mark.engine),
        pytest.param(("--direct_num_workers=2", "--direct_runner_bundle_repeat=1"), marks=pytest.mark.engine),
    ],
    ids=" ".join,
)
def test_however_it_is_run(
    archives: Path, tmp_path: Path, convert: Run, reference: dict[str, str], flags: tuple[str, ...]
) -> None:
    status, _, err = convert(*inputs(archives), *SHARDS, f"--output={tmp_path}/o", *flags)
    assert (status, err) == (0, "")
    assert digests(tmp_path / "o") == reference


@pytest.mark.engine
def test_as_a_newcomer_runs_it(archives: Path, tmp_path: Path, reference: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pipeline.convert", *inputs(archives), *SHARDS, f"--output={tmp_path}/o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert digests(tmp_path / "o") == reference


@pytest.mark.engine
def test_what_a_newcomers_worker_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "1001-c.gnt").write_bytes(bytes(1_000))
    command = [sys.executable, "-m", "pipeline.convert", f"--input={tmp_path}", f"--output={tmp_path}/o"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
    assert "--max_reject_fraction" in refused.stderr


def test_in_any_order_and_from_any_folder(
    archives: Path, tmp_path: Path, convert: Run, reference: dict[str, str]
) -> None:
    moved = []
    for member in sorted(archives.glob("train/*.gnt"), reverse=True):
        folder = tmp_path / "elsewhere" / member.stem
        folder.mkdir(parents=True)
        shutil.copy(member, folder)
        moved.append(f"--input=train={folder / member.name}")
    convert(f"--input=test={archives}/test/*.gnt", *moved, *SHARDS, f"--output={tmp_path}/o")
    assert digests(tmp_path / "o") == reference


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_from_a_zip_only_the_archive_column_differs(
    archives: Path, tmp_path: Path, convert: Run, reference: dict[str, str], compression: int
) -> None:
    for split in ("train", "test"):
        members = {f"HWDB/{path.name}": path.read_bytes() for path in archives.glob(f"{split}/*.gnt")}
        gnt_files.write_zip(tmp_path / f"{split}.zip", members, compression)
    zips = [f"--input=train={tmp_path}/train.zip", f"--input=test={tmp_path}/test.zip"]
    convert(*zips, *SHARDS, f"--output={tmp_path}/zipped")
    convert(*inputs(archives), *SHARDS, f"--output={tmp_path}/loose")
    found = digests(tmp_path / "zipped")
    assert {n: d for n, d in found.items() if n.endswith("tfrecord")} == {
        n: d for n, d in reference.items() if n.endswith("tfrecord")
    }
    for part in sorted((tmp_path / "zipped/manifest").iterdir()):
        zipped, loose = pq.read_table(part), pq.read_table(tmp_path / "loose/manifest" / part.name)
        assert set(zipped["archive"].to_pylist()) <= {"train.zip", "test.zip"}
        assert zipped.drop(["archive"]) == loose.drop(["archive"])
        assert zipped["archive"] != loose["archive"]


def test_raw_and_png_hold_the_same_images(archives: Path, tmp_path: Path, convert: Run) -> None:
    import tensorflow as tf

    images: dict[str, dict[bytes, bytes]] = {}
    for encoding in ("raw", "png"):
        out = tmp_path / encoding
        convert(f"--input={archives}/train", f"--image_encoding={encoding}", f"--output={out}")
        images[encoding] = {}
        for serialized in tf.data.TFRecordDataset([str(p) for p in out.glob("*.tfrecord")]):
            feature = tf.train.Example.FromString(serialized.numpy()).features.feature
            image = feature["image"].bytes_list.value[0]
            pixels = tf.io.decode_png(image).numpy().tobytes() if encoding == "png" else image
            images[encoding][feature["sample_id"].bytes_list.value[0]] = pixels
    assert images["raw"] == images["png"]
    assert len(images["raw"]) == 3 * 38
