"""The parts of a report's page: one HTML file that needs no network, fits a phone and follows light or dark settings.

Every text is plain and passes through html.escape here; what is called HTML or SVG is one of these parts already.
Images are PNG data in the page itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np

from model.answers.metrics import Tally

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


def document(
    title: str,
    subtitle: str,
    tiles: Sequence[tuple[str, str]],
    sections: Sequence[str],
    settings: Mapping[str, str],
    generator: str,
) -> str:
    """The whole file; a tile is a figure and what it is."""
    shown = "".join(f"<div><b>{escape(figure)}</b><span>{escape(name)}</span></div>" for figure, name in tiles)
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(value)}</td></tr>' for name, value in settings.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="generator" content="{escape(generator)}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p>'
        f'<div class="tiles">{shown}</div>\n{"".join(sections)}'
        "<details><summary>Settings of the run</summary>"
        f'<div class="scroll"><table>{rows}</table></div></details>\n'
        "</body></html>\n"
    )


def section(title: str, note: str, content: str) -> str:
    """`content` is HTML; without any the section says so."""
    note = f'<p class="soft">{escape(note)}</p>' if note and content else ""
    return f"<section><h2>{escape(title)}</h2>{note}{content or '<p class=soft>None.</p>'}</section>\n"


def figures(charts: Sequence[tuple[str, str]], legend: str) -> str:
    """A chart is its title and SVG; the legend is HTML."""
    shown = "".join(f"<figure><h3>{escape(title)}</h3>{svg}</figure>" for title, svg in charts)
    return f'{legend}<div class="charts">{shown}</div>' if shown else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def worst_table(kind: str, rows: Sequence[Tally]) -> str:
    """Of characters with what each was read as, or of writers; `kind` is "character" or "writer"."""
    if not rows:
        return ""
    chinese = ' lang="zh-Hans"' if kind == "character" else ""
    last = "<th>most often as</th>" if chinese else ""
    body = []
    for row in rows:
        bar = f'<span class="bar"><i style="width:{100 * row.accuracy:.0f}%"></i></span>{row.accuracy:.1%}'
        read_as = f"<td{chinese}>{escape(row.read_as)}</td>" if chinese else ""
        name = f"<td{chinese}>{escape(row.key)}</td>"
        body.append(f"<tr>{name}<td>{row.samples:,}</td><td>{row.wrong:,}</td><td>{bar}</td>{read_as}</tr>")
    head = f"<tr><th>{kind}</th><th>samples</th><th>wrong</th><th>accuracy</th>{last}</tr>"
    return f'<div class="scroll"><table>{head}{"".join(body)}</table></div>'


def glyph(image: np.ndarray, truth: str, prediction: str, probability: float) -> str:
    """A sample, uint8 [h, w], ink 255 on 0, with its true and its predicted character."""
    said = escape(f"{truth} read as {prediction}")
    caption = f"{chinese(truth)} → <span class=said>{chinese(prediction)}</span><br>{probability:.0%}"
    return (
        f'<figure class="glyph{"" if truth == prediction else " wrong"}"><img src="{data_uri(image)}" alt="{said}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def grid(kind: str, parts: Sequence[str]) -> str:
    """HTML parts beside and below each other; `kind` is "glyphs" or "pairs"."""
    return f'<div class="{kind}">{"".join(parts)}</div>' if parts else ""


def pair_of_glyphs(first: str, second: str, first_as_second: int, second_as_first: int, glyphs: Sequence[str]) -> str:
    """Two characters taken for each other, with some of the samples."""
    first, second = chinese(first), chinese(second)
    counts = f"{first} read as {second}: {first_as_second:,} · {second} read as {first}: {second_as_first:,}"
    return (
        f'<div class="pair"><h3>{first} {second}<span>{counts}</span></h3>'
        f'<div class="row">{"".join(glyphs)}</div></div>'
    )


def data_uri(image: np.ndarray) -> str:
    """uint8 [h, w], ink 255 on 0, as a PNG with dark ink on white."""
    png = cv2.imencode(".png", 255 - image)[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(png).decode()


def chinese(text: str) -> str:
    """Marked as Chinese, so that a browser takes the Chinese shape of a character and not the Japanese one."""
    return f'<b lang="zh-Hans">{escape(text)}</b>'
