"""A worker that is busy for long keeps no work from the others."""

from __future__ import annotations

import threading

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from pipeline.convert.workers.handing_out import GreedyRunner

_others: list[str] = []
_all_others = threading.Event()


def _the_largest_waits_for_the_others(keyed: tuple[str, list[int]]) -> list[bool]:
    if keyed[0] == "9":
        return [_all_others.wait(20)]
    _others.append(keyed[0])
    if len(_others) == 9:
        _all_others.set()
    return []


def test_work_is_handed_out_as_workers_come_free_and_the_largest_first() -> None:
    options = PipelineOptions([])
    options.view_as(DirectOptions).direct_num_workers = 2
    options.view_as(DirectOptions).direct_running_mode = "multi_threading"
    _others.clear()
    _all_others.clear()
    with beam.Pipeline(runner=GreedyRunner(), options=options) as root:
        keyed = root | beam.Create([(str(number), number) for number in range(10)]) | beam.GroupByKey()
        waited = keyed | "ConvertChunk" >> beam.FlatMap(_the_largest_waits_for_the_others)
        assert_that(waited, equal_to([True]))
    assert _others == sorted(_others, reverse=True)
