"""The files of a synthetic sample: which characters, which writers, and one GNT file a writer.

What a writer writes depends on the seed and on the writer's number alone, not on how many writers or characters there
are, nor on the number of processes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import draw, gnt_record
from pipeline.sample.pen import KERNELS
from pipeline.sample.strokes import Source, strokes_from
from pipeline.sample.style import WriterStyle, record_generator
from schemas.classes import default_classes, tag_of
from schemas.errors import UserError

# CASIA-HWDB1.1 numbers its 240 training writers 1001 ... 1240 and its 60 test writers 1241 ... 1300.
FIRST_WRITER = {"train": 1001, "test": 1241}
MOST_WRITERS = 300
ONE_TEST_WRITER_IN = 5

OLD_VARIANT = "硷"
SYMBOLS = "0123456789ABCabc！，。：；？"
"""In every sample, and like 硷 outside the class list: something for the conversion to drop."""


@dataclass(frozen=True)
class SampleConfig:
    """What to draw. Refuses what can't be drawn before anything is written."""

    output: Path
    writers: int = 12
    characters: int = 3755
    seed: int = 7
    zip: bool = False
    processes: int = 1
    font: Sequence[Path] = ()
    """Font files whose strokes writers learn, in place of the font package's one."""
    strokes: Path | None = None
    """A folder of strokes in the order of writing, which half of the writers learn."""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("writers", self.writers, 1, MOST_WRITERS),
            ("characters", self.characters, 1, len(level_1())),
            ("seed", self.seed, 0, 2**63 - 1),
            ("processes", self.processes, 1, 1024),
        ):
            if not least <= value <= most:
                raise UserError(f"--{name}: expected {least:,} to {most:,}, found {value:,}; choose a number in there")
        if self.strokes is not None and not self.strokes.is_dir():
            raise UserError(
                f"--strokes {self.strokes}: expected a folder of CHARACTER.json files, found none; name one"
            )


@dataclass(frozen=True)
class Written:
    """What was written to a file or a folder."""

    path: Path
    files: int
    records: int
    bytes: int


def level_1() -> list[str]:
    """The 3,755 characters of GB2312 level 1 in code order: the class list, and 硷."""
    return sorted({*default_classes().characters, OLD_VARIANT}, key=tag_of)


def choose_characters(count: int) -> list[str]:
    """`count` characters of level 1, and SYMBOLS, in code order.

    硷 always; the others by a digest of the character, which scatters them over the list (its order is by sound, so its
    beginning would be all a, ai, an ...) and lets every larger choice contain every smaller one.
    """
    by_digest = sorted(level_1(), key=lambda c: (c != OLD_VARIANT, hashlib.sha256(c.encode()).digest()))
    return sorted([*by_digest[:count], *SYMBOLS], key=tag_of)


