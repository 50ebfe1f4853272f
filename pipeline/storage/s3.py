"""Beam's S3 client, mended: exact ranges, one connection pool a process, objects in few requests, waits that end.

As it is, every operation makes a client of its own (a quarter of a second), a range is asked for without its end, the
smallest object takes three requests and an empty one can't be written, an upload that failed is neither finished nor
aborted, and where nothing answers, retries of Beam's own on top of the client's wait for ten minutes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.io.aws.s3filesystem import S3FileSystem
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.utils.retry import PermanentException

ATTEMPTS = 5
"""Of a request, by the client, unless AWS_MAX_ATTEMPTS or AWS_RETRY_MODE is set: half a minute at most."""
CONNECT_SECONDS = 5
READ_SECONDS = 20
POOL = 16
"""Connections kept open by a process."""
_BODY_ATTEMPTS = 4  # of a range whose bytes stopped coming; the client itself tries again only until they begin

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

Reader = Callable[[Any, str, int, int | None], bytes]
"""(file system, URL, first byte, how many) -> the bytes, fewer where the object ends. None: all that follow."""


class StoreError(PermanentException, OSError):
    """A request that won't be made again: the client has tried, or trying is of no use."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


def mend() -> dict[type, Reader]:
    """Puts our client in the place of Beam's in this process; returns what reads ranges by file system."""
    boto3_client.Client = Client
    return {S3FileSystem: _read_range}


def _read_range(files: Any, url: str, begin: int, size: int | None) -> bytes:
    """One request, where Beam's stream takes two."""
    bucket, name = s3io.parse_s3_path(url)
    end = None if size is None else begin + size
    return s3io.S3IO(options=files._options).client.get_range(messages.GetRequest(bucket, name), begin, end)


class Client(boto3_client.Client):
    """Beam's client with a connection pool shared by the process and its threads; made only after a fork."""

    def __init__(self, options: Any) -> None:
        if boto3_client.boto3 is None:
            raise StoreError("the package boto3 is missing", "pip install 'hwdb-shards[s3]', or pip install boto3")
        self.client = _connection(options)

    def get_object_metadata(self, request: Any) -> Any:
        with _explained(request.bucket):
            found = self.client.head_object(Bucket=request.bucket, Key=request.object)
        return messages.Item(found["ETag"], request.object, found["LastModified"], found["ContentLength"])

    def get_range(self, request: Any, start: int, end: int | None) -> bytes:
        """Bytes start to end, or to the object's end; fewer, or none, where it ends earlier."""
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        if start == end:
            return b""
        whole = start == 0 and end is None
        wanted = {} if whole else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with _explained(request.bucket):
            for attempt in range(1, _BODY_ATTEMPTS + 1):
                try:
                    body = self.client.get_object(Bucket=request.bucket, Key=request.object, **wanted)["Body"]
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

    def list(self, request: Any) -> Any:
        after = {"ContinuationToken": request.continuation_token} if request.continuation_token else {}
        with _explained(request.bucket):
            page = self.client.list_objects_v2(Bucket=request.bucket, Prefix=request.prefix, **after)
        items = [
            messages.Item(found["ETag"], found["Key"], found["LastModified"], found["Size"])
            for found in page.get("Contents", [])
        ]
        return messages.ListResponse(items, page.get("NextContinuationToken"))

    def delete_batch(self, request: Any) -> Any:
        keys = [{"Key": name} for name in request.objects]
        with _explained(request.bucket):
            answer = self.client.delete_objects(Bucket=request.bucket, Delete={"Objects": keys, "Quiet": False})
        errors = answer.get("Errors", [])
        return messages.DeleteBatchResponse(
            [each["Key"] for each in answer.get("Deleted", [])],
            [each["Key"] for each in errors],
            [StoreError(f"{each['Code']}: {each.get('Message', '')}", _RESUMES) for each in errors],
        )

    def create_multipart_upload(self, request: Any) -> Any:
        return messages.UploadResponse(_Upload(self.client, request))

    def upload_part(self, request: Any) -> Any:
        with _explained(request.bucket):
            request.upload_id.add(request.bytes)
        return messages.UploadPartResponse("", request.part_number)

    def complete_multipart_upload(self, request: Any) -> None:
        with _explained(request.bucket):
            request.upload_id.finish()


