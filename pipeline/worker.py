"""python -m pipeline.worker: a worker process of DirectRunner, Beam's own without its log.

Beam starts it with its settings in the environment. A failure travels to the driver as an exception, so nothing is
lost by keeping the log quiet; and a worker whose driver was killed ends too, instead of waiting for it forever.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

PARENT_POLL_SECONDS = 1.0


def main() -> None:
    logging.disable(logging.CRITICAL)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
