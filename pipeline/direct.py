"""How DirectRunner uses this machine: decided from the flags before Beam is imported."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UserError

SMALL_INPUT_BYTES = 64 << 20  # 64 MiB: less is done in one process before others have started


@dataclass(frozen=True)
class LocalPlan:
    """Beam's --direct_running_mode and --direct_num_workers, both settled."""

    mode: str
    workers: int


def is_direct(runner: str) -> bool:
    return runner.lower().rpartition(".")[2] == "directrunner"


def may_fork(flags: Sequence[str]) -> bool:
    """Whether an input of any size would be shared out to processes."""
    return plan_local(flags, SMALL_INPUT_BYTES).mode == "multi_processing"


def plan_local(flags: Sequence[str], source_bytes: int) -> LocalPlan:
    """All cores, in processes, unless Beam's own flags say otherwise or the input is too small to share out."""
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
    mode = asked.direct_running_mode
    if mode is None:
        alone = number == 1 or (number is None and source_bytes < SMALL_INPUT_BYTES) or _cores() == 1
        mode = "in_memory" if alone else "multi_processing"
    if mode == "in_memory":
        return LocalPlan(mode, number or 1)
    return LocalPlan(mode, number or _cores())


def _cores() -> int:
    """Cores this process may use, which a container or taskset can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
