"""The report's page: its style, and the pieces of HTML that every section is made of."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from pipeline.inspect.pictures.sheet import fit, png
from pipeline.inspect.pictures.steps import Picture
from schemas.errors import printable

_STYLE = """
:root{color-scheme:light dark;--bg:#fafaf9;--card:#fff;--text:#1c1917;--soft:#57534e;--line:#e7e5e4;
--train:#2563eb;--validation:#c2410c;--test:#0f8a5f;--kept:#3b82f6;--dropped:#a8a29e;--rejected:#dc2626}
@media(prefers-color-scheme:dark){:root{--bg:#1c1917;--card:#262321;--text:#f5f5f4;--soft:#b5aea8;--line:#44403c;
--train:#60a5fa;--validation:#fb923c;--test:#34d399}}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px;max-width:1100px;background:var(--bg);color:var(--text);
font:15px/1.5 system-ui,"Noto Sans","Noto Sans CJK SC",sans-serif}
h1{font-size:22px;margin:8px 0 0;overflow-wrap:anywhere}h2{font-size:18px;margin:36px 0 8px}
h3{font-size:15px;margin:0 0 4px}
p{margin:4px 0 10px}.soft,figcaption,small{color:var(--soft)}
nav{display:flex;flex-wrap:wrap;gap:2px 14px}nav a{color:inherit}
code{font-size:13px;overflow-wrap:anywhere}
.card,.chart,details{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px}
.grid2{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr))}
.sheet{display:flex;flex-wrap:wrap;gap:8px}.sheet .card{padding:8px 10px}.sheet p{margin:0 0 4px}
.figures{display:grid;gap:8px;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));margin:12px 0}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 12px}
.figures b{display:block;font-size:19px}
svg{width:100%;height:auto;display:block}svg text{font-size:13px;fill:var(--soft)}svg .axis{fill:var(--text)}
svg .grid{stroke:var(--line)}.line{fill:none;stroke-width:1.8}
.line.train{stroke:var(--train)}.line.validation{stroke:var(--validation)}.line.test{stroke:var(--test)}
.bar.kept{fill:var(--kept)}.bar.dropped{fill:var(--dropped)}.bar.rejected{fill:var(--rejected)}
.legend{margin:2px 0}.key{margin-right:14px;font-size:13px}
.key::before{content:"";display:inline-block;width:11px;height:11px;
border-radius:2px;margin-right:5px;background:var(--c)}
.key.train{--c:var(--train)}.key.validation{--c:var(--validation)}.key.test{--c:var(--test)}
.key.kept{--c:var(--kept)}.key.dropped{--c:var(--dropped)}.key.rejected{--c:var(--rejected)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;white-space:nowrap}td.d{overflow-wrap:anywhere;min-width:64px}td.h{overflow-wrap:anywhere;min-width:240px}
details{margin:8px 0}summary{cursor:pointer}details[open]>summary{margin-bottom:8px}
.tiles{display:flex;flex-wrap:wrap;gap:3px}
.tiles img,summary img{width:48px;height:48px;object-fit:contain;background:var(--line)}
.glyph{font-size:21px;line-height:1.2;color:var(--text)}
.steps{display:flex;flex-wrap:wrap;gap:8px;margin:6px 0}.steps figure{margin:0;width:96px}figcaption{font-size:12px}
.steps img{width:96px;height:96px;object-fit:contain;image-rendering:pixelated;background:var(--line)}
.group{display:grid;gap:0 10px;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));align-items:start}
.record{padding:6px 10px;margin:4px 0}.record>summary{display:flex;gap:10px;align-items:center}
.record>summary>span{overflow-wrap:anywhere;min-width:0}.alarm{color:var(--rejected);font-weight:600}
.stack{display:grid;gap:8px}
.record .steps{gap:6px}
.record .steps figure,.record .steps img{width:72px}.record .steps img{height:72px}
@media(max-width:480px){.steps{gap:6px}.steps figure,.steps img{width:72px}.steps img{height:72px}}
ul{margin:4px 0;padding-left:20px}li{overflow-wrap:anywhere}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is fetched and nothing runs, even if a name in the data asked for it."""
_LONG = 40  # characters; digests and paths get a column wide enough for two lines


def text(value: object) -> str:
    """Any value as HTML: names come from archives and can hold anything."""
    return escape(printable(str(value)))


def document(title: str, sections: Iterable[str], generator: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="generator" content="{text(generator)}">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    return f'<section id="{anchor}"><h2>{text(title)}</h2>\n' + "\n".join(parts) + "</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers stand to the right; a row's cells are escaped here."""
    body = []
    numeric: set[int] = set()
    for row in rows:
        cells = []
        for column, value in enumerate(row):
            is_number = isinstance(value, int | float)
            if is_number:
                numeric.add(column)
            shown = f"{value:,}" if is_number else text(value)
            kind = "n" if is_number else "h" if len(shown) > _LONG else "d"
            cells.append(f'<td class="{kind}">{shown}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    right = ' class="n"'
    head = "".join(f"<th{right if i in numeric else ''}>{text(name)}</th>" for i, name in enumerate(header))
    return f'<div class="scroll"><table><tr>{head}</tr>\n' + "\n".join(body) + "</table></div>"


def folded(title: str, inside: str) -> str:
    """Something to open by a click; `inside` is HTML already."""
    return f"<details><summary>{text(title)}</summary>{inside}</details>"


def chart(title: str, *parts: str) -> str:
    return f'<div class="chart"><h3>{text(title)}</h3>{"".join(parts)}</div>'


def image(pixels: np.ndarray, label: str, most: int) -> str:
    """An <img> that carries its pixels, no larger than `most` a side."""
    data = base64.b64encode(png(fit(pixels, min(most, max(pixels.shape))))).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{text(label)}" title="{text(label)}">'


def steps_row(pictures: Sequence[Picture], most: int) -> str:
    shown = (
        f"<figure>{image(one.image, one.title, most)}<figcaption>{text(one.title)}</figcaption></figure>"
        for one in pictures
    )
    return f'<div class="steps">{"".join(shown)}</div>'
