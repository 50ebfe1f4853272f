from __future__ import annotations

import pytest

from pipeline.convert import direct
from pipeline.convert.direct import LocalPlan, may_fork, plan_local

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cores", "flags", "source_bytes", "expected"),
    [
        (8, (), 0, LocalPlan("multi_processing", 1)),
        (8, (), 32 * MIB - 1, LocalPlan("multi_processing", 1)),
        (8, (), 32 * MIB, LocalPlan("multi_processing", 2)),
        (8, (), 5_000 * MIB, LocalPlan("multi_processing", 8)),
        (8, ("--direct_num_workers=0",), 0, LocalPlan("multi_processing", 8)),
        (8, ("--direct_num_workers=3",), 0, LocalPlan("multi_processing", 3)),
        (8, ("--direct_num_workers=1",), 5_000 * MIB, LocalPlan("in_memory", 1)),
        (8, ("--direct_running_mode=in_memory",), 5_000 * MIB, LocalPlan("in_memory", 1)),
        (8, ("--direct_running_mode=multi_threading",), 5_000 * MIB, LocalPlan("multi_threading", 8)),
        (8, ("--direct_running_mode=multi_processing", "--direct_num_workers=1"), 0, LocalPlan("multi_processing", 1)),
        (1, (), 5_000 * MIB, LocalPlan("in_memory", 1)),
        (1, ("--direct_num_workers=2",), 0, LocalPlan("multi_processing", 2)),
    ],
)
def test_a_worker_for_each_core_that_the_input_suffices_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, flags: tuple[str, ...], source_bytes: int, expected: LocalPlan
) -> None:
    monkeypatch.setattr(direct, "available_cores", lambda: cores)
    assert plan_local(flags, source_bytes) == expected
    assert may_fork(flags) == (expected.mode == "multi_processing")
