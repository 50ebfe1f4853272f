"""scripts/cluster.py gives Flink what one conversion needs, and has it say soon what it lacks."""

from __future__ import annotations

from pathlib import Path

from engines import cluster

BUFFER_BYTES = 32 << 10
SORTED_SHUFFLE_BUFFERS = 512
"""That Flink wants for each output of a batch task before it begins."""
OUTPUTS = 4
"""At a time, of one slot: batches and receipts of the chunks, what is flattened, what is grouped."""


def test_what_the_cluster_is_told(tmp_path: Path) -> None:
    slots = 2
    cluster._write_settings(tmp_path, 8081, slots)
    lines = (tmp_path / "config.yaml").read_text().splitlines()
    settings = dict(line.split(": ", 1) for line in lines)
    network = settings["taskmanager.memory.network.min"]
    assert network == settings["taskmanager.memory.network.max"]
    assert network.endswith("m")
    buffers = (int(network[:-1]) << 20) // BUFFER_BYTES
    assert buffers >= SORTED_SHUFFLE_BUFFERS * OUTPUTS * slots
    attempts = int(settings["restart-strategy.fixed-delay.attempts"])
    # The first time it finds too few slots, and each time it tries again.
    assert (attempts + 1) * int(settings["slot.request.timeout"]) <= 60_000
