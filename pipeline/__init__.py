"""Archives in, shards out: the conversion and the reader from Python.

    from pipeline import Settings, open_dataset, run_conversion

    card = run_conversion(Settings(inputs=["train=Gnt1.1TrainPart1.zip", "test=Gnt1.1Test.zip"], output="data/hwdb"))
    print(card.splits["train"].counts)
    images, labels = open_dataset("data/hwdb").records("train")[:512]

What takes Beam, Arrow or OpenCV is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import imported_when_used
from schemas.errors import EngineError

if TYPE_CHECKING:
    from pipeline.convert.options import Settings
    from pipeline.convert.run import run_conversion
    from pipeline.convert.transforms import ConvertArchives, ReadSamples
    from pipeline.reader.dataset import Dataset, open_dataset
    from pipeline.reader.order import Order
    from pipeline.reader.records import Records
    from pipeline.steps.plain import preprocess
    from pipeline.steps.settings import PreprocessConfig

__all__ = [
    "ConvertArchives",
    "Dataset",
    "EngineError",
    "Order",
    "PreprocessConfig",
    "ReadSamples",
    "Records",
    "Settings",
    "open_dataset",
    "preprocess",
    "run_conversion",
]
__getattr__ = imported_when_used(
    __name__,
    {
        "ConvertArchives": "convert.transforms",
        "Dataset": "reader.dataset",
        "Order": "reader.order",
        "PreprocessConfig": "steps.settings",
        "ReadSamples": "convert.transforms",
        "Records": "reader.records",
        "Settings": "convert.options",
        "open_dataset": "reader.dataset",
        "preprocess": "steps.plain",
        "run_conversion": "convert.run",
    },
)
