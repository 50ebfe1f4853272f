"""python -m pipeline.convert.workers: a pool of this machine's worker processes, for conversions on a cluster."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.convert.options import LOG_LEVELS
from schemas.command import Parser, at_least, run_command
from schemas.errors import UserError
from schemas.machine import available_cores

DEFAULT_PORT = 50000


@dataclass(frozen=True)
class PoolSettings:
    """Where a pool listens, and how much it may start. Raises UserError where that makes no sense."""

    port: int = DEFAULT_PORT
    host: str = "localhost"
    processes: int = 0
    """0 for the cores there are."""
    log_level: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise UserError(f"--port {self.port}: expected 1 to 65535")
        at_least(0, "--processes", self.processes)
        object.__setattr__(self, "processes", self.processes or available_cores())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command until a signal ends it; returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command("pipeline.convert.workers", lambda: _serve(_parse(arguments)))


def _serve(settings: PoolSettings) -> int:
    logging.disable(logging.CRITICAL)  # Beam warns while it is imported; what workers log is another process's
    from pipeline.convert.workers.pool import serve_pool

    serve_pool(settings)
    return 0


def _parse(argv: Sequence[str]) -> PoolSettings:
    parser = Parser(
        "pipeline.convert.workers",
        "Starts worker processes on this machine whenever the engine of a conversion asks for one.",
    )
    add = parser.add_argument
    add("--port", type=int, default=DEFAULT_PORT, help=f"where engines ask (default: {DEFAULT_PORT})")
    add(
        "--host",
        default=PoolSettings.host,
        metavar="ADDRESS",
        help="the address to listen at; whoever reaches it can run programs here (default: localhost)",
    )
    add(
        "--processes",
        type=int,
        default=PoolSettings.processes,
        metavar="N",
        help="workers at a time, of all engines together (default: 0, one for each core)",
    )
    add("--log_level", choices=LOG_LEVELS, help="what workers send to the log of their engine (default: nothing)")
    return PoolSettings(**vars(parser.parse_args(argv)))
