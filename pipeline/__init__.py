"""Archives in, shards out: the conversion from Python.

    from pipeline import Settings, run_conversion

    card = run_conversion(Settings(inputs=["train=Gnt1.1TrainPart1.zip", "test=Gnt1.1Test.zip"], output="data/hwdb"))
    print(card.splits["train"].counts)

What takes Beam, Arrow or OpenCV is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import imported_when_used

if TYPE_CHECKING:
    from pipeline.convert.options import Settings
    from pipeline.convert.run import run_conversion
    from pipeline.convert.transforms import ConvertArchives, ReadSamples
    from pipeline.errors import EngineError
    from pipeline.steps.plain import preprocess
    from pipeline.steps.settings import PreprocessConfig

__all__ = [
    "ConvertArchives",
    "EngineError",
    "PreprocessConfig",
    "ReadSamples",
    "Settings",
    "preprocess",
    "run_conversion",
]
__getattr__ = imported_when_used(
    __name__,
    {
        "ConvertArchives": "convert.transforms",
        "EngineError": "errors",
        "PreprocessConfig": "steps.settings",
        "ReadSamples": "convert.transforms",
        "Settings": "convert.options",
        "preprocess": "steps.plain",
        "run_conversion": "convert.run",
    },
)
