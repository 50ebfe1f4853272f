"""Objects of S3, by boto3: exact ranges, one connection pool a process, few requests, and waits that end.

Not by Beam's file system: there every operation makes a client of its own (a quarter of a second), a range is asked for
without its end, the smallest object takes three requests and an empty one can't be written, and where nothing answers,
retries on top of the client's wait for ten minutes. Nor by pyarrow.fs, which asks for a size before every range.
"""

from __future__ import annotations

import errno
import functools
import os
import threading
import time
from dataclasses import asdict
from typing import IO, Any

from pipeline.storage import remote
from pipeline.storage.flags import StoreFlags, used_flags
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

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_RESUMES = "run the same command again, it goes on from where it stopped"
_REFUSED = ("AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403")


class S3Files(RemoteFiles):
    def read_range(self, path: str, begin: int, size: int | None) -> bytes:
        if size == 0:
            return b""
        end = "" if size is None else begin + size - 1
        wanted = {} if (begin, size) == (0, None) else {"Range": f"bytes={begin}-{end}"}
        with self.asked("read", path) as client:
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
        with self.asked("write", path) as client:
            from boto3.s3.transfer import TransferConfig

            # What has as many bytes as the threshold would go in parts.
            parts = TransferConfig(remote.PIECE_BYTES + 1, multipart_chunksize=remote.PIECE_BYTES, use_threads=False)
            client.upload_fileobj(stream, *_place(path).values(), Config=parts)

    def status(self, path: str) -> StoredFile | None:
        try:
            with self.asked("look at", path) as client:
                found = client.head_object(**_place(path))
        except FileNotFoundError:
            return None
        return StoredFile(path, found["ContentLength"], _version(found))

    def list_prefix(self, prefix: str, *, deep: bool) -> list[StoredFile]:
        found = (one for page in self._pages(prefix, deep=deep) for one in page.get("Contents", []))
        root = f"s3://{_place(prefix)['Bucket']}"
        return shown(StoredFile(f"{root}/{one['Key']}", one["Size"], _version(one)) for one in found)

    def names(self, folder: str) -> list[str]:
        prefix = folder.rstrip("/") + "/"
        pages = self._pages(prefix, deep=False)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        keys += [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]
        return sorted(filter(None, (key.removeprefix(_place(prefix)["Key"]) for key in keys)))

    def _pages(self, prefix: str, *, deep: bool) -> list[Any]:
        bucket, key = _place(prefix).values()
        how = {"Bucket": bucket, "Prefix": key, **({} if deep else {"Delimiter": "/"})}
        with self.asked("list", prefix) as client:
            return list(client.get_paginator("list_objects_v2").paginate(**how))

    def delete(self, paths: list[str]) -> None:
        bucket = _place(paths[0])["Bucket"]
        keys = [{"Key": _place(path)["Key"]} for path in paths]
        with self.asked("delete", paths[0]) as client:
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                deleted = {"Objects": keys[first : first + _DELETED_AT_ONCE], "Quiet": True}
                for error in client.delete_objects(Bucket=bucket, Delete=deleted).get("Errors", []):
                    raise UserError(f"can't delete {paths[0]}: {error['Code']}: {error.get('Message', '')}; {_RESUMES}")

    def connect(self, url: str) -> Any:  # noqa: ARG002
        environment = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
        with _connecting:
            return _connect(os.getpid(), used_flags(), environment)

    def explain(self, error: Exception, url: str) -> str:
        if isinstance(error, ImportError):
            return "the package boto3 is missing; pip install 'hwdb-shards[s3]', or pip install boto3"
        from botocore import exceptions

        if isinstance(error, exceptions.ClientError):
            return _explain_answer(error.response, url)
        if isinstance(
            error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError | exceptions.ProfileNotFound
        ):
            return f"expected credentials, found none that are whole ({error}); {_CREDENTIALS}"
        if isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
            return f"nothing answers ({error}); check the network, and AWS_ENDPOINT_URL or --s3_endpoint_url"
        return f"{type(error).__name__}: {error}; if that was the network, {_RESUMES}"


def _place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def _version(found: Any) -> str:
    # Seconds, where a store has no ETag: a listing may say more than an object's own answer.
    return str(found.get("ETag") or int(found["LastModified"].timestamp()))


def _explain_answer(response: Any, url: str) -> str:
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", "")) or code
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return f"there is no bucket {_place(url)['Bucket']}; make it, or check its name"
    if status == 404:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", url)
    if code in _REFUSED or status in (401, 403):
        return f"the store refuses it ({code}: {said}); check the bucket's policy; {_CREDENTIALS}"
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return f"the bucket lies in another region ({code}: {said}); set AWS_REGION, or --s3_region_name"
    attempts = response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
    return f"the store answered {status} {code} to {attempts} attempts ({said}); {_RESUMES}"


@functools.lru_cache(1)
def _connect(_process: int, flags: StoreFlags, _environment: frozenset[tuple[str, str]]) -> Any:
    """boto3's client, shared by the threads of a process for as long as nothing tells it otherwise."""
    import boto3
    from botocore.config import Config

    is_set = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
    retries = {} if is_set else {"retries": {"mode": "standard", "total_max_attempts": ATTEMPTS}}
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, max_pool_connections=POOL, **retries)
    return boto3.session.Session().client("s3", config=config, **asdict(flags))


_connecting = threading.Lock()
