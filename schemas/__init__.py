"""What both sides share: the contracts of a data set on disk, and how commands speak.

Neither Beam nor TensorFlow nor anything else of this project is needed for it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.classes import ClassList, default_classes, parse_classes
    from schemas.dataset import Card
    from schemas.errors import UserError
    from schemas.example import FORMAT_VERSION

__all__ = [
    "FORMAT_VERSION",
    "Card",
    "ClassList",
    "UserError",
    "default_classes",
    "parse_classes",
]


def imported_when_used(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's __getattr__: name -> the module in the package that has it, imported only then."""

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return __getattr__


def _is_a_command() -> bool:
    """Whether this process is `hwdb`, or `python -m` on its way to one of ours."""
    words = sys.orig_argv
    if sys.argv[:1] != ["-m"]:
        return os.path.basename("".join(sys.argv[:1])) == "hwdb"
    return "-m" in words[:-1] and words[words.index("-m") + 1].partition(".")[0] in ("pipeline", "model")


if _is_a_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C while a command's modules are imported ends it without their traceback; run_command hears the later ones.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
__getattr__ = imported_when_used(
    __name__,
    {
        "FORMAT_VERSION": "example",
        "Card": "dataset",
        "ClassList": "classes",
        "UserError": "errors",
        "default_classes": "classes",
        "parse_classes": "classes",
    },
)
