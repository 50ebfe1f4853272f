"""The page of a report: one HTML file that needs no network, fits a phone and follows light or dark settings.

Everything that comes from a run or a data set passes through html.escape; images are PNG data in the page itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--panel:#f5f5f3;--text:#1c1c1a;--soft:#62625d;--rule:#d9d9d4;
--one:#1f6fb4;--two:#c2571a;--bad:#b3261e;--bar:#9fb9d0}
@media(prefers-color-scheme:dark){:root{--ground:#161615;--panel:#222220;--text:#ecebe6;--soft:#a3a29b;--rule:#3b3b38;
--one:#6db3f2;--two:#f0a06a;--bad:#ff8a80;--bar:#3d5a75}.glyph img{filter:invert(1)}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1160px;padding:20px 16px 48px;background:var(--ground);
color:var(--text);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
:lang(zh){font-family:"Noto Sans SC","Noto Sans CJK SC","PingFang SC","Microsoft YaHei","Source Han Sans SC",sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px}h2{font-size:1.1rem;margin:36px 0 4px}p{margin:4px 0 10px}
.soft,figcaption,th{color:var(--soft);font-weight:400}.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:18px 0 0}
.tiles div{background:var(--panel);border-radius:8px;padding:10px 16px;flex:1 1 120px}
.tiles b{display:block;font-size:1.45rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.85rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:16px 24px}
.charts figure{margin:0;min-width:0}.charts svg{display:block;width:100%;height:auto}
.charts h3{font-size:.95rem;margin:8px 0 2px;font-weight:600}svg text{font-size:11px;fill:var(--soft)}
svg .grid{stroke:var(--rule)}svg .axis{stroke:var(--soft)}svg polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
svg polyline.train{stroke:var(--one)}svg polyline.eval{stroke:var(--two);stroke-dasharray:5 3}
svg circle.train{fill:var(--one)}svg circle.eval{fill:var(--two)}
.legend{font-size:.85rem;color:var(--soft)}.legend span{margin-right:16px;white-space:nowrap}
svg.key{width:24px;height:8px;margin-right:6px;vertical-align:middle}
.tables{display:flex;flex-wrap:wrap;gap:0 72px}.tables section{min-width:0;max-width:100%}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 18px 3px 0;text-align:right;white-space:nowrap}
th{font-size:.85rem;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child,td.text,th.text{text-align:left}td[lang]{font-size:1.2rem;line-height:1.3}
td .bar{display:inline-block;width:90px;height:8px;background:var(--panel);border-radius:4px;margin-right:8px}
td .bar i{display:block;height:8px;background:var(--bar);border-radius:4px}
.glyphs{display:grid;grid-template-columns:repeat(auto-fill,minmax(82px,1fr));gap:10px}
.glyph{margin:0;text-align:center}.glyph img{width:72px;height:72px;border:1px solid #ddd;background:#fff;display:block;
margin:0 auto}.glyph figcaption{font-size:.82rem;line-height:1.35;margin-top:3px}
.glyph b{font-size:1.1rem;font-weight:500;color:var(--text)}.glyph.wrong img{outline:2px solid var(--bad)}
.wrong .said{color:var(--bad)}@media(prefers-color-scheme:dark){.glyph.wrong img{outline-color:#00757f}}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px 24px}
.pair{border-top:1px solid var(--rule);padding-top:8px}.pair h3{margin:0 0 6px;font-size:1.25rem;font-weight:500}
.pair h3 span{font-size:.85rem;color:var(--soft);margin-left:8px}.pair .row{display:flex;gap:6px;flex-wrap:wrap}
.pair .glyph img{width:56px;height:56px}
@media(max-width:520px){td .bar{display:none}th,td{padding-right:9px}}
details{margin-top:36px}summary{cursor:pointer;color:var(--soft)}
"""


@dataclass(frozen=True)
class Glyph:
    """A sample's image with its true and its predicted character."""

    image: np.ndarray
    """uint8 [h, w], ink 255 on 0."""
    truth: str
    prediction: str
    probability: float

    @property
    def right(self) -> bool:
        return self.truth == self.prediction


@dataclass(frozen=True)
class PairOfGlyphs:
    """Two characters taken for each other, with some of the samples."""

    first: str
    second: str
    first_as_second: int
    second_as_first: int
    glyphs: Sequence[Glyph]


@dataclass(frozen=True)
class WorstRow:
    name: str
    samples: int
    wrong: int
    accuracy: float
    read_as: str = ""
    """The character it was taken for most often, empty if none; with the count."""


