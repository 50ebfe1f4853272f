"""Files behind URLs, by Beam's FileSystems: ranges where a part is wanted, objects that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from schemas.errors import UserError

PIECE_BYTES = 32 << 20  # 32 MiB: what is handed to a store at once; a staged chunk is most often one piece
_LOOK_AGAIN = "run the same command again; if it comes back, check that the store can be reached"

Found = tuple[str, int, str]
"""(URL, size in bytes, version)"""


def use_flags(flags: Sequence[str]) -> None:
    """Flags of Beam, for instance --s3_endpoint_url: this process opens URLs with them until a pipeline has its own."""
    _settings.flags, _settings.are_set = tuple(flags), False


def used_flags() -> tuple[str, ...]:
    return _settings.flags


def use_known_flags(flags: Sequence[str]) -> None:
    """The same for a command without a pipeline. Raises UserError for flags that Beam doesn't know, or can't read."""
    if not flags:
        return
    words = [flag for flag in flags if not re.fullmatch(r"--\w+(=.*)?", flag, re.DOTALL)]
    if words:
        raise UserError(f"unrecognized arguments: {' '.join(words)}; Beam's flags are given as --name=value")
    from apache_beam.options.pipeline_options import PipelineOptions

    complaint = io.StringIO()
    options = PipelineOptions(list(flags))
    try:
        with contextlib.redirect_stderr(complaint):
            known = options.get_all_options()
            unknown = sorted(options.get_all_options(retain_unknown_options=True).keys() - known.keys())
    except SystemExit as error:
        raise UserError(complaint.getvalue().strip().rpartition("error: ")[2]) from error
    if unknown:
        raise UserError(f"--{unknown[0]}: neither this command nor Beam knows this flag; --help lists ours")
    use_flags(flags)


def read_range(url: str, begin: int, size: int | None) -> bytes:
    """`size` bytes from `begin` on, or all; fewer where the file ends earlier. Raises FileNotFoundError."""
    with _explained("read", url):
        files = _file_system(url)
        try:
            return _readers.get(type(files), _read_stream)(files, url, begin, size)
        except Exception as error:
            if isinstance(error, FileNotFoundError) or _is_missing(files, url, error):
                raise FileNotFoundError(errno.ENOENT, "there is no such file", url) from error
            raise


def open_read(url: str, begin: int, end: int | None, buffer_bytes: int) -> BinaryIO:
    """A seekable stream of a file up to byte `end`, at `begin`; what it asks for it asks for by range."""
    if end is None:
        found = status(url)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", url)
        end = found[1]
    stream = io.BufferedReader(_Ranges(url, end), max(1, min(buffer_bytes, end - begin)))
    stream.seek(begin)
    return cast(BinaryIO, stream)


@contextlib.contextmanager
def gathered() -> Iterator[BinaryIO]:
    """Where the bytes of a file are gathered until they are whole: in memory, larger ones on the disk."""
    with tempfile.SpooledTemporaryFile(PIECE_BYTES) as stream:
        yield cast(BinaryIO, stream)


def upload(url: str, stream: BinaryIO) -> None:
    """Writes the file, all of it; if that fails, none of it shows."""
    with _explained("write", url):
        stream.seek(0)
        target = _file_system(url).create(url, compression_type=_uncompressed())
        try:
            while piece := stream.read(PIECE_BYTES):
                target.write(piece)
        except BaseException:
            # What is collected is closed, and what is closed would be kept.
            getattr(target, "terminate", lambda: None)()
            raise
        target.close()


def status(url: str) -> Found | None:
    """One file; None if there is no such file."""
    with _explained("look at", url):
        files = _file_system(url)
        if _is_root(url):
            return None
        try:
            return _found(files.metadata(url))
        except Exception as error:
            if _is_missing(files, url, error):
                return None
            raise


def match(pattern: str) -> list[Found]:
    """The files that a pattern matches, sorted by URL; `*` stays in a folder, `**` doesn't."""
    with _explained("list", pattern):
        found = _file_system(pattern).match([pattern])[0].metadata_list
    return sorted(_found(one) for one in found if not one.path.endswith("/"))  # what a console made to show a folder


