"""The shards of a store for a stream: fetched by a thread, one ahead of where the stream is, handed to it as files.

A stream takes the name of each file from a queue of TensorFlow's and waits there: nothing of Python's runs in it, which
could hold up a process that ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from pipeline.reader.records import Records

AHEAD_SHARDS = 1
_POLL_SECONDS, _END_SECONDS = 0.02, 5
_KEPT_OPEN = 3  # files; when one is handed over, that of AHEAD_SHARDS + 1 before has been opened by the stream


class Fetching:
    """Hands over the shards that `wanted` names, in its order: each with bool [records], those that will be used."""

    def __init__(self, records: Records, wanted: Iterable[tuple[int, np.ndarray]]) -> None:
        with tf.device("CPU:0"):
            self.queue = tf.queue.FIFOQueue(AHEAD_SHARDS, [tf.string], [[]])
            """string []: a name to open the file by."""
        self.failure: Exception | None = None
        """What ended it; the stream has an error of TensorFlow's then."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(records, wanted), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, and a stream that waits; a store that doesn't answer isn't waited for."""
        self._ended.set()
        self._thread.join(_END_SECONDS)

    def _run(self, records: Records, wanted: Iterable[tuple[int, np.ndarray]]) -> None:
        kept: deque[BinaryIO] = deque()
        try:
            for number, used in wanted:
                kept.append(records.open_shard(number, used))
                while int(self.queue.size()) >= AHEAD_SHARDS:
                    if self._ended.wait(_POLL_SECONDS):
                        return
                self.queue.enqueue(f"/dev/fd/{kept[-1].fileno()}")  # by its name it could have gone from the cache
                while len(kept) > _KEPT_OPEN:
                    kept.popleft().close()
            self._ended.wait()  # the last files stay open until the stream has ended, too
        except Exception as error:  # of the store, the disk or the shard: the stream's user raises it
            self.failure = error
        finally:
            self.queue.close(cancel_pending_enqueues=True)
            for stream in kept:
                stream.close()
