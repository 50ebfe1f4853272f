"""Records for PyTorch: a DataLoader that can be resumed, and an IterableDataset. Records themselves are a Dataset."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch.utils.data

from pipeline.reader.order import Order
from pipeline.reader.records import Records


class Loader(torch.utils.data.DataLoader):
    """The rest of an epoch in the order's batches, uint8 [B, size, size] and int32 [B], whatever the workers.

    `order` stands behind each batch when it is handed out, not when a worker has read it: its state_dict resumes there.
    `options` are DataLoader's: num_workers, multiprocessing_context, pin_memory, …
    """

    def __init__(self, records: Records, order: Order, **options: Any) -> None:
        self.order = order
        super().__init__(records, sampler=order, batch_size=None, **options)

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.order.number += 1
            yield batch


class Batches(torch.utils.data.IterableDataset):
    """The same batches as a stream, for DataLoader(…, batch_size=None): the rest of the epoch `order` stands in."""

    def __init__(self, records: Records, order: Order) -> None:
        self.records, self.order = records, order

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return map(self.records.read, islice(self.order, first, None, step))
