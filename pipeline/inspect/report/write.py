"""--html: everything there is to know of a data set in one file, which needs nothing else to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline import storage
from pipeline.inspect.diff import settings_of
from pipeline.inspect.facts import Facts, Spread, gather
from pipeline.inspect.manifest import COMMAND, Inspected
from pipeline.inspect.official import official_lines
from pipeline.inspect.overview import findings
from pipeline.inspect.report.charts import bars_chart, legend, steps_chart
from pipeline.inspect.report.contact import Contact
from pipeline.inspect.report.page import chart, document, folded, section, table, text
from schemas.command.outputs import mark_of
from schemas.dataset import Card, MemberInput
from schemas.errors import explained
from schemas.manifest import DROPPED, KEPT, REJECTED

MOST_ROWS = 500
"""Members or shards that a table lists; the card lists all."""
_BINS = 40
_DRAWN_QUANTILE = 0.999  # one enormous bitmap would squeeze all others into the first bin
_SECTIONS = {
    "records": "Records",
    "charts": "Balance, sizes, ink",
    "characters": "Characters",
    "writers": "Writers",
    "steps": "Steps",
    "suspicious": "Suspicious",
    "origin": "Origin",
    "settings": "Settings",
}


def write_report(inspected: Inspected, path: str, against: Sequence[str]) -> str:
    """Writes the report and returns a line about it."""
    storage.check_output(path, COMMAND)
    facts = gather(inspected)
    contact = Contact(inspected, against)
    charts = [
        _balance(inspected, facts),
        _histogram(inspected, "Ink", "100.0 * ink_fraction", "ink, % of a bitmap's pixels", "%"),
        _histogram(inspected, "Width", "width", "width, pixels", "pixels"),
        _histogram(inspected, "Height", "height", "height, pixels", "pixels"),
    ]
    sections = [
        _head(inspected, facts),
        _records(inspected, facts),
        section("charts", "Balance, sizes and ink", f'<div class="grid2">{"".join(charts)}</div>'),
        contact.by_character(),
        contact.by_writer(),
        contact.six_steps(),
        contact.suspicious(facts),
        _origin(inspected.card),
        _settings(inspected),
    ]
    title = f"{storage.base_name(inspected.folder)}: data set report"
    content = document(title, sections, mark_of(COMMAND)).encode()
    with explained(f"write {path}"):
        storage.write_output(path, content, COMMAND)
    return f"{path}: {len(content):,} bytes"


def _head(inspected: Inspected, facts: Facts) -> str:
    card = inspected.card
    counts = Counter[str]()
    for split in card.splits.values():
        counts.update({"read": split.counts.read, **split.counts.by_status})
    (writers,) = inspected.query("SELECT count(DISTINCT writer) FROM manifest")[0]
    (characters,) = inspected.query("SELECT count(DISTINCT label) FROM manifest WHERE status = 'kept'")[0]
    figures = {**counts, "characters": characters, "writers": writers}
    tiles = "".join(f"<div><b>{n:,}</b><small>{name}</small></div>" for name, n in figures.items())
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in _SECTIONS.items())
    leak = facts.identical.across
    alarm = f'<p class="alarm">Leak: bitmaps in more than one split: {leak:,}</p>' if leak else ""
    return (
        f"<h1>{text(storage.base_name(inspected.folder))}</h1>"
        f'<p class="soft">images {card.image_size} × {card.image_size} px, {text(card.image_encoding)}; '
        f"{card.class_count:,} classes; format {text(card.format_version)}</p>{alarm}"
        f'<div class="figures">{tiles}</div><nav>{links}</nav>'
    )


def _records(inspected: Inspected, facts: Facts) -> str:
    card = inspected.card
    kinds = (KEPT, DROPPED, REJECTED)
    funnel = {name: [*split.counts.by_status.items()] for name, split in card.splits.items()}
    drawing = chart("What became of the records read", legend(kinds), bars_chart(funnel, "records"))
    reasons = [
        [name, status, reason, n]
        for name, split in card.splits.items()
        for status, by_reason in ((DROPPED, split.counts.dropped), (REJECTED, split.counts.rejected))
        for reason, n in by_reason.items()
    ]
    why = table(["split", "status", "reason", "records"], reasons) if reasons else "<p>Every record was kept.</p>"
    inputs = sorted(card.inputs, key=lambda entry: (-entry.counts.by_status[REJECTED], _kept_share(entry)))
    header = ["split", "member", "writer", "archive", "read", KEPT, DROPPED, REJECTED, "kept, %", "bytes lost"]
    members = folded(
        f"{len(inputs):,} members, those with most rejected records first",
        table(header, (_member_row(entry) for entry in inputs[:MOST_ROWS])) + _more(len(inputs)),
    )
    notes = "".join(
        f"<li><b>{text(title)}</b>: {'<br>'.join(text(line) for line in lines if line)}</li>"
        for title, lines in findings(facts, official_lines(card))
    )
    side = f'<div class="card"><h3>Why records weren\'t kept</h3>{why}</div>'
    return section(
        "records",
        "Records",
        f'<div class="grid2">{drawing}{side}</div>',
        members,
        f'<div class="card"><ul>{notes}</ul></div>',
    )


def _balance(inspected: Inspected, facts: Facts) -> str:
    """How many kept records each character has, a line for each split."""
    counted = inspected.query(
        "SELECT split, count(*) AS n FROM manifest WHERE status = 'kept' GROUP BY split, label ORDER BY split, n"
    )
    series: dict[str, list[tuple[float, float]]] = {name: [] for name in inspected.card.splits}
    for split, n in counted:
        series[split].append((len(series[split]), n))
    series = {name: [*points, (len(points), points[-1][1])] for name, points in series.items() if points}
    title = "Class balance"
    if not series:
        return chart(title, "<p>No record was kept.</p>")
    notes = "; ".join(
        f"{name}: {one.characters:,} characters with {_between(spread)} records"
        for name, one in facts.splits.items()
        if (spread := one.records_per_character)
    )
    drawing = steps_chart(series, "characters, rarest first", "kept records of a character")
    return chart(title, legend(series), drawing, f'<p class="soft">{text(notes)}</p>')


def _between(spread: Spread) -> str:
    return f"{spread.least:,.0f}" + (f" to {spread.most:,.0f}" if spread.most > spread.least else "")


def _histogram(inspected: Inspected, title: str, measure: str, x_title: str, unit: str) -> str:
    """The share of each split's bitmaps in each of some bins."""
    chosen = "FROM manifest WHERE bitmap_digest IS NOT NULL"
    ((low, high, most),) = inspected.query(
        f"SELECT min({measure}), quantile_disc({measure}, {_DRAWN_QUANTILE}), max({measure}) {chosen}"
    )
    if low is None:
        return chart(title, "<p>No bitmap could be read.</p>")
    width = max(1, -(-(int(high) + 1 - int(low)) // _BINS))
    first = int(low) // width
    last = int(high) // width
    counted = inspected.query(
        f"SELECT split, floor({measure} / {width})::INTEGER AS bin, count(*) {chosen} GROUP BY ALL"
    )
    by_split: dict[str, dict[int, int]] = {}
    for split, number, n in counted:
        by_split.setdefault(split, {})[number] = n
    series = {}
    for name in inspected.card.splits:
        if name in by_split:
            total = sum(by_split[name].values())
            shares = [(i * width, 100 * by_split[name].get(i, 0) / total) for i in range(first, last + 1)]
            series[name] = [(shares[0][0], 0.0), *shares, ((last + 1) * width, 0.0)]
    beyond = sum(n for _, number, n in counted if number > last)
    note = f'<p class="soft">Not drawn: {beyond:,} bitmaps of up to {float(most):,.0f} {unit}.</p>' if beyond else ""
    drawing = steps_chart(series, f"{x_title} (bins of {width})", "% of the split's bitmaps")
    return chart(title, legend(series), drawing, note)


def _origin(card: Card) -> str:
    origin = card.origin
    if origin is None:
        said = "Whose handwriting it is, and on what terms, isn't on the card; convert's --origin puts it there."
        return section("origin", "Origin", f'<div class="card"><p>{said}</p></div>')
    facts = {"name": origin.name, "licence": origin.license or "none is stated", "homepage": origin.homepage}
    rows = [[name, value] for name, value in facts.items() if value]
    cite = f'<p>Cite:</p><div class="scroll"><pre>{_lines(origin.citation)}</pre></div>' if origin.citation else ""
    return section("origin", "Origin", f'<div class="card">{table(["", ""], rows)}{cite}</div>')


def _lines(value: str) -> str:
    return "\n".join(map(text, value.splitlines()))


def _settings(inspected: Inspected) -> str:
    card = inspected.card
    shards = [file for split in card.splits.values() for file in split.shards]
    header = ["shard", "records", "bytes", "SHA-256", "manifest rows", "manifest bytes", "manifest SHA-256"]
    rows = [
        [f.path, f.records, f.bytes, f.sha256, f.manifest_rows, f.manifest_bytes, f.manifest_sha256]
        for f in shards[:MOST_ROWS]
    ]
    values = ([name, str(value)] for name, value in settings_of(card).items())
    return section(
        "settings",
        "Settings and digests",
        f'<div class="card">{table(["setting", "value"], values)}</div>',
        folded(f"{len(shards):,} shards and their digests", table(header, rows) + _more(len(shards))),
    )


def _kept_share(entry: MemberInput) -> float:
    return 100 * entry.counts.kept / max(1, entry.counts.read)


def _member_row(entry: MemberInput) -> list[object]:
    names = (entry.split, entry.member, entry.writer, entry.archive)
    return [
        *names,
        entry.counts.read,
        *entry.counts.by_status.values(),
        round(_kept_share(entry), 1),
        entry.lost_bytes or 0,
    ]


def _more(count: int) -> str:
    return f"<p>… and {count - MOST_ROWS:,} more, in dataset.json.</p>" if count > MOST_ROWS else ""
