"""What the process that workers are forked from imports, once for all of them; nothing else imports this."""

import logging
import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it too, and ends what it has started
logging.disable(logging.CRITICAL)  # Beam warns while it is imported, and this process prints for nobody

import pipeline.transforms  # noqa: E402
import pipeline.workers  # noqa: E402, F401
