"""Joins the pieces that a font was cut into for the web, keeping the characters of the default class list.

python scripts/join_font.py FOLDER FONT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from fontTools.merge import Merger
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from schemas.classes import default_classes

_LAYOUT = ("GSUB", "GPOS", "GDEF", "BASE", "STAT", "VORG", "kern", "vhea", "vmtx")


def main(folder: Path, font: Path) -> None:
    wanted = {ord(character) for character in default_classes().characters}
    with tempfile.TemporaryDirectory() as temporary:
        pieces = []
        for path in sorted(folder.iterdir()):
            piece = TTFont(path, recalcTimestamp=False)
            found = wanted & set(piece.getBestCmap())
            if not found:
                continue
            subsetter = Subsetter(Options(layout_features=[], name_IDs=[], hinting=False))
            subsetter.populate(unicodes=found)
            subsetter.subset(piece)
            for table in _LAYOUT:
                if table in piece:
                    del piece[table]
            piece.flavor = None
            pieces.append(Path(temporary) / f"{len(pieces)}.ttf")
            piece.save(pieces[-1])
        if not pieces:
            sys.exit(f"{folder}: expected pieces of a font, found none")
        joined = Merger().merge(pieces)
        joined.recalcTimestamp = False
        joined["head"].created = joined["head"].modified = 0  # the same bytes each time
        joined.save(font)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