def match_in(folder: str, rest: str) -> list[Found]:
    """The files in a folder that match `rest`; the folder's name may hold what a pattern is made of."""
    inside = f"{folder.rstrip('/')}/"
    return [found for found in match(re.sub(r"[\[*?]", "?", inside) + rest) if found[0].startswith(inside)]


def delete(urls: Sequence[str]) -> None:
    with _explained("delete", urls[0]):
        files = _file_system(urls[0])
        for first in range(0, len(urls), files.CHUNK_SIZE):
            files.delete(list(urls[first : first + files.CHUNK_SIZE]))


def _is_missing(files: Any, url: str, error: Exception) -> bool:
    """Whether that is what an error means: file systems say so in ways of their own, but for the stores' 404."""
    cause = _cause(error)
    return getattr(cause, "code", None) == 404 or (not hasattr(cause, "advice") and not files.exists(url))


class _Ranges(io.RawIOBase):
    """The bytes of a file up to `end`, each read a range."""

    def __init__(self, url: str, end: int) -> None:
        self._url, self._end = url, end
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        if base + offset < 0:
            raise OSError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._end - self._at)
        if size <= 0:
            return 0
        data = read_range(self._url, self._at, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _read_stream(files: Any, url: str, begin: int, size: int | None) -> bytes:
    """A range of a file system that only has streams; a buffer would read more than is asked for."""
    with files.open(url, compression_type=_uncompressed()) as stream:
        raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
        raw.seek(begin)
        pieces = []
        left = -1 if size is None else size
        while left and (piece := raw.read(left)):
            pieces.append(piece)
            left -= len(piece) if size is not None else 0
    return b"".join(pieces)


def _found(metadata: Any) -> Found:
    # Seconds: some stores say more in a listing than of one object.
    return metadata.path, metadata.size_in_bytes, str(int(metadata.last_updated_in_seconds))


def _is_root(url: str) -> bool:
    """Whether a URL names a bucket and nothing in it."""
    return "/" not in url.partition("://")[2].rstrip("/")


@dataclass
class _Settings:
    flags: tuple[str, ...] = ()
    are_set: bool = True
    """Whether Beam has them; a worker has got its pipeline's."""


_settings = _Settings()
_readers: dict[type, Callable[[Any, str, int, int | None], bytes]] = {}
_loading = threading.Lock()


def _file_system(url: str) -> Any:
    """Beam's file system for a URL. Raises UserError where it has none."""
    with _loading:
        systems = _load()
    try:
        return systems.get_filesystem(url)
    except ValueError as error:
        raise UserError(
            f"{url}: expected a path, or a URL that Beam can open, found neither; for gs:// install apache-beam[gcp], "
            "for s3:// apache-beam[aws], and name a file:// URL by its path"
        ) from error


def _load() -> Any:
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())  # errors reach the user as exceptions
    from apache_beam.io.filesystems import FileSystems  # some seconds to import, and only URLs need it
    from apache_beam.options.pipeline_options import PipelineOptions

    if not _readers:
        from pipeline.storage import s3

        _readers.update(s3.mend())
    if not _settings.are_set or FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions(list(_settings.flags)))
        _settings.are_set = True
    return FileSystems


def _uncompressed() -> str:
    from apache_beam.io.filesystem import CompressionTypes

    return cast(str, CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def _explained(doing: str, url: str) -> Iterator[None]:
    """What a file system raises becomes the one line of a UserError: each has exceptions of its own."""
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:
        cause = _cause(error)
        reason = str(cause) if isinstance(cause, OSError) else f"{type(cause).__name__}: {cause}"
        raise UserError(f"can't {doing} {url}: {reason}; {getattr(cause, 'advice', _LOOK_AGAIN)}") from error


def _cause(error: Any) -> Any:
    """What Beam has wrapped, an exception for each file of an operation."""
    while details := getattr(error, "exception_details", None):
        error = next(iter(details.values()))
    return error
