"""A trace of some steps of a run, for TensorBoard's profile plugin and, as trace.json.gz beside it, for Perfetto."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from model.train.failures import writing

TRACE = "trace.json.gz"
_PLUGIN = "plugins/profile"


class Profile:
    """Traces `steps` steps, from the first call of `begin` on, into `folder`."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._begun = False
        self.left = steps
        """Steps still to be traced."""

    def begin(self) -> None:
        if self.left and not self._begun:
            tf.profiler.experimental.start(str(self._folder))
            self._begun = True

    def made(self, steps: int) -> Path | None:
        """Counts steps that were made; the trace's folder once it is whole."""
        if not self._begun:
            return None
        self.left = max(0, self.left - steps)
        return None if self.left else self.end()

    def end(self) -> Path | None:
        if not self._begun:
            return None
        self._begun, self.left = False, 0
        with writing(self._folder):
            tf.profiler.experimental.stop()
            folder = max((self._folder / _PLUGIN).iterdir())
            events = [event for path in folder.glob("*.xplane.pb") for event in _events(path.read_bytes())]
            with gzip.open(folder / TRACE, "wt", encoding="utf-8") as file:
                json.dump({"traceEvents": events}, file)
        return folder


def _events(data: bytes) -> list[dict[str, Any]]:
    """Trace events of an XSpace message; none where TensorFlow has moved it. Tried with TensorFlow 2.21."""
    try:
        from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace
    except ImportError:
        return []
    events: list[dict[str, Any]] = []
    for number, plane in enumerate(XSpace.FromString(data).planes):
        events.append({"ph": "M", "pid": number, "name": "process_name", "args": {"name": plane.name}})
        for line in plane.lines:
            place = {"pid": number, "tid": line.id}
            events.append({"ph": "M", **place, "name": "thread_name", "args": {"name": line.display_name or line.name}})
            events += [
                {
                    "ph": "X",
                    **place,
                    "name": plane.event_metadata[event.metadata_id].name,
                    "ts": line.timestamp_ns / 1e3 + event.offset_ps / 1e6,
                    "dur": event.duration_ps / 1e6,
                }
                for event in line.events
            ]
    return events