def writers_of(count: int) -> dict[str, list[int]]:
    """The writers' numbers by split: the last fifth, as in CASIA, and at least one of two or more, is for testing."""
    test = 0 if count == 1 else max(1, count // ONE_TEST_WRITER_IN)
    sizes = {"train": count - test, "test": test}
    return {split: [FIRST_WRITER[split] + i for i in range(size)] for split, size in sizes.items() if size}


def sources_of(config: SampleConfig) -> list[Source]:
    """What writers learn from: the fonts named, else the font package's; with medians, half from those."""
    fonts = list(config.font) or [font_path()]
    return [Source(path) for path in (*([config.strokes] * len(fonts) if config.strokes else ()), *fonts)]


def write_writer(path: Path, seed: int, writer: int, characters: Sequence[str], sources: Sequence[Source]) -> Written:
    """Writes all records of one writer to `path`, a GNT file: under a temporary name first, then renamed."""
    style = WriterStyle.from_seed(seed, writer)
    unfinished = path.with_name(f".{path.name}.partial")
    size = 0
    try:
        with unfinished.open("wb") as file:
            for character in characters:
                tag = tag_of(character)
                strokes = strokes_from(sources, style.source, character)
                bitmap = draw(strokes, style, record_generator(seed, writer, tag))
                size += file.write(gnt_record(tag, bitmap))
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return Written(path, 1, len(characters), size)


def write_sample(config: SampleConfig, report: Callable[[str], None]) -> dict[str, Written]:
    """Draws the sample and returns what was written for each split.

    `report` gets a line for each file. Raises UserError and OSError.
    """
    characters = choose_characters(config.characters)
    sources = sources_of(config)
    for source in sources:  # what can't be read: say so before there is a folder
        source.check()
    if why := KERNELS.failure():  # compiled here, they are only loaded by the processes that draw
        report(f"drawing without Numba, which takes some fifty times as long: {why}")
    _make_empty_folder(config.output)
    numbers = writers_of(config.writers)
    # In a zip run the files are drawn into a folder of their own, which is gone in the end, whatever happens.
    drawn = Path(tempfile.mkdtemp(prefix=".drawn-", dir=config.output)) if config.zip else config.output
    jobs = [(drawn / split / f"{n}-c.gnt", n) for split, of_split in numbers.items() for n in of_split]
    try:
        for split in numbers:
            (drawn / split).mkdir()
        with closing(_write_all(jobs, config, characters, sources)) as results:
            return {
                split: _collect(drawn / split, len(of_split), results, config, report)
                for split, of_split in numbers.items()
            }
    finally:
        if config.zip:
            shutil.rmtree(drawn, ignore_errors=True)


def _make_empty_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sum(1 for _ in folder.iterdir())
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output {folder}: expected a folder, found a file; choose another path") from None
    if found:
        raise UserError(
            f"--output {folder}: expected a new or empty folder, found one that holds {found:,} entries; "
            "choose another, or move it away"
        )


def _write_all(
    jobs: list[tuple[Path, int]], config: SampleConfig, characters: list[str], sources: list[Source]
) -> Generator[Written, None, None]:
    paths, writers = zip(*jobs, strict=True)
    arguments = (paths, repeat(config.seed), writers, repeat(characters), repeat(sources))
    if config.processes == 1 or len(jobs) == 1:
        yield from map(write_writer, *arguments)
        return
    # Spawned, not forked: the same on every platform, and safe whatever threads the caller has.
    context = multiprocessing.get_context("spawn")
    # An interrupt from the keyboard reaches every process; only this one shall speak of it.
    quiet = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(min(config.processes, len(jobs)), mp_context=context, initializer=quiet)
    try:
        yield from pool.map(write_writer, *arguments)
    except BrokenProcessPool:
        raise UserError(
            "a drawing process was killed from outside, most often for lack of memory; "
            "remove the unfinished folder and run again with fewer --processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_REPORTS = 5  # lines about the files of a split; more of them would only scroll by


def _collect(
    folder: Path, writers: int, results: Iterator[Written], config: SampleConfig, report: Callable[[str], None]
) -> Written:
    """Awaits the files of one split in order, and with --zip packs each away as soon as it is there."""
    records = size = 0
    packed = folder.with_suffix(".zip")
    for done in range(1, writers + 1):
        written = next(results)
        records, size = records + written.records, size + written.bytes
        if config.zip:
            _pack(written.path, packed)
        if done % max(1, writers // _REPORTS) == 0 or done == writers:
            report(f"{folder.name}: {written.path.name}, {written.records:,} records, writer {done} of {writers}")
    if not config.zip:
        return Written(folder, writers, records, size)
    archive = config.output / packed.name
    os.replace(packed, archive)
    return Written(archive, 1, records, archive.stat().st_size)


def _pack(path: Path, archive: Path) -> None:
    """Moves a file into a zip archive, which is made where there is none."""
    # All that ZipInfo would take from the clock and the platform is fixed, so that the archive's bytes are too.
    info = zipfile.ZipInfo(path.name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    info.file_size = path.stat().st_size
    with zipfile.ZipFile(archive, "a") as members, path.open("rb") as source, members.open(info, "w") as member:
        shutil.copyfileobj(source, member, 1 << 20)  # 1 MiB
    path.unlink()
