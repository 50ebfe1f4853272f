"""As much of torch.utils.data as the reader's adapter uses, with what it promises: no workers, arrays stay arrays."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, utils, data = (types.ModuleType(name) for name in ("torch", "torch.utils", "torch.utils.data"))

    class DataLoader:
        def __init__(self, dataset: Any, sampler: Any = None, batch_size: Any = 1, num_workers: int = 0) -> None:
            assert (batch_size, num_workers) == (None, 0)
            self.dataset, self.sampler = dataset, sampler

        def __iter__(self) -> Iterator[Any]:
            if isinstance(self.dataset, IterableDataset):
                return iter(self.dataset)
            return (self.dataset[index] for index in self.sampler)

        def __len__(self) -> int:
            return len(self.sampler)

    class IterableDataset:
        pass

    data.DataLoader, data.IterableDataset = DataLoader, IterableDataset  # type: ignore[attr-defined]
    data.get_worker_info = lambda: None  # type: ignore[attr-defined]
    torch.utils, utils.data = utils, data  # type: ignore[attr-defined]
    sys.modules.pop("pipeline.reader.torch", None)  # which may know another one
    for module in (torch, utils, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)
