"""Files of any other store that pyarrow.fs opens: gs://, abfs://, hdfs://."""

from __future__ import annotations

import functools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

from pipeline.storage.local import StoredFile
from pipeline.storage.remote import RemoteFiles, shown
from schemas.errors import UserError

_RETRY_SECONDS = 30  # on gs://, where it would be a quarter of an hour
_DELETED_AT_ONCE = 16
_CREDENTIALS = (
    "set GOOGLE_APPLICATION_CREDENTIALS for gs://, AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET for abfs://"
)
_LOOK_AGAIN = "run the same command again; if it comes back, check that the store can be reached"


class ArrowFiles(RemoteFiles):
    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        with self.asked("read", path) as files:
            if size is None:  # one request, where a range takes three
                with files.open_input_stream(_key(path)) as stream:
                    return stream.read()[begin:]
            try:
                with files.open_input_file(_key(path)) as file:
                    return file.read_at(size, begin)
            except ValueError as error:
                if "OUT_OF_RANGE" in str(error):
                    return b""
                raise

    def upload(self, path: str, stream: IO[bytes]) -> None:
        content = stream.read()
        try:
            # In one piece: what was begun would be kept, since a stream that is collected is closed.
            with self.asked("write", path) as files, files.open_output_stream(_key(path)) as target:
                target.write(content)
        except FileNotFoundError as error:
            raise UserError(f"can't write {path}: there is no {_root(path)}; make it, or check its name") from error

    def status(self, path: str) -> StoredFile | None:
        with self.asked("look at", path) as files:
            found = files.get_file_info(_key(path))
        return _stored(path, found) if found.is_file else None

    def list_prefix(self, prefix: str, *, deep: bool) -> list[StoredFile]:
        urls = ((f"{_root(prefix)}/{one.path}", one) for one in self._below(prefix, deep=deep) if one.is_file)
        return shown(_stored(url, one) for url, one in urls if url.startswith(prefix))

    def names(self, folder: str) -> list[str]:
        found = self._below(folder.rstrip("/") + "/", deep=False)
        return sorted(one.base_name if one.is_file else f"{one.base_name}/" for one in found)

    def _below(self, prefix: str, *, deep: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        folder = _key(prefix).rpartition("/")[0]
        with self.asked("list", prefix) as files:
            found: list[Any] = files.get_file_info(FileSelector(folder, recursive=deep, allow_not_found=True))
            return found

    def delete(self, paths: list[str]) -> None:
        def delete_one(path: str) -> None:
            with suppress(FileNotFoundError), self.asked("delete", path) as files:
                files.delete_file(_key(path))

        with ThreadPoolExecutor(_DELETED_AT_ONCE) as executor:
            list(executor.map(delete_one, paths))

    def connect(self, url: str) -> Any:
        expected = f"{url}: expected a path, or a URL with s3://, gs://, abfs:// or hdfs://"
        scheme = url.partition("://")[0]
        if scheme in ("http", "https", "ftp"):
            raise UserError(f"{expected}, found {scheme}://; download it, and name the file here")
        if scheme == "file":
            raise UserError(f"{expected}, found file://; name a local file by its path")
        try:
            return _connect(os.getpid(), _root(url))
        except (ValueError, OSError) as error:
            raise UserError(f"{expected}, found another; pyarrow says: {str(error).splitlines()[0]}") from error

    def explain(self, error: Exception, url: str) -> str:  # noqa: ARG002
        # Google's client says a status, a text and much that only its programmers read.
        said = re.sub(r"google::cloud::Status\((.*?) error_info=.*", r"\1", " ".join(str(error).split()))
        is_refused = re.search("credential|authenticat|permission|forbidden", said, re.IGNORECASE)
        return f"{said}; {_CREDENTIALS if is_refused else _LOOK_AGAIN}"


def _stored(url: str, found: Any) -> StoredFile:
    return StoredFile(url, found.size, str(found.mtime_ns))


def _root(url: str) -> str:
    """scheme://bucket"""
    return "/".join(url.split("/", 3)[:3])


def _key(url: str) -> str:
    return url.removeprefix(_root(url)).removeprefix("/")


@functools.lru_cache
def _connect(_process: int, root: str) -> Any:
    """A file system of what lies below, shared by the threads of a process."""
    from pyarrow import fs

    url = f"{root}/"
    if root.startswith(("gs://", "gcs://")):
        url += f"?retry_limit_seconds={_RETRY_SECONDS}"
        if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
            scheme, _, host = emulator.rpartition("://")
            url = url.replace("://", "://anonymous@", 1) + f"&scheme={scheme or 'http'}&endpoint_override={host}"
    files, folder = fs.FileSystem.from_uri(url)
    return fs.SubTreeFileSystem(folder, files)
