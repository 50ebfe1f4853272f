"""A finished data set read back, here or behind a URL: its card, its manifest, its records in any order"""

from __future__ import annotations


def check_where(text: str) -> None:
    """Raises UserError for a text that is no condition on the manifest; what takes Arrow is imported only then."""
    from pipeline.reader.where import Where

    Where(text)
