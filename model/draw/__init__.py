"""python -m model.draw: a page to draw a character in, and see it read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.command import Parser, local_path, run_command
from schemas.errors import UserError

DEFAULT_PORT = 8765


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(
        "model.draw",
        "Shows a page on this machine alone: draw a character by mouse, pen or finger and see it read as you write.",
    )
    parser.add_argument("--model", type=local_path, required=True, metavar="RUN", help="the folder of a training run")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"0 is any that is free (default: {DEFAULT_PORT})"
    )

    def body() -> int:
        flags = parser.parse_args(argv)
        if not 0 <= flags.port < 1 << 16:
            raise UserError(f"--port {flags.port}: expected 0 to 65535")
        return draw(flags.model, flags.port)

    return run_command("model.draw", body)


def draw(run: Path, port: int) -> int:
    """Serves the page until it is interrupted. Raises UserError."""
    # A misspelt flag needn't wait for TensorFlow.
    from model.answers.reading import load_run
    from model.answers.run import read_run
    from model.draw.server import PageServer
    from model.network.devices import setup_tensorflow

    read_run(run)  # refused before TensorFlow starts
    setup_tensorflow()
    recogniser = load_run(run)
    recogniser.read(np.pad(np.zeros((32, 32), np.uint8), 16, constant_values=255))  # the first one takes a second
    with PageServer(recogniser, port) as server:
        print(
            f"{server.url} reads one of {len(recogniser.classes):,} characters as you draw it; Ctrl-C ends", flush=True
        )
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
