"""What the process that workers are forked from imports, once for all of them; nothing else imports this."""

import logging
import signal

from pipeline.convert.lean_imports import lean_imports

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it too, and ends what it has started
logging.disable(logging.CRITICAL)  # Beam warns while it is imported, and this process prints for nobody
with lean_imports(freeze=True):
    import pyarrow.compute  # noqa: F401 - for writing shards: each worker would import it for itself

    import pipeline.convert.transforms
    import pipeline.convert.workers  # noqa: F401
    from pipeline.shards import framing
    from pipeline.steps import compiled as kernels

    kernels.load()
    framing.load()
