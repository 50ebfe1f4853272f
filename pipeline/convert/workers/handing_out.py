"""Work is handed out to workers as they come free, the largest chunk first; Beam deals it beforehand.

What stands here reaches into Beam (tried with 2.77), as forked.py does.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager, ParallelBundleManager
from apache_beam.utils import thread_pool_executor

_LONG = ("Probe", "ConvertChunk", "WriteShard")  # the stages that it pays for: a part costs the driver a millisecond
_MOST_PARTS = 32  # for each worker


class GreedyRunner(FnApiRunner):
    """Beam's FnApiRunner, whose workers get the next chunk or shard as they come free."""

    def _get_bundle_manager(self, context: Any) -> Any:
        manager = super()._get_bundle_manager(context)
        if type(manager) is not ParallelBundleManager:
            return manager
        return _HandedOut(context, self._progress_frequency, manager._cache_token_generator)


class _HandedOut(ParallelBundleManager):
    """Beam deals a stage's work to the workers beforehand; here what is shuffled is handed out as they come free."""

    def process_bundle(
        self, inputs: Any, outputs: Any, timers: Any, output_timers: Any, dry_run: bool = False
    ) -> tuple[Any, list[Any]]:
        workers = self.bundle_context_manager.worker_handlers
        (name, buffer), *more = inputs.items()
        is_shuffled = isinstance(buffer, GroupingBuffer) and not (more or timers)
        count = len(buffer._grouped_output or buffer._table) if is_shuffled else 0  # the first is that of a dry run
        steps = self.bundle_context_manager.process_bundle_descriptor.transforms.values()
        if count <= len(workers) or not any(step.unique_name in _LONG for step in steps):
            return super().process_bundle(inputs, outputs, timers, output_timers, dry_run)
        buffer._table = dict(sorted(buffer._table.items(), reverse=True))  # by key, which says how large a chunk is
        parts = deque(buffer.partition(min(count, _MOST_PARTS * len(workers))))

        def work(worker: Any) -> list[Any]:
            context, results = _Alone(self.bundle_context_manager, worker), []
            try:
                while parts:
                    part = {name: parts.popleft()}
                    one = BundleManager(context, self._progress_frequency, self._cache_token_generator)
                    results.append(one.process_bundle(part, outputs, {}, output_timers, dry_run)[0])
            except BaseException:
                parts.clear()
                raise
            return results

        with thread_pool_executor.shared_unbounded_instance() as executor:
            try:
                results = list(itertools.chain.from_iterable(executor.map(work, workers)))
            finally:
                parts.clear()  # where one failed, or this thread was interrupted
        infos = monitoring_infos.consolidate(
            itertools.chain.from_iterable(result.process_bundle.monitoring_infos for result in results)
        )
        done = beam_fn_api_pb2.ProcessBundleResponse(monitoring_infos=infos)
        return beam_fn_api_pb2.InstructionResponse(process_bundle=done), []


class _Alone:
    """What a bundle is run with, with one worker to choose from."""

    def __init__(self, context: Any, worker: Any) -> None:
        self._context, self.worker_handlers = context, [worker]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
