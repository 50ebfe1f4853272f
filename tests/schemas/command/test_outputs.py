"""What stands at an output's place is replaced only where the same command wrote it; nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.command.outputs import check_output, mark_of, marked_by, marked_png, output
from schemas.errors import UserError
from schemas.machine import replaced

COMMAND = "model.report"


def content_of(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below it: a file's bytes, a link's target, None of anything else."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def a_file(place: Path) -> None:
    place.write_text("a thesis")


def an_empty_file(place: Path) -> None:
    place.touch()


def of_another_command(place: Path) -> None:
    place.write_text(f"<html>{mark_of('pipeline.inspect')}</html>")


def a_folder(place: Path) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("a thesis")


def an_empty_folder(place: Path) -> None:
    place.mkdir()


def a_link_to_a_file(place: Path) -> None:
    (place.parent / "thesis.txt").write_text("a thesis")
    place.symlink_to("thesis.txt")


def a_link_to_a_folder(place: Path) -> None:
    a_folder(place.parent / "documents")
    place.symlink_to("documents")


def a_link_to_itself(place: Path) -> None:
    place.symlink_to(place.name)


def a_fifo(place: Path) -> None:
    os.mkfifo(place)


FOREIGN = [
    a_file,
    an_empty_file,
    of_another_command,
    a_folder,
    an_empty_folder,
    a_link_to_a_file,
    a_link_to_a_folder,
    a_link_to_itself,
    a_fifo,
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda make: make.__name__)
def test_what_another_wrote_stays_as_it_is(foreign: Callable[[Path], None], tmp_path: Path) -> None:
    foreign(place := tmp_path / "report.html")
    before = content_of(tmp_path)
    message = rf"report\.html: expected nothing there, or what {COMMAND} wrote, .* stays as it is; choose another path"
    with pytest.raises(UserError, match=message), output(place, COMMAND) as temporary:
        temporary.write_text(mark_of(COMMAND))
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_no_place_for_an_output(device: str) -> None:
    with pytest.raises(UserError, match="stays as it is"):
        check_output(device, COMMAND)


def test_what_came_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    def write() -> None:
        with output(tmp_path / "x", COMMAND) as temporary:
            temporary.write_text("new")
            (tmp_path / "x").write_text("a thesis")

    with pytest.raises(UserError, match="stays as it is"):
        write()
    assert content_of(tmp_path) == {"x": b"a thesis"}


@pytest.mark.parametrize("before_it", ["", "-" * 70_000])
@pytest.mark.parametrize("after_it", ["", "-" * 70_000])
def test_an_own_file_is_replaced_wherever_its_mark_is(before_it: str, after_it: str, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.write_text(before_it + mark_of(COMMAND) + after_it)
    if before_it and after_it:
        assert marked_by(COMMAND)(place) is None
        return
    with output(place, COMMAND) as temporary:
        temporary.write_text("new")
    assert content_of(tmp_path) == {"report.html": b"new"}


def test_a_link_is_followed_to_an_own_file(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(mark_of(COMMAND))
    (tmp_path / "link").symlink_to("report.html")
    with output(tmp_path / "link", COMMAND) as temporary:
        temporary.write_text("new")
    assert content_of(tmp_path) == {"report.html": b"new", "link": "report.html"}


def test_an_own_folder_goes_file_by_file_once_the_new_one_is_there(tmp_path: Path) -> None:
    """What came into the old one after it was looked at is left over, not removed."""
    place = tmp_path / "saved"
    place.mkdir()
    (place / "own").write_text("old")
    aside = tmp_path / "saved.tmp-0"

    def owned(folder: Path) -> list[Path]:
        return [folder / "own"]

    with output(place, COMMAND, owned) as temporary:
        assert (place / "own").read_text() == "old"
        temporary.mkdir()
        (temporary / "own").write_text("new")
        (place / "thesis.txt").write_text("a thesis")
    (aside,) = [path for path in tmp_path.iterdir() if path != place]
    assert content_of(tmp_path) == {
        "saved": None,
        "saved/own": b"new",
        aside.name: None,
        f"{aside.name}/thesis.txt": b"a thesis",
    }


def test_an_own_folder_is_back_if_the_new_one_cant_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "saved"
    place.mkdir()
    (place / "own").write_text("old")
    rename = os.replace

    def fails_at_the_end(source: Path, target: Path) -> None:
        if Path(target) == place and ".tmp-" in Path(source).name and (Path(source) / "new").exists():
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_end)

    def write() -> None:
        with output(place, COMMAND, lambda _: []) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()

    with pytest.raises(OSError, match="No space"):
        write()
    assert content_of(tmp_path) == {"saved": None, "saved/own": b"old"}


def test_a_folder_never_makes_room_by_itself(tmp_path: Path) -> None:
    """Whoever writes a file at once, below the commands, can't remove a folder by it."""
    a_folder(place := tmp_path / "run")
    for make in (Path.mkdir, Path.touch):
        with pytest.raises(OSError, match=r"directory|empty"), replaced(place) as temporary:
            make(temporary)
        assert content_of(tmp_path) == {"run": None, "run/thesis.txt": b"a thesis"}


@pytest.mark.parametrize("name", ["train-00007-of-00009.tfrecord", "dataset.json", "manifest/x.parquet", "e.parquet"])
def test_a_data_sets_names_are_its_own(name: str, tmp_path: Path) -> None:
    name = name.replace("x.", "test-00000-of-00001.")
    assert check_output(tmp_path / name, COMMAND) == (tmp_path / name).resolve()
    (tmp_path / "dataset.json").touch()
    if name == "e.parquet":
        check_output(tmp_path / name, COMMAND)
        return
    with pytest.raises(UserError, match=r"is the name of a file of the data set .*; choose another path"):
        check_output(tmp_path / name, COMMAND)


def test_a_marked_picture_is_the_same_picture(tmp_path: Path) -> None:
    import cv2
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    png = marked_png(cv2.imencode(".png", pixels)[1].tobytes(), COMMAND)
    (tmp_path / "x.png").write_bytes(png)
    with Image.open(tmp_path / "x.png") as image:
        image.verify()
        assert image.info == {"Software": mark_of(COMMAND)}
    assert np.array_equal(cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED), pixels)
    assert marked_by(COMMAND)(tmp_path / "x.png")
