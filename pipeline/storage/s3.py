"""Objects of S3, by boto3: exact ranges, one connection pool a process, few requests, and waits that end.

Not by Beam's file system: there every operation makes a client of its own (a quarter of a second), a range is asked for
without its end, the smallest object takes three requests and an empty one can't be written, and where nothing answers,
retries on top of the client's wait for ten minutes. Nor by pyarrow.fs, which asks for a size before every range.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.storage import beam, remote
from pipeline.storage.local import StoredFile
from pipeline.storage.remote import RemoteFiles, shown
from schemas.errors import UserError

ATTEMPTS = 5
"""Of a request, by the client, unless AWS_MAX_ATTEMPTS or AWS_RETRY_MODE is set: half a minute at most."""
CONNECT_SECONDS = 5
READ_SECONDS = 20
POOL = 16
"""Connections kept open by a process."""
_BODY_ATTEMPTS = 4  # of a range whose bytes stopped coming; the client itself tries again only until they begin
_DELETED_AT_ONCE = 1000  # S3's limit

_OPTIONS = {
    "access_key_id": "aws_access_key_id",
    "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token",
    "endpoint_url": "endpoint_url",
    "region_name": "region_name",
    "api_version": "api_version",
    "verify": "verify",
}
"""Beam's option, without its s3_ -> boto3's argument."""
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_RESUMES = "run the same command again, it goes on from where it stopped"
_REFUSED = ("AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403")


class S3Files(RemoteFiles):
    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        if size == 0:
            return b""
        end = "" if size is None else begin + size - 1
        wanted = {} if (begin, size) == (0, None) else {"Range": f"bytes={begin}-{end}"}
        with _asked("read", path) as client:
            from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

            for attempt in range(1, _BODY_ATTEMPTS + 1):
                try:
                    body = client.get_object(**_place(path), **wanted)["Body"]
                except ClientError as error:
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                        return b""
                    raise
                try:
                    return body.read()
                except (HTTPClientError, IncompleteReadError):
                    if attempt == _BODY_ATTEMPTS:
                        raise
                    time.sleep(0.25 * 2**attempt)
        raise AssertionError

    def upload(self, path: str, stream: IO[bytes]) -> None:
        """One request, or parts, which are aborted if one fails."""
        with _asked("write", path) as client:
            from boto3.s3.transfer import TransferConfig

            # What has as many bytes as the threshold would go in parts.
            parts = TransferConfig(remote.PIECE_BYTES + 1, multipart_chunksize=remote.PIECE_BYTES, use_threads=False)
            client.upload_fileobj(stream, *_place(path).values(), Config=parts)

    def status(self, path: str) -> StoredFile | None:
        try:
            with _asked("look at", path) as client:
                found = client.head_object(**_place(path))
        except FileNotFoundError:
            return None
        return StoredFile(path, found["ContentLength"], _version(found))

    def list_folder(self, folder: str, *, deep: bool = False) -> list[StoredFile]:
        return self._list(folder.rstrip("/") + "/", **({} if deep else {"Delimiter": "/"}))

    def match(self, pattern: str) -> list[StoredFile]:
        fits = re.compile(beam.translated(pattern))
        return [file for file in self._list(re.split(r"[\[*?]", pattern)[0]) if fits.match(file.path)]

    def delete(self, paths: list[str]) -> None:
        bucket = _place(paths[0])["Bucket"]
        keys = [{"Key": _place(path)["Key"]} for path in paths]
        with _asked("delete", paths[0]) as client:
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                deleted = {"Objects": keys[first : first + _DELETED_AT_ONCE], "Quiet": True}
                for error in client.delete_objects(Bucket=bucket, Delete=deleted).get("Errors", []):
                    raise UserError(f"can't delete {paths[0]}: {error['Code']}: {error.get('Message', '')}; {_RESUMES}")

    def _list(self, prefix: str, **how: str) -> list[StoredFile]:
        bucket, key = _place(prefix).values()
        with _asked("list", prefix) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, **how)
            found = [one for page in pages for one in page.get("Contents", [])]
        return shown(StoredFile(f"s3://{bucket}/{one['Key']}", one["Size"], _version(one)) for one in found)


def _place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def _version(found: Any) -> str:
    return str(int(found["LastModified"].timestamp()))


@contextmanager
def _asked(doing: str, url: str) -> Iterator[Any]:
    """boto3's client. What it raises in the block becomes the one line of a UserError, or a FileNotFoundError."""
    try:
        import boto3  # noqa: F401
        from botocore import exceptions
    except ImportError as error:
        advice = "pip install 'hwdb-shards[s3]', or pip install boto3"
        raise UserError(f"can't {doing} {url}: the package boto3 is missing; {advice}") from error
    missing = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    try:
        yield _client()
        return
    except (UserError, FileNotFoundError):
        raise
    except exceptions.ClientError as error:
        reason, advice, cause = *_explain(error.response, url), error
    except missing as error:
        reason, advice, cause = f"expected credentials, found none that are whole ({error})", _CREDENTIALS, error
    except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
        advice = "check the network, and AWS_ENDPOINT_URL or --s3_endpoint_url"
        reason, cause = f"nothing answers ({error})", error
    except Exception as error:
        reason, advice, cause = f"{type(error).__name__}: {error}", f"if that was the network, {_RESUMES}", error
    raise UserError(f"can't {doing} {url}: {reason}; {advice}") from cause


def _explain(response: Any, url: str) -> tuple[str, str]:
    """(what went wrong, what to do). Raises FileNotFoundError if it is that there is no such object."""
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", "")) or code
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return f"there is no bucket {_place(url)['Bucket']}", "make it, or check its name"
    if status == 404:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", url)
    if code in _REFUSED or status in (401, 403):
        return f"the store refuses it ({code}: {said})", f"check the bucket's policy; {_CREDENTIALS}"
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return f"the bucket lies in another region ({code}: {said})", "set AWS_REGION, or --s3_region_name"
    attempts = response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
    return f"the store answered {status} {code} to {attempts} attempts ({said})", _RESUMES


_connected: tuple[int, Any, Any] | None = None
"""(process, Beam's options, boto3's client of them)"""
_connecting = threading.Lock()


def _client() -> Any:
    """Shared by the threads of a process; it can't be used on both sides of a fork."""
    global _connected
    options = beam.options()
    with _connecting:
        if _connected is None or _connected[0] != os.getpid() or _connected[1] is not options:
            _connected = (os.getpid(), options, _connect(options))
        return _connected[2]


def _connect(options: Any) -> Any:
    import boto3
    from botocore.config import Config

    given = beam.s3_options(options)
    arguments = {name: getattr(given, f"s3_{option}") for option, name in _OPTIONS.items()}
    if given.s3_disable_ssl:
        arguments["use_ssl"] = False
    is_set = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
    retries = {} if is_set else {"retries": {"mode": "standard", "total_max_attempts": ATTEMPTS}}
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, max_pool_connections=POOL, **retries)
    return boto3.session.Session().client("s3", config=config, **arguments)
