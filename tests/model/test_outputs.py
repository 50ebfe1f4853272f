"""No command of the model's replaces or removes what it didn't write; what it did write it writes again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gnt_files
import pytest
import tiny_run
from PIL import Image

from model import benchmark, evaluate, export, predict, report

SAYS = "stays as it is; choose another path, or move it away"


@dataclass(frozen=True)
class Case:
    main: Callable[[list[str]], int]
    flags: Sequence[str]
    """PLACE, RUN, DATA and PICTURE stand for paths."""
    place: str


EVALUATE = ("--model", "RUN", "--data", "DATA", "--split", "test", "--output", "PLACE")
QUICK = ("--stages", "input", "--seconds", "0.01", "--replica_batch", "8", "--xla", "off")
CASES = {
    "evaluate": Case(evaluate.main, EVALUATE, "e.parquet"),
    "report": Case(report.main, ("--model", "RUN", "--data", "DATA", "--split", "test"), "run/report.html"),
    "saved_model": Case(export.main, ("--model", "RUN", "--format", "saved_model", "--output", "PLACE"), "saved"),
    "onnx": Case(export.main, ("--model", "RUN", "--format", "onnx", "--output", "PLACE"), "m.onnx"),
    "litert": Case(export.main, ("--model", "RUN", "--format", "litert", "--output", "PLACE"), "m.tflite"),
    "predict": Case(predict.main, ("--model", "RUN", "PICTURE", "--save_seen", "SEEN"), "seen/0000.png"),
    "benchmark": Case(
        benchmark.main,
        ("--data", "DATA", *QUICK, "--json", "PLACE"),
        "b.json",
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, archives: Path) -> Path:
    return tiny_run.data_set(tmp_path_factory.mktemp("outputs"), archives)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make_run(tmp_path_factory.mktemp("outputs") / "run")


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "run"))


def called(case: Case, run: Path, data: Path, place: Path) -> int:
    Image.fromarray(gnt_files.strokes(3)).save(picture := run / "picture.png")
    paths = {"PLACE": place, "RUN": run, "DATA": data, "PICTURE": picture, "SEEN": place.parent}
    return case.main([str(paths.get(flag, flag)) for flag in case.flags])


def refused(capsys: pytest.CaptureFixture[str], case: Case, run: Path, data: Path, place: Path, why: str) -> None:
    """Before TensorFlow starts, which takes seconds."""

    def start() -> None:
        raise AssertionError("TensorFlow was started")

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{case.main.__module__}.setup_tensorflow", start)
        assert called(case, run, data, place) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", CASES)
def test_a_foreign_file_stays_and_an_own_one_is_written_again(
    name: str,
    data: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = CASES[name]
    if name == "onnx":
        pytest.importorskip("tf2onnx")
    place = tmp_path / case.place
    place.parent.mkdir(exist_ok=True)
    place.write_text("a thesis")
    refused(capsys, case, run, data, place, SAYS)
    assert place.read_text() == "a thesis"
    place.unlink()
    (tmp_path / "thesis").write_text("a thesis")
    place.symlink_to(tmp_path / "thesis")
    refused(capsys, case, run, data, place, SAYS)
    assert (tmp_path / "thesis").read_text() == "a thesis"
    place.unlink()
    if name == "benchmark":  # whose process has nothing to do with it
        monkeypatch.setattr(benchmark, "run_apart", lambda _: iter(()))
    for _ in range(2):
        assert called(case, run, data, place) == 0
    assert place.exists()


@pytest.mark.parametrize("name", ["evaluate", "onnx"])
def test_an_input_is_no_output(
    name: str, data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    if name == "evaluate":
        (part,) = copied.glob("manifest/test-*.parquet")
        (shard,) = copied.glob("test-*.tfrecord")
        new = copied / "manifest" / "test-00003-of-00004.parquet"
        places = {part: "is the name of a file of the data set", shard: "is the name of", new: "is the name of"}
        places[run / "model.keras"] = places[run / "config.json"] = SAYS
    else:
        (tmp_path / "model.onnx").write_bytes((run / "model.keras").read_bytes())
        places = {tmp_path / "model.onnx": SAYS}
    before = {place: place.read_bytes() for place in places if place.exists()}
    for place, why in places.items():
        refused(capsys, CASES[name], run, copied, place, why)
    assert {place: place.read_bytes() for place in places if place.exists()} == before


@pytest.mark.parametrize("folder", ["documents", "run", "..", "a link", "another SavedModel"])
def test_a_folder_with_anything_else_in_it_is_no_place_for_a_saved_model(
    folder: str,
    data: Path,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("documents", "other/variables", "here/below"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "documents" / "thesis.txt").write_text("a thesis")
    (tmp_path / "here" / "keep").write_text("kept")
    for name in ("saved_model.pb", "fingerprint.pb", "variables/variables.index"):
        (tmp_path / "other" / name).write_text("somebody else's")
    (tmp_path / "link").symlink_to("documents")
    monkeypatch.chdir(tmp_path / "here" / "below")
    place = {
        "documents": tmp_path / "documents",
        "run": run,
        "..": Path(".."),
        "a link": tmp_path / "link",
        "another SavedModel": tmp_path / "other",
    }[folder]
    called(CASES["benchmark"], run, data, run)  # the picture it leaves in the run's folder
    before = {path: path.is_file() and path.read_bytes() for path in sorted(tmp_path.rglob("*"))}
    refused(capsys, CASES["saved_model"], run, data, place, SAYS)
    assert {path: path.is_file() and path.read_bytes() for path in sorted(tmp_path.rglob("*"))} == before


def test_an_earlier_saved_model_makes_room_as_long_as_it_is_nothing_else(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, place = CASES["saved_model"], tmp_path / "saved"
    place.mkdir()  # an empty folder is nothing to lose
    assert called(case, run, data, place) == 0
    assert called(case, run, data, place) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "saved"]
    for added in ("thesis.txt", "variables/thesis.txt", "assets/thesis.txt", "assets.extra/thesis.txt"):
        (place / added).write_text("a thesis")
        refused(capsys, case, run, data, place, SAYS)
        assert (place / added).read_text() == "a thesis"
        (place / added).unlink()
    (place / "notes").mkdir()
    refused(capsys, case, run, data, place, SAYS)
    (place / "notes").rmdir()
    (place / "assets" / "elsewhere").symlink_to(run)
    refused(capsys, case, run, data, place, SAYS)
    assert (run / "model.keras").exists()
    (place / "assets" / "elsewhere").unlink()
    with (place / "saved_model.pb").open("ab") as file:
        file.write(b"changed by hand")
    refused(capsys, case, run, data, place, SAYS)
    assert (place / "saved_model.pb").read_bytes().endswith(b"changed by hand")


def test_photos_named_by_numbers_are_no_place_for_what_was_seen(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--save_seen into the folder that the pictures are in; before anything is written."""
    case, photos = CASES["predict"], tmp_path / "photos"
    photos.mkdir()
    for number in (3, 12_345):
        Image.fromarray(gnt_files.strokes(number)).save(photos / f"{number:04d}.png")
    Image.fromarray(gnt_files.strokes(1)).save(photos / "2026-11-28.png")
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    refused(capsys, case, run, data, photos / "any", "0003.png: expected nothing there")
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    refused(capsys, case, run, data, photos / "0003.png" / "any", "--save_seen")


def test_what_earlier_releases_wrote_is_known(data: Path, run: Path) -> None:
    """Their reports and evaluations have no mark; run_local.sh writes both again in a folder that it made long ago."""
    import pyarrow.parquet as pq

    assert called(CASES["evaluate"], run, data, run / "e.parquet") == 0
    assert called(CASES["report"], run, data, run / "report.html") == 0
    table = pq.read_table(run / "e.parquet")
    metadata = {key: value for key, value in table.schema.metadata.items() if key in (b"split", b"class_digest")}
    pq.write_table(table.replace_schema_metadata(metadata), run / "e.parquet")
    html = (run / "report.html").read_text("utf-8")
    unmarked = html.replace('<meta name="generator" content="written by hwdb-shards model.report">', "")
    assert unmarked != html
    (run / "report.html").write_text(unmarked, "utf-8")
    assert called(CASES["evaluate"], run, data, run / "e.parquet") == 0
    assert called(CASES["report"], run, data, run / "report.html") == 0
    assert (run / "report.html").read_text("utf-8") == html
    pq.write_table(table.select(["label", "rank"]), run / "e.parquet")
    assert called(CASES["evaluate"], run, data, run / "e.parquet") == 2
