"""How DirectRunner uses this machine: decided from the flags before Beam is imported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import UserError
from schemas.machine import available_cores

_WORKER_BYTES = 32 << 20  # 32 MiB, as a chunk has at most: for less another worker isn't worth its start


@dataclass(frozen=True)
class LocalPlan:
    """Beam's --direct_running_mode and --direct_num_workers, both settled."""

    mode: str
    workers: int


def is_direct(runner: str) -> bool:
    return runner.lower().rpartition(".")[2] == "directrunner"


def may_fork(flags: Sequence[str]) -> bool:
    """Whether workers will be processes: it depends on no input."""
    return plan_local(flags, 0).mode == "multi_processing"


def plan_local(flags: Sequence[str], source_bytes: int) -> LocalPlan:
    """A process for each core that the input suffices for, unless Beam's own flags say otherwise.

    Even if that is one: where there is a second core, a process of its own gets ready while the driver does.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--direct_running_mode")
    parser.add_argument("--direct_num_workers")
    try:
        asked, _ = parser.parse_known_args(list(flags))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; give every flag its value") from error
    if str(asked.direct_num_workers).startswith("-"):
        raise UserError(f"--direct_num_workers {asked.direct_num_workers}: expected 0 (all cores) or more")
    # What isn't a number is refused by Beam's own parser later.
    number = int(asked.direct_num_workers) if str(asked.direct_num_workers).isdecimal() else None
    alone = (number or available_cores()) == 1
    mode = asked.direct_running_mode or ("in_memory" if alone else "multi_processing")
    if mode == "in_memory":
        return LocalPlan(mode, number or 1)
    if number is None:
        number = min(available_cores(), 1 + source_bytes // _WORKER_BYTES)
    return LocalPlan(mode, number or available_cores())
