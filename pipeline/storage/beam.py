"""What Beam gives: the flags by which URLs are opened, and the stores that only it knows."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from pipeline.storage.local import StoredFile
from pipeline.storage.remote import PIECE_BYTES, RemoteFiles, shown
from schemas.errors import UserError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_AS_IT_IS = "uncompressed"
"""Beam's CompressionTypes.UNCOMPRESSED."""
_LOOK_AGAIN = "run the same command again; if it comes back, check that the store can be reached"

_flags: tuple[str, ...] = ()
_are_set = True
"""Whether Beam has them; a worker has got its pipeline's."""
_loading = threading.Lock()


def use_flags(flags: Sequence[str]) -> None:
    """Flags of Beam, for instance --s3_endpoint_url: this process opens URLs with them until a pipeline has its own."""
    global _flags, _are_set
    _flags, _are_set = tuple(flags), False


def used_flags() -> tuple[str, ...]:
    return _flags


def use_known_flags(flags: Sequence[str]) -> None:
    """The same for a command without a pipeline. Raises UserError for flags that Beam doesn't know, or can't read."""
    if not flags:
        return
    words = [flag for flag in flags if not re.fullmatch(r"--\w+(=.*)?", flag, re.DOTALL)]
    if words:
        raise UserError(f"unrecognized arguments: {' '.join(words)}; Beam's flags are given as --name=value")
    from apache_beam.options.pipeline_options import PipelineOptions

    _, unknown = parsed_flags(PipelineOptions(list(flags)))
    if unknown:
        raise UserError(f"--{unknown[0]}: neither this command nor Beam knows this flag; --help lists ours")
    use_flags(flags)


def parsed_flags(options: PipelineOptions) -> tuple[dict[str, Any], list[str]]:
    """Every flag that Beam knows, with its value, and the names of those it doesn't. Raises UserError."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known: dict[str, Any] = options.get_all_options()
            everything = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:
        raise UserError(complaint.getvalue().strip().rpartition("error: ")[2]) from error
    return known, sorted(everything.keys() - known.keys())


def file_systems() -> Any:
    """Beam's FileSystems, which have this process's options."""
    global _are_set
    with _loading:
        if not logging.getLogger().handlers:
            logging.getLogger().addHandler(logging.NullHandler())  # errors reach the user as exceptions
        from apache_beam.io.filesystems import FileSystems  # some seconds to import, and only URLs need it
        from apache_beam.options.pipeline_options import PipelineOptions

        if not _are_set or FileSystems._pipeline_options is None:
            FileSystems.set_options(PipelineOptions(list(_flags)))
            _are_set = True
        return FileSystems


def options() -> Any:
    """By which URLs are opened: in a worker its pipeline's, else those of the flags."""
    return file_systems()._pipeline_options


def s3_options(options: PipelineOptions) -> Any:
    from apache_beam.options.pipeline_options import S3Options

    return options.view_as(S3Options)


def translated(pattern: str) -> str:
    """The regular expression of a pattern of URLs."""
    from apache_beam.io.filesystem import FileSystem

    return str(FileSystem.translate_pattern(pattern))


class BeamFiles(RemoteFiles):
    """Any store that Beam has a file system for."""

    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        with _asked("read", path) as files:
            try:
                with files.open(path, compression_type=_AS_IT_IS) as stream:
                    # A buffer would read more than is asked for.
                    raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
                    raw.seek(begin)
                    pieces = []
                    left = -1 if size is None else size
                    while left and (piece := raw.read(left)):
                        pieces.append(piece)
                        left -= len(piece) if size is not None else 0
                    return b"".join(pieces)
            except Exception as error:
                if isinstance(error, FileNotFoundError) or not files.exists(path):
                    raise FileNotFoundError(errno.ENOENT, "there is no such file", path) from error
                raise

    def upload(self, path: str, stream: IO[bytes]) -> None:
        with _asked("write", path) as files:
            target = files.create(path, compression_type=_AS_IT_IS)
            try:
                while piece := stream.read(PIECE_BYTES):
                    target.write(piece)
            except BaseException:
                # What is collected is closed, and what is closed would be kept.
                getattr(target, "terminate", lambda: None)()
                raise
            target.close()

    def status(self, path: str) -> StoredFile | None:
        with _asked("look at", path) as files:
            try:
                return _stored(files.metadata(path))
            except Exception:
                if not files.exists(path):
                    return None
                raise

    def list_folder(self, folder: str, *, deep: bool = False) -> list[StoredFile]:
        inside = folder.rstrip("/") + "/"
        found = self.match(re.sub(r"[\[*?]", "?", inside) + ("**" if deep else "*"))
        return [file for file in found if file.path.startswith(inside)]

    def match(self, pattern: str) -> list[StoredFile]:
        with _asked("list", pattern) as files:
            return shown(map(_stored, files.match([pattern])[0].metadata_list))

    def delete(self, paths: list[str]) -> None:
        with _asked("delete", paths[0]) as files:
            for first in range(0, len(paths), files.CHUNK_SIZE):
                files.delete(paths[first : first + files.CHUNK_SIZE])


def _stored(metadata: Any) -> StoredFile:
    # Seconds: some stores say more in a listing than of one object.
    return StoredFile(metadata.path, metadata.size_in_bytes, str(int(metadata.last_updated_in_seconds)))


@contextlib.contextmanager
def _asked(doing: str, url: str) -> Iterator[Any]:
    """Beam's file system for a URL. What it raises becomes the one line of a UserError."""
    try:
        files = file_systems().get_filesystem(url)
    except ValueError as error:
        raise UserError(
            f"{url}: expected a path, or a URL that Beam can open, found neither; for gs:// install "
            "apache-beam[gcp], and name a file:// URL by its path"
        ) from error
    try:
        yield files
    except FileNotFoundError:
        raise
    except Exception as error:
        cause: Any = error
        while details := getattr(cause, "exception_details", None):  # an exception for each file of an operation
            cause = next(iter(details.values()))
        reason = str(cause) if isinstance(cause, OSError) else f"{type(cause).__name__}: {cause}"
        raise UserError(f"can't {doing} {url}: {reason}; {_LOOK_AGAIN}") from error
