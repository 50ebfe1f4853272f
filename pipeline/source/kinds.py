"""What a file is that isn't GNT: called by its name, from its first bytes, with what to do about it.

What people download beside GNT is sound as a rule, and only of another kind: nothing here says 'damaged'.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.source.gnt import HEADER_BYTES, MAX_RECORD_BYTES
from schemas.classes import character_of
from schemas.machine import is_litter

HEAD_BYTES = 64 << 10  # 64 KiB: the longest that is looked for, a whole character of .pot


@dataclass(frozen=True)
class Kind:
    """What a file is, in words."""

    what: str
    """With its article: an HTML page."""
    advice: str
    """What to do with it, where its bytes were meant."""
    is_harmless: bool = False
    """Nobody would expect handwriting in it."""


_UNPACK = "unpack it and name the folder it fills"
_RAR = Kind("a RAR archive", "unpack it with unrar or 7-Zip and name the folder it fills")
_7Z = Kind("a 7z archive", "unpack it with 7z x and name the folder it fills")
_GZIP = Kind("a gzip archive", "unpack it with gunzip, or tar xf, and name what it holds")
_ALZ = Kind("an .alz archive", "unpack it with unalz and name the folder it fills")
ZIP = Kind("a zip", "rename it, so that it ends in .zip")
VOLUME = Kind("a volume of a split archive", "with all volumes in one folder unpack the first by 7z x, and name that")
GNT = Kind("GNT under another name", "rename it, so that it ends in .gnt")
_HTML = Kind("an HTML page", "it is what a download that failed leaves: download it again")
_LFS = Kind("a Git LFS pointer", "fetch the file itself with git lfs pull")
_UNFINISHED = Kind("an unfinished download", "let it finish, or download it again")
_POT = Kind("online handwriting (.pot)", "it holds strokes, not images: take HWDB's .gnt archives")
_PAGE = Kind("pages of online handwriting (.wptt, .ptts)", "it holds strokes, not images: take HWDB's .gnt archives")
_DGRL = Kind("handwritten text lines (.dgrl)", "it holds lines, not characters: take HWDB1.x's .gnt archives")
_MPF = Kind("features of characters (.mpf)", "it holds no images: take HWDB's .gnt archives")
_IMAGE = Kind("an image", "leave it out; model.predict reads images", is_harmless=True)
_PDF = Kind("a PDF", "leave it out", is_harmless=True)
_TEXT = Kind("text", "look into it: a download that failed leaves a message", is_harmless=True)
_SYSTEM = Kind("a file of the system's", "leave it out", is_harmless=True)
_EMPTY = Kind("an empty file", "download it again", is_harmless=True)
OTHER = Kind("a file of another kind", "leave it out, or convert it to GNT")

_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"Rar!\x1a\x07", _RAR),
    (0, b"RE~^", _RAR),
    (0, b"7z\xbc\xaf\x27\x1c", _7Z),
    (0, b"\x1f\x8b\x08", _GZIP),
    (0, b"\x1f\x9d", Kind("a .Z archive", "unpack it with uncompress and name what it holds")),
    (0, b"BZh", Kind("a bzip2 archive", "unpack it with bunzip2, or tar xf, and name what it holds")),
    (0, b"\xfd7zXZ\0", Kind("an xz archive", "unpack it with unxz, or tar xf, and name what it holds")),
    (0, b"\x28\xb5\x2f\xfd", Kind("a zstd archive", "unpack it with unzstd, or tar xf, and name what it holds")),
    (0, b"\x04\x22\x4d\x18", Kind("an lz4 archive", "unpack it with unlz4 and name what it holds")),
    (0, b"LZIP", Kind("an lzip archive", "unpack it with lunzip and name what it holds")),
    (0, b"ALZ\x01", _ALZ),
    (0, b"EGGA", Kind("an .egg archive", "unpack it with unegg or Bandizip and name the folder it fills")),
    (257, b"ustar", Kind("a tar archive", "unpack it with tar xf and name the folder it fills")),
    (0, b"MSCF", Kind("a cabinet", _UNPACK)),
    (7, b"**ACE**", Kind("an ACE archive", _UNPACK)),
    (2, b"-lh", Kind("an LHA archive", _UNPACK)),
    (32769, b"CD001", Kind("an image of a CD", "mount it, or unpack it with 7z x, and name the folder")),
    (0, b"PK\x07\x08", VOLUME),
    (0, b"PK00PK\x03\x04", ZIP),
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", ZIP),
    (4, b"DGR", _DGRL),
    (4, b"MPF", _MPF),
    (4, b"WPTT", _PAGE),
    (4, b"PTTS", _PAGE),
    (0, b"%PDF", _PDF),
    (0, b"\x89PNG\r\n", _IMAGE),
    (0, b"\xff\xd8\xff", _IMAGE),
    (0, b"GIF8", _IMAGE),
    (0, b"II*\0", _IMAGE),
    (0, b"MM\0*", _IMAGE),
    (8, b"WEBP", _IMAGE),
    (0, b"\x89HDF\r\n", Kind("an HDF5 file", "export its images to GNT, or take CASIA's own archives")),
    (0, b"\x93NUMPY", Kind("a NumPy array", "export its images to GNT, or take CASIA's own archives")),
    (0, b"PAR1", Kind("a Parquet file", "export its images to GNT, or take CASIA's own archives")),
    (0, b"SQLite format 3", Kind("an SQLite file", "leave it out")),
    (0, b"\x7fELF", Kind("a program", "leave it out")),
    (0, b"MZ", Kind("a program, perhaps an archive that unpacks itself", _UNPACK)),
    (0, b"\xd0\xcf\x11\xe0", Kind("a file of Office's", "leave it out", is_harmless=True)),
    (0, b"\0\5\x16\7", _SYSTEM),  # macOS's AppleDouble
    (0, b"version https://git-lfs", _LFS),
)
_BY_NAME: tuple[tuple[str, Kind], ...] = (
    (r"\.(part|partial|crdownload|download|opdownload|filepart|aria2|!ut|!qb|bc!|td|xltd|tmp|temp)", _UNFINISHED),
    (r"\.(zip|7z|rar|alz|gz|gnt)\.\d{3}|\.(z|r)\d\d|\.part\d+\.rar", VOLUME),
    (r"\.rar", _RAR),
    (r"\.7z", _7Z),
    (r"\.(gz|tgz)", _GZIP),
    (r"\.alz", _ALZ),
    (r"\.(tar|bz2|tbz2?|xz|txz|zst|lz4|lz|egg|cab|ace|lzh|lha|iso)", Kind("an archive of another kind", _UNPACK)),
    (r"\.zip[^a-z\d].*", ZIP),
    (r"\.pot", _POT),
    (r"\.(wptt|ptts)", _PAGE),
    (r"\.dgrl?", _DGRL),
    (r"\.mpf", _MPF),
    (r"\.gnt.+", GNT),
)
"""A name's end -> what it promises, where the bytes don't tell."""
_HARMLESS_NAMES = {"license", "licence", "readme", "makefile"}
_SUFFIXES = (
    (_TEXT, "txt md rst htm html url webloc xml json csv tsv yaml yml log ini cfg nfo tex bib"),
    (_TEXT, "md5 sha1 sha256 sha512 sfv c cc cpp h hpp py ipynb m sh bat java js css"),
    (_IMAGE, "png jpg jpeg gif bmp tif tiff webp svg ico ppm pgm"),
    (_PDF, "pdf ps djvu"),
    (Kind("a document", "leave it out", is_harmless=True), "doc docx xls xlsx ppt pptx odt ods rtf"),
    (Kind("a file of a data set", "leave it out", is_harmless=True), "tfrecord parquet idx"),
    (_SYSTEM, "lnk"),
)
_HARMLESS = {suffix: kind for kind, suffixes in _SUFFIXES for suffix in suffixes.split()}
_HTML_BEGINS = re.compile(
    rb"(?is)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype|html|head|body|script|meta|\?xml|error)\b"
)


def of_bytes(head: bytes) -> Kind | None:
    """What a file is that begins so (its first HEAD_BYTES); None where nothing tells. GNT is GNT."""
    if not head:
        return _EMPTY
    if is_gnt(head):
        return GNT
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return _IMAGE
    if _HTML_BEGINS.match(head):
        return _HTML
    if _is_pot(head):
        return _POT
    return _TEXT if _is_text(head) else None


def of_file(name: str, read_head: Callable[[], bytes | None]) -> Kind:
    """What a file is that is neither called .gnt nor .zip; `name` is its path in the folder or zip.

    Its bytes are asked for only where the name doesn't say that nobody would expect handwriting in it; None if they
    can't be had.
    """
    base = name.lower().rpartition("/")[2]
    if base in _HARMLESS_NAMES or is_litter(name):
        return _SYSTEM
    promised = next((kind for end, kind in _BY_NAME if re.fullmatch(f".*?(?:{end})", base, re.DOTALL)), None)
    suffix = base.rpartition(".")[2] if "." in base else ""
    if suffix in _HARMLESS and not (promised and suffix == "txt"):  # Windows adds .txt, and hides it
        return _HARMLESS[suffix]
    head = read_head()
    found = of_bytes(head) if head is not None else None
    if promised is _UNFINISHED or (promised is VOLUME and found in (None, ZIP, _RAR, _7Z)):
        return promised
    if promised in (_POT, _PAGE, _DGRL, _MPF) and found in (None, _TEXT):
        return promised
    if found is None:
        return OTHER if promised is None or (promised is GNT and head is not None) else promised
    return replace(found, is_harmless=False) if promised else found


def is_gnt(head: bytes) -> bool:
    """Whether a file that begins so holds a GNT record, and behind it, as far as one can see, others."""
    at = 0
    while at + HEADER_BYTES <= len(head):
        size, tag, width, height = struct.unpack_from("<I2sHH", head, at)
        if size != HEADER_BYTES + width * height or not HEADER_BYTES < size <= MAX_RECORD_BYTES:
            return False
        if character_of(tag) is None:
            return False
        at += size
    return at > 0


def _is_pot(head: bytes) -> bool:
    """A character of CASIA-OLHWDB: its length (uint16), a tag of four bytes, strokes that end in (-1, 0), (-1, -1)."""
    if len(head) < 16:
        return False
    (size,) = struct.unpack_from("<H", head)
    return 16 <= size <= len(head) and head[size - 8 : size] == b"\xff\xff\0\0\xff\xff\xff\xff"


def _is_text(head: bytes) -> bool:
    sample = head[:4096]
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if any(octet < 32 and octet not in b"\t\n\r\f\x1b" for octet in sample):
        return False
    for codec in ("utf-8", "gb18030"):
        try:
            # The last character may be cut.
            sample[:-4].decode(codec) if len(sample) > 4 else sample.decode(codec)
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 8:
                continue
        return True
    return False


ADVICE = {kind.what: kind.advice for _, _, kind in _SIGNATURES} | {
    kind.what: kind.advice for kind in (_EMPTY, _HTML, _POT, _IMAGE, _TEXT)
}
"""What `of_bytes` says -> what to do."""
