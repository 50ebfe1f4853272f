"""Flags for stores: taken from among others, refused in one line, carried to workers."""

from __future__ import annotations

import pickle

import pytest

from pipeline import storage
from pipeline.convert.transforms import PlanChunks
from pipeline.storage.flags import StoreFlags
from schemas.errors import UserError


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    storage.use_flags(StoreFlags())


def test_they_are_taken_from_among_others() -> None:
    others = storage.take_flags(
        ["DIR", "--s3_endpoint_url", "http://a", "--direct_num_workers=2", "--s3_access_key_id=me", "--s3_disable_ssl"]
    )
    assert others == ["DIR", "--direct_num_workers=2"]
    assert storage.used_flags() == StoreFlags("me", endpoint_url="http://a", use_ssl=False)
    assert storage.take_flags(["DIR"]) == ["DIR"]
    assert storage.used_flags() == StoreFlags()


def test_each_is_the_argument_of_its_name() -> None:
    names = (
        "access_key_id",
        "secret_access_key",
        "session_token",
        "endpoint_url",
        "region_name",
        "api_version",
        "verify",
    )
    assert storage.take_flags([f"--s3_{name}={name}" for name in names]) == []
    assert storage.used_flags() == StoreFlags(*names)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--s3_endpoint=x", "did you mean --s3_endpoint_url"),
        ("--s3_region_name", "argument --s3_region_name: expected one argument"),
    ],
)
def test_a_slip_is_one_line(flag: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        storage.take_flags([flag])


def test_they_reach_a_worker_with_its_transform() -> None:
    storage.take_flags(["--s3_endpoint_url=http://a", "--s3_secret_access_key=hidden"])
    wired = pickle.dumps(PlanChunks("staging"))
    storage.use_flags(StoreFlags())
    pickle.loads(wired).setup()
    assert storage.used_flags().endpoint_url == "http://a"
    assert "hidden" not in repr(storage.used_flags())
