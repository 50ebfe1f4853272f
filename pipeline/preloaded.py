"""What the process that workers are forked from imports, once for all of them; nothing else imports this."""

import gc
import logging
import signal

gc.disable()  # what is imported stays: looking through it again and again takes a sixth of the time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it too, and ends what it has started
logging.disable(logging.CRITICAL)  # Beam warns while it is imported, and this process prints for nobody

import pipeline.transforms  # noqa: E402
import pipeline.workers  # noqa: E402, F401
from pipeline import kernels  # noqa: E402

kernels.load()
gc.freeze()  # nor do workers look through it, and copy its pages by doing so
gc.enable()
