"""Strokes: traced from lines drawn here, read from medians written here, and what a hand makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sample import pen
from pipeline.sample.glyphs import font_path
from pipeline.sample.handwriting import smoothed, written
from pipeline.sample.strokes import STEP, Source, Strokes, joined, resampled, strokes_from, strokes_of
from pipeline.sample.style import WriterStyle, record_generator
from pipeline.sample.tracing import traced
from schemas.errors import UserError

Line = NDArray[np.float64]


def lines(*strokes: list[tuple[int, int]]) -> list[Line]:
    """What is traced of polylines, one pixel wide: their corners in x, y."""
    canvas = np.zeros((100, 100), np.uint8)
    for stroke in strokes:
        cv2.polylines(canvas, [np.array(stroke, np.int32)], False, 1)
    return [line for line, _ in traced(canvas)]


def ends(line: Line) -> list[tuple[int, int]]:
    return [(round(x), round(y)) for x, y in (line[0], line[-1])]


def near(found: list[tuple[int, int]], expected: list[tuple[int, int]]) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= 2)


def test_strokes_go_straight_on_through_a_crossing() -> None:
    across, down = lines([(50, 10), (50, 90)], [(10, 40), (90, 40)])
    assert near(ends(across), [(10, 40), (90, 40)])
    assert near(ends(down), [(50, 10), (50, 90)])


def test_a_crossing_that_thinning_made_two_of_is_one() -> None:
    down, across = lines([(48, 10), (48, 40), (52, 44), (52, 90)], [(10, 40), (48, 40)], [(52, 44), (90, 44)])
    assert {round(line[0, 1] / 10) for line in (down, across)} == {1, 4}
    assert near(ends(min((down, across), key=lambda line: line[0, 1])), [(48, 10), (52, 90)])


def test_corners_belong_to_a_stroke_and_a_branch_does_not() -> None:
    found = lines([(10, 20), (80, 20), (80, 90)], [(10, 20), (10, 60)])
    assert len(found) == 1  # one line with two corners
    top, stem = lines([(10, 20), (80, 20)], [(45, 20), (45, 90)])
    assert near(ends(top), [(10, 20), (80, 20)])
    assert near(ends(stem), [(45, 20), (45, 90)])


def test_a_ring_is_traced_once() -> None:
    canvas = np.zeros((100, 100), np.uint8)
    cv2.rectangle(canvas, (20, 20), (70, 80), 1)
    ((ring, middle),) = traced(canvas)
    assert middle == 49.5
    assert len({tuple(point) for point in ring}) == canvas.sum()


@pytest.mark.parametrize("character", "我国警。！一")
def test_traced_strokes_cover_the_centre_lines(character: str) -> None:
    from pipeline.sample.glyphs import centre_lines

    canvas = centre_lines(font_path(), character)
    covered = np.zeros_like(canvas)
    for line, _ in traced(canvas):
        cv2.polylines(covered, [np.rint(line).astype(np.int32)], False, 1)
    covered = cv2.dilate(covered, np.ones((3, 3), np.uint8))
    assert (covered & canvas).sum() > 0.93 * canvas.sum()  # spurs and the middle of crossings may be left out


def medians(folder: Path, **characters: list[list[list[int]]]) -> Source:
    for character, strokes in characters.items():
        (folder / f"{character}.json").write_text(json.dumps({"strokes": [], "medians": strokes}), "utf-8")
    return Source(folder)


HOOKED = [[[512, 900], [512, 100], [430, 180]], [[200, 400], [800, 400]]]


def test_medians_keep_order_and_direction_and_are_turned_right_way_up(tmp_path: Path) -> None:
    found = strokes_of(medians(tmp_path, 丁=HOOKED), "丁")
    assert found.is_taught
    first, second = found.points[found.ends]
    np.testing.assert_allclose(first * 1024, [(0, -512), (-82, 208)], atol=1e-6)
    np.testing.assert_allclose(second * 1024, [(-312, -12), (288, -12)], atol=1e-6)
    way = found.points[found.in_ligature]
    assert len(way) == 3
    np.testing.assert_allclose(np.diff(way, axis=0), np.tile((second[0] - first[1]) / 4, (2, 1)), atol=1e-9)


def test_a_hook_is_what_turns_shortly_before_the_end(tmp_path: Path) -> None:
    found = strokes_of(medians(tmp_path, 丁=HOOKED), "丁")
    hook = found.points[found.in_hook]
    assert 2 <= len(hook) <= 4
    assert set(found.stroke[found.in_hook]) == {0}
    corner = found.points[found.before_hook[found.in_hook]]
    np.testing.assert_allclose(corner, np.tile((0, 288 / 1024), (len(hook), 1)), atol=STEP)


def test_both_sources_write_one_size(tmp_path: Path) -> None:
    box = [[[300, 700], [700, 700], [700, 300], [300, 300], [300, 690]]]
    for source in (medians(tmp_path, 国=box), Source(font_path())):
        assert np.ptp(strokes_of(source, "国").points[:, 1]) == pytest.approx(0.86, abs=0.01)


def test_a_character_is_cut_where_its_parts_lie_apart() -> None:
    crosses = [((x - 0.2, 0), (x + 0.2, 0)) for x in (-0.25, 0.25)], [((x, -0.4), (x, 0.4)) for x in (-0.25, 0.25)]
    (left, right), (down, other) = crosses
    cuts = joined([np.array(line, np.float64) for line in (left, down, right, other)], True).cuts
    chances = np.diff(cuts, prepend=0)
    assert cuts[-1] == pytest.approx(1)
    assert chances[1] > 5 * chances[0]
    assert chances[1] > 5 * chances[2]
    inside = joined([np.array(line, np.float64) for line in ([(-1, 0), (1, 0)], [(0, -1), (0, 1)])], True)
    np.testing.assert_allclose(inside.cuts, [1])
    assert len(joined([np.array([(0.0, 0.0), (1.0, 0.0)])], True).cuts) == 0


def test_what_a_source_lacks_comes_from_the_next(tmp_path: Path) -> None:
    sources = [medians(tmp_path, 丁=HOOKED), Source(font_path())]
    assert strokes_from(sources, 0.2, "丁").is_taught
    assert not strokes_from(sources, 0.7, "丁").is_taught
    assert not strokes_from(sources, 0.2, "我").is_taught
    with pytest.raises(UserError, match="expected a glyph or strokes for '我', found none"):
        strokes_from(sources[:1], 0.2, "我")


@pytest.mark.parametrize("text", ["", "{}", '{"medians": []}', '{"medians": [["a"]]}', '{"medians": [[]]}'])
def test_a_broken_file_of_medians_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "我.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"我\.json: expected .*--strokes wants"):
        strokes_of(Source(tmp_path), "我")


STILL = replace(
    WriterStyle.from_seed(1, 1001),
    **dict.fromkeys(("hurry", "slant", "rise", "joining", "roundness", "hookless", "flick", "bow", "parts"), 0.0),
    **dict.fromkeys(("strokes", "tremor", "bend", "unsteadiness", "taper", "pressure"), 0.0),
    size=100.0,
    aspect=1.0,
    lengths=(0.0, 0.0),
    habit=(0.0,) * 98,
)


def three() -> Strokes:
    return joined(
        [np.array(line) for line in ([(-0.4, 0), (0.4, 0)], [(0, -0.4), (0, 0.4)], [(0.1, 0.3), (0.4, 0.4)])], True
    )


def test_a_still_hand_writes_the_strokes_themselves() -> None:
    strokes = three()
    rng = record_generator(1, 1, b"aa")
    line, down = written(strokes, replace(STILL, hurry=-9.0), rng)
    np.testing.assert_allclose(line[:, :2], 100 * strokes.points, atol=1.0)
    assert set(np.nonzero(~down)[0]) == set(np.nonzero(strokes.in_ligature[:-1] | strokes.in_ligature[1:])[0])


def test_a_joining_hand_does_not_leave_the_paper() -> None:
    _, down = written(three(), replace(STILL, joining=99.0, hurry=1.0), record_generator(1, 1, b"aa"))
    assert down.all()


def test_a_hand_without_hooks_stops_where_they_begin(tmp_path: Path) -> None:
    strokes = strokes_of(medians(tmp_path, 丁=HOOKED), "丁")
    for hookless, leftmost in ((0.0, -82 / 1024), (1.0, -0.03)):
        line, _ = written(strokes, replace(STILL, hookless=hookless), record_generator(1, 1, b"aa"))
        assert line[strokes.stroke == 0, 0][:-3].min() >= 100 * leftmost - 1.5
    assert line[strokes.in_hook, 0].min() > -3.5


def test_smoothing_rounds_corners_and_keeps_ends() -> None:
    corner = resampled(np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]), 0.1)
    rounded = smoothed(corner.copy(), np.ones(len(corner) - 1, bool), 4)
    np.testing.assert_array_equal(rounded[[0, -1]], corner[[0, -1]])
    assert np.abs(rounded - (1, 0)).sum(axis=1).min() > 0.08
    lifted = np.arange(len(corner) - 1) != len(corner) // 2
    np.testing.assert_array_equal(smoothed(corner.copy(), lifted, 4)[len(corner) // 2], corner[len(corner) // 2])


def test_a_line_takes_as_much_ink_as_its_length_and_width_say() -> None:
    canvas = np.zeros((60, 120))
    line = np.array([(20.0, 30.25, 2.3, 0.8), (100.0, 30.25, 2.3, 0.8)])
    pen.ink(line, np.ones(1, bool), 0.0, 1.0, 0.0, np.zeros((60, 120)), canvas)
    np.testing.assert_allclose(canvas[:, 40:80].sum(axis=0), 0.8 * 2 * 2.3, atol=1e-9)
    assert canvas.max() == pytest.approx(0.8)
    assert canvas[:, :17].sum() == canvas[:, 103:].sum() == 0


def test_a_sheet_whose_knots_all_move_alike_moves_every_point_alike() -> None:
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (50, 2))
    moved = points.copy()
    pen.bend(moved, np.stack([np.full((7, 7), 0.1), np.full((7, 7), -0.2)]))
    np.testing.assert_allclose(moved - points, np.tile((0.1, -0.2), (50, 1)), atol=1e-12)
