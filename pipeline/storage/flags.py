"""The flags by which a store is reached where the environment doesn't say: --s3_endpoint_url and its kin."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields

from schemas.command import path_or_url
from schemas.errors import UserError


@dataclass(frozen=True, repr=False)  # no secret in a traceback
class StoreFlags:
    """Arguments of boto3's client, each by the flag of its name: --s3_region_name, --s3_access_key_id, …"""

    aws_access_key_id: str | None = None
    aws_secret_access_key: str | None = None
    aws_session_token: str | None = None
    endpoint_url: str | None = None
    region_name: str | None = None
    api_version: str | None = None
    verify: str | None = None
    use_ssl: bool = True
    """--s3_disable_ssl"""


_NAMES = {f"--s3_{field.name.removeprefix('aws_')}": field.name for field in fields(StoreFlags)[:-1]}
_used = StoreFlags()


def use_flags(flags: StoreFlags) -> None:
    """From here on this process reaches stores with them."""
    global _used
    _used = flags


def used_flags() -> StoreFlags:
    return _used


def take_flags(arguments: Sequence[str]) -> list[str]:
    """Uses the flags that are among a command's arguments, and returns the others. Raises UserError."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag, name in _NAMES.items():
        parser.add_argument(flag, dest=name, type=path_or_url if name == "verify" else str)
    parser.add_argument("--s3_disable_ssl", dest="use_ssl", action="store_false")
    try:
        given, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    for other in others:
        close = difflib.get_close_matches(other.partition("=")[0], [*_NAMES, "--s3_disable_ssl"], 1, cutoff=0.85)
        if close:
            raise UserError(f"{other}: there is no such flag; did you mean {close[0]}?")
    use_flags(StoreFlags(**vars(given)))
    return others