class _Upload:
    """One object on its way: what fits into one part is one request, and what failed isn't tried to be finished."""

    def __init__(self, client: Any, request: Any) -> None:
        self._client = client
        self._object = {"Bucket": request.bucket, "Key": request.object}
        self._type = request.mime_type
        self._held: bytes | None = None
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._has_failed = False

    def add(self, data: bytes) -> None:
        with self._aborted_on_error():
            if self._held is None and self._id is None:
                self._held = data
                return
            if self._id is None:
                self._id = self._client.create_multipart_upload(**self._object, ContentType=self._type)["UploadId"]
                held, self._held = self._held, None
                self._send(held or b"")
            self._send(data)

    def finish(self) -> None:
        with self._aborted_on_error():
            if self._id is None:
                self._client.put_object(**self._object, Body=self._held or b"", ContentType=self._type)
            else:
                parts = {"Parts": self._parts}
                self._client.complete_multipart_upload(**self._object, UploadId=self._id, MultipartUpload=parts)

    def _send(self, data: bytes) -> None:
        number = len(self._parts) + 1
        sent = self._client.upload_part(**self._object, UploadId=self._id, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})

    @contextmanager
    def _aborted_on_error(self) -> Iterator[None]:
        # Beam's stream tries to finish once more when it is closed, or collected: nothing may come of that.
        if self._has_failed:
            raise StoreError("the upload has failed before", _RESUMES)
        try:
            yield
        except BaseException:
            self._has_failed = True
            if self._id is not None:
                with suppress(Exception):
                    self._client.abort_multipart_upload(**self._object, UploadId=self._id)
            raise


@contextmanager
def _explained(bucket: str) -> Iterator[None]:
    """What the client raises becomes a StoreError; that there is no such object, what Beam expects then."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _explain(error.response, bucket) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound) as error:
        raise StoreError(f"expected credentials, found none that are whole ({error})", _CREDENTIALS) from error
    except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
        raise StoreError(
            f"nothing answers ({error})", "check the network, and AWS_ENDPOINT_URL or --s3_endpoint_url"
        ) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise StoreError(f"{type(error).__name__}: {error}", f"if that was the network, {_RESUMES}") from error


def _explain(response: Any, bucket: str) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", "")) or code
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return StoreError(f"there is no bucket {bucket}", "make it, or check its name")
    if status == 404:
        return messages.S3ClientError(said, 404)
    if code in _REFUSED or status in (401, 403):
        return StoreError(f"the store refuses it ({code}: {said})", f"check the bucket's policy; {_CREDENTIALS}")
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return StoreError(f"the bucket lies in another region ({code}: {said})", "set AWS_REGION, or --s3_region_name")
    attempts = response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
    return StoreError(f"the store answered {status} {code} to {attempts} attempts ({said})", _RESUMES)


_connected: tuple[int, Any, Any] | None = None
"""(process, Beam's options, boto3's client of them)"""
_connecting = threading.Lock()


def _connection(options: Any) -> Any:
    """boto3's client, shared by the threads of a process; it can't be used on both sides of a fork."""
    global _connected
    with _connecting:
        if _connected is None or _connected[0] != os.getpid() or _connected[1] is not options:
            _connected = (os.getpid(), options, _connect(options))
        return _connected[2]


def _connect(options: Any) -> Any:
    from botocore.config import Config

    given = options.view_as(S3Options) if isinstance(options, PipelineOptions) else None
    arguments = {name: getattr(given, f"s3_{option}", None) for option, name in _OPTIONS.items()}
    if getattr(given, "s3_disable_ssl", False):
        arguments["use_ssl"] = False
    is_set = {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & os.environ.keys()
    retries = {} if is_set else {"retries": {"mode": "standard", "total_max_attempts": ATTEMPTS}}
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, max_pool_connections=POOL, **retries)
    with _explained(""):
        return boto3_client.boto3.session.Session().client("s3", config=config, **arguments)