@dataclass(frozen=True)
class Page:
    """What a report shows; every text is plain, not HTML, but for the charts."""

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str]]
    """(figure, what it is)."""
    charts: Sequence[tuple[str, str]]
    """(title, SVG)."""
    legend: str
    chart_note: str
    characters: Sequence[WorstRow]
    writers: Sequence[WorstRow]
    pairs: Sequence[PairOfGlyphs]
    mistakes: Sequence[Glyph]
    sample: Sequence[Glyph]
    trust_note: str
    refusals: tuple[Sequence[str], Sequence[Sequence[str]]]
    """Columns and rows: what thresholds do to the answers."""
    settings: Mapping[str, str]

    def to_html(self) -> str:
        sections = [
            _section("Learning curves", self.chart_note, self._charts()),
            f'<div class="tables">{self._tables()}</div>\n',
            _section("Most confused pairs", "Truth first; the number below is the probability given.", self._pairs()),
            _section("How far to trust a probability", self.trust_note, self._refusals()),
            _section("Surest mistakes", "Truth → prediction, with the probability given.", _glyphs(self.mistakes)),
            _section("Predictions, drawn by lot", "Truth → prediction; mistakes are outlined.", _glyphs(self.sample)),
        ]
        tiles = "".join(f"<div><b>{escape(figure)}</b><span>{escape(name)}</span></div>" for figure, name in self.tiles)
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td class="text">{escape(value)}</td></tr>'
            for name, value in self.settings.items()
        )
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body>\n"
            f'<h1>{escape(self.title)}</h1><p class="soft">{escape(self.subtitle)}</p>'
            f'<div class="tiles">{tiles}</div>\n{"".join(sections)}'
            "<details><summary>Settings of the run</summary>"
            f'<div class="scroll"><table>{rows}</table></div></details>\n'
            "</body></html>\n"
        )

    def _charts(self) -> str:
        figures = [f"<figure><h3>{escape(title)}</h3>{svg}</figure>" for title, svg in self.charts if svg]
        return f'{self.legend}<div class="charts">{"".join(figures)}</div>' if figures else ""

    def _tables(self) -> str:
        characters = _section("Characters read worst", "", _worst_table(self.characters, "character"))
        return characters + _section("Writers read worst", "", _worst_table(self.writers, "writer"))

    def _refusals(self) -> str:
        columns, rows = self.refusals
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'

    def _pairs(self) -> str:
        return f'<div class="pairs">{"".join(_pair(pair) for pair in self.pairs)}</div>' if self.pairs else ""


def data_uri(image: np.ndarray) -> str:
    """uint8 [h, w], ink 255 on 0, as a PNG with dark ink on white."""
    png = cv2.imencode(".png", 255 - image)[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(png).decode()


def chinese(text: str) -> str:
    """Marked as Chinese, so that a browser takes the Chinese shape of a character and not the Japanese one."""
    return f'<b lang="zh-Hans">{escape(text)}</b>'


def _section(title: str, note: str, content: str) -> str:
    note = f'<p class="soft">{escape(note)}</p>' if note and content else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content or '<p class=soft>None.</p>'}</section>\n"


def _glyphs(glyphs: Sequence[Glyph]) -> str:
    return f'<div class="glyphs">{"".join(_glyph(glyph) for glyph in glyphs)}</div>' if glyphs else ""


def _glyph(glyph: Glyph) -> str:
    said = escape(f"{glyph.truth} read as {glyph.prediction}")
    caption = f"{chinese(glyph.truth)} → <span class=said>{chinese(glyph.prediction)}</span><br>{glyph.probability:.0%}"
    return (
        f'<figure class="glyph{"" if glyph.right else " wrong"}"><img src="{data_uri(glyph.image)}" alt="{said}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _pair(pair: PairOfGlyphs) -> str:
    first, second = chinese(pair.first), chinese(pair.second)
    counts = [
        f"{first} read as {second}: {pair.first_as_second:,}",
        f"{second} read as {first}: {pair.second_as_first:,}",
    ]
    return (
        f'<div class="pair"><h3>{first} {second}<span>{" · ".join(counts)}</span></h3>'
        f'<div class="row">{"".join(_glyph(glyph) for glyph in pair.glyphs)}</div></div>'
    )


def _worst_table(rows: Sequence[WorstRow], kind: str) -> str:
    if not rows:
        return ""
    last = "<th>most often as</th>" if kind == "character" else ""
    head = f"<tr><th>{kind}</th><th>samples</th><th>wrong</th><th>accuracy</th>{last}</tr>"
    body = []
    for row in rows:
        name = f'<td lang="zh-Hans">{escape(row.name)}</td>' if kind == "character" else f"<td>{escape(row.name)}</td>"
        bar = f'<span class="bar"><i style="width:{100 * row.accuracy:.0f}%"></i></span>{row.accuracy:.1%}'
        mistaken = f'<td lang="zh-Hans">{escape(row.read_as)}</td>' if last else ""
        body.append(f"<tr>{name}<td>{row.samples:,}</td><td>{row.wrong:,}</td><td>{bar}</td>{mistaken}</tr>")
    return f'<div class="scroll"><table>{head}{"".join(body)}</table></div>'
