from __future__ import annotations

import pytest

from pipeline.convert import direct
from pipeline.convert.direct import LocalPlan, may_fork, named_pools, plan_local
from schemas.errors import UserError

MIB = 1 << 20
POOLS = ("--environment_type=EXTERNAL", "--environment_config=one:50000, [::1]:50001")


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
        (8, POOLS, 5_000 * MIB, LocalPlan("pools", 2)),
        (8, (*POOLS, "--direct_num_workers=5"), 0, LocalPlan("pools", 5)),
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


def test_pools_are_used_in_turn() -> None:
    pools = named_pools(POOLS)
    assert pools is not None
    assert [pools.next_address() for _ in range(3)] == [("one", 50000), ("::1", 50001), ("one", 50000)]
    assert named_pools(["--direct_num_workers=2"]) is None


@pytest.mark.parametrize("flags", [["DOCKER", "image"], ["EXTERNAL", "one"], ["EXTERNAL", "one:1,"], ["PROCESS", "{}"]])
def test_what_is_no_pool_is_refused(flags: list[str]) -> None:
    kind, config = flags
    with pytest.raises(
        UserError, match=r"expected EXTERNAL and HOST:PORT\[,HOST:PORT…\], pools that hwdb workers started"
    ):
        named_pools([f"--environment_type={kind}", f"--environment_config={config}"])
