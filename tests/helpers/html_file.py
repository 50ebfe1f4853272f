"""A report's HTML, taken apart."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "line", "rect", "path", "polyline", "circle"}


class HtmlFile(HTMLParser):
    """Every tag closed in order, or it fails; collects the tags, the attributes, the text and that of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.sections: dict[str, str] = {}
        self.section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    @property
    def attributes(self) -> list[tuple[str, str, str]]:
        """(tag, name, value) of each."""
        return [(tag, name, value or "") for tag, attributes in self.tags for name, value in attributes.items()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
            self.sections[self.section] = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if self.section:
            self.sections[self.section] += data
