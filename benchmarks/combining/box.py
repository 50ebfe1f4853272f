"""What lies about when a combination is tried: archives good and bad, data sets, runs, documents, odd places.

Made once a version of the product, by its own commands; every trial gets a copy.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import gnt_files
from mutations import KINDS, mutate

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "model", "schemas")
CHARACTERS = "啊阿埃挨哎唉哀皑癌蔼矮艾碍爱隘鞍氨安俺按暗岸胺案"
LIST = "in/characters.txt"
NOTES = "notes of the owner.txt"
"""In every folder a command may call its own: not the command's."""
_LONG = 900  # seconds; the first run of a version compiles, imports TensorFlow, trains
_STANDARD = ("--classes", LIST, "--num_shards", "train=2")
_RUN = ("--arch", "vgg11", "--width", "0.0625", "--global_batch", "8", "--steps", "4", "--xla")


def version() -> str:
    """Changes with the product's source."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def environment(box: Path) -> dict[str, str]:
    """The plain one: a home and a folder for temporary files of its own."""
    (box / "tmp").mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(box / "home"), "TMPDIR": str(box / "tmp"), "PYTHONPATH": str(ROOT)}


def fill(box: Path, user: int | None) -> None:
    """Everything, in an empty folder that belongs to who runs the commands. Raises CalledProcessError."""
    archives(box / "in")
    for folder in ("home", "out/empty", "out/locked", "out/odd [dir]", "documents/thesis", "sets", "runs"):
        (box / folder).mkdir(parents=True)
    for name in ("letter.txt", "thesis/chapter 1.txt", "0000.png", "report.html", "sheet.png", "notes.json"):
        (box / "documents" / name).write_bytes(f"{name}: written by a person\n".encode() * 30)
    shutil.copytree(box / "documents", box / "home" / "documents")
    shutil.copytree(box / "in" / "good", box / "home" / "good")
    shutil.copytree(ROOT / "tests" / "data" / "format-1.0.0" / "raw", box / "sets" / "old")
    (box / "in" / "dangling").symlink_to("nowhere")
    (box / "out" / "link").symlink_to("../sets/raw")
    (box / "out" / "dangling").symlink_to("nowhere")
    (box / "out" / "loop").symlink_to("loop")
    if user is not None:
        own(box, user)
    inputs = ("--input", "train=in/good", "test=in/test", *_STANDARD)
    first = ("--staging", "sets/kept", "--keep_staging", "--input", "validation=in/good2")
    command(box, user, "pipeline.convert", *inputs, *first, "--output", "sets/raw")
    command(box, user, "pipeline.convert", *inputs, "--image_encoding", "png", "--output", "sets/png")
    command(box, user, "pipeline.convert", "--input", "train=in/good2", *_STANDARD, "--output", "sets/other")
    interrupt(box, user, "pipeline.convert", *inputs, "--output", "sets/unfinished")
    command(box, user, "pipeline.inspect", "sets/raw", "--html", "out/report.html")
    command(box, user, "model.train", "--data", "sets/raw", "--model_dir", "runs/run", *_RUN)
    command(box, user, "model.evaluate", "--data", "sets/raw", "--model", "runs/run", "--split", "test")
    command(box, user, "model.export", "--model", "runs/run", "--format", "saved_model")
    shutil.copytree(box / "runs" / "run", box / "runs" / "unfinished")
    for name in ("model.keras", "report.html", "calibration.json"):
        (box / "runs" / "unfinished" / name).unlink(missing_ok=True)
    shutil.copytree(box / "sets" / "unfinished", box / "sets" / "unfinished, with notes")
    noted = ("raw", "unfinished, with notes", "kept", "../runs/run", "../runs/unfinished/saved_model")
    for folder in (box / "sets" / name for name in noted):
        (folder / NOTES).write_text("not the command's\n")
    for path in (box / "tmp").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def own(box: Path, user: int) -> None:
    """Gives everything to a user."""
    for folder, folders, names in os.walk(box):
        for name in (".", *folders, *names):
            os.chown(os.path.join(folder, name), user, user, follow_symlinks=False)


def started(user: int | None, *words: Any) -> list[Any]:
    """A Python command; as a user who may read what root may, but not write it."""
    right = "+dac_read_search"  # an interpreter in root's home
    rights: list[Any] = [
        shutil.which("setpriv"),
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        f"--inh-caps={right}",
        f"--ambient-caps={right}",
    ]
    return [*(rights if user is not None else ()), sys.executable, *words]


def command(box: Path, user: int | None, module: str, *flags: str) -> None:
    arguments = started(user, "-m", module, *flags)
    subprocess.run(arguments, cwd=box, env=environment(box), check=True, timeout=_LONG, stdout=subprocess.DEVNULL)


def interrupt(box: Path, user: int | None, module: str, *flags: str) -> None:
    """Kills a conversion once its first piece is staged."""
    process = subprocess.Popen(
        started(user, "-m", module, *flags),
        cwd=box,
        env=environment(box),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list((box / "sets" / "unfinished").glob("**/chunk-*.json")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def archives(folder: Path) -> None:
    """What a conversion may be given."""
    for name in (
        "good",
        "good2",
        "test",
        "mixed",
        "HWDB [2020]",
        "empty folder",
        "loops/a",
        "folder.gnt",
        "both/train",
    ):
        (folder / name).mkdir(parents=True)
    members = {f"{1001 + i}-c.gnt": member(i) for i in range(3)}
    written = {
        **{f"good/{name}": data for name, data in members.items()},
        **{f"good2/{2001 + i}-c.gnt": member(10 + i) for i in range(2)},
        "test/1241-c.gnt": member(7),
        "HWDB [2020]/1001-c.gnt": member(0),
        "mixed/1001-c.gnt": member(0),
        "mixed/1002-c.rar": b"Rar!\x1a\x07\x01\x00" + bytes(400),
        "mixed/1003-c.gnt.gz": b"\x1f\x8b\x08\x00" + bytes(300),
        "mixed/1004-c.gnt": b"<!DOCTYPE html><html><body>404</body></html>",
        "mixed/1005-c.gnt": b"",
        "mixed/.DS_Store": bytes(64),
        "both/train/1001-c.gnt": member(0),
        "cut.gnt": member(1)[: len(member(1)) // 10],
        "random.gnt": random.Random(1).randbytes(30_000),
        "rar.gnt": b"Rar!\x1a\x07\x01\x00" + random.Random(2).randbytes(20_000),
        "zip.gnt": packed(members),
        "empty.gnt": b"",
        "empty.zip": packed({}),
        "none.zip": packed({"readme.txt": b"nothing here", "a.rar": b"Rar!\x1a\x07\x01\x00"}),
        "html.zip": b"<html><body>Moved</body></html>",
        "good.zip": packed(members),
        "cut.zip": packed(members)[:-300],
        "twice.zip": packed({"a/1001-c.gnt": member(0), "b/1001-c.gnt": member(1)}),
        "outside.zip": packed({"../../1001-c.gnt": member(0), "/etc/1002-c.gnt": member(1)}),
        "upper.zip": packed({"1001-C.GNT": member(0), "1001-F.GNT": member(1), "__MACOSX/._1001-C.GNT": b"\0" * 90}),
        "gbk.zip": packed({f"{name}.gnt": member(i) for i, name in enumerate(("謀", "誠", "王"))}, "gbk"),
        "bomb.zip": packed({"1001-c.gnt": bytes(300 << 20)}),
        "tiny.gnt": gnt_files.member([(gnt_files.tag("啊"), gnt_files.strokes(1)[:1, :1])] * 3000),
        "with space.gnt": member(2),
        "new\nline.gnt": member(2),
        "-dash.gnt": member(2),
        "train=2.gnt": member(2),
        f"{'long' * 60}.gnt": member(2),
        "characters.txt": "".join(f"{character}\n" for character in CHARACTERS).encode(),
        "latin.txt": "é\nü\n".encode("latin-1"),
        "picture.png": cv2.imencode(".png", gnt_files.strokes(3))[1].tobytes(),
        "torn.png": cv2.imencode(".png", gnt_files.strokes(3))[1].tobytes()[:200],
        "picture.jpg": cv2.imencode(".jpg", gnt_files.strokes(3))[1].tobytes(),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    shutil.copytree(folder / "test", folder / "both" / "test")
    os.link(folder / "good" / "1001-c.gnt", os.fsencode(folder) + b"/\xff\xfe.gnt")
    os.mkfifo(folder / "fifo.gnt")
    (folder / "loops" / "a" / "back").symlink_to("..")
    (folder / "loops" / "1001-c.gnt").symlink_to("../good/1001-c.gnt")
    (folder / "loops" / "1002-c.gnt").symlink_to("1002-c.gnt")


def member(seed: int) -> bytes:
    return gnt_files.member(gnt_files.records_of(CHARACTERS + "A！", seed))


class _Entry(zipfile.ZipInfo):
    """A member whose name is in a code page and not flagged, as older archivers write it."""

    raw: bytes | None = None

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return (self.raw, self.flag_bits & ~0x800) if self.raw else super()._encodeFilenameFlags()  # type: ignore[misc]


def packed(members: Mapping[str, bytes], code_page: str | None = None) -> bytes:
    """A zip of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            entry = _Entry(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.raw = name.encode(code_page) if code_page else None
            archive.writestr(entry, data)
    return stream.getvalue()


def spoil(box: Path, folder: str, rng: random.Random) -> None:
    """A copy of a folder, NAME-spoilt, in which one file is damaged; or in/mutated, with a sound member and another."""
    if folder == "in/mutated":
        shutil.copytree(box / "in" / "good2", box / folder)
        (box / folder / "3001-c.gnt").write_bytes(mutate(member(4), rng.choice(KINDS), rng).data)
        return
    shutil.copytree(box / folder, box / f"{folder}-spoilt", symlinks=True)
    path = rng.choice(sorted(path for path in (box / f"{folder}-spoilt").rglob("*") if path.is_file()))
    way = rng.choice(("gone", "folder", "empty", "json", "bytes", "bytes", "bytes"))
    data = path.read_bytes()
    if way == "json" and path.suffix == ".json":
        path.write_text(json.dumps(_absurd(json.loads(data), rng)), "utf-8")
    elif way in ("gone", "folder"):
        path.unlink()
        if way == "folder":
            path.mkdir()
    else:
        path.write_bytes(_damaged(data, rng) if way == "bytes" else b"")


def _damaged(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 1, 4, 100))
    return rng.choice(
        (
            data[:at],
            data[:at] + rng.randbytes(size) + data[at + size :],
            data[:at] + bytes(size) + data[at + size :],
            data[:at] + rng.randbytes(size) + data[at:],
            data[:at] + data[at + size :],
        )
    )


def _absurd(value: Any, rng: random.Random) -> Any:
    """The same JSON with one value of another kind, somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: _absurd(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        return [*value[:index], _absurd(value[index], rng), *value[index + 1 :]]
    absurd: Sequence[Any] = (None, -1, 0, 1e308, 2**70, "", "x" * 500, [], {}, True, "../../x")
    return rng.choice(absurd)
