"""Scaling: records/s of the conversion with 1 and 2 workers on each engine, and what an engine costs over DirectRunner.

    python benchmarks/scaling.py                                            every engine that is there, 180 k records
    python benchmarks/scaling.py --run "direct 1" --run "direct 2" --json out.json     some; adds to the file

Every run is a whole process, from the command to its end; where there are worker pools or a cluster, these are up
before. The runs go round in turn, several times; the figures are medians. The input is that of benchmarks/convert.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert import _MEMBER_RECORDS, _make_input
from process_tree import measure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import cluster  # noqa: E402

_PRISM = ["--runner=PrismRunner", f"--prism_location={cluster.ENGINES}/prism"]
_FLINK = [f"--flink_job_server_jar={cluster.ENGINES}/flink-job-server.jar"]
_SPARK = ["--runner=SparkRunner", f"--spark_job_server_jar={cluster.ENGINES}/spark-job-server.jar"]
RUNS = {
    "direct 1": ["--direct_num_workers=1"],
    "direct 2": ["--direct_num_workers=2"],
    "prism 1": _PRISM,
    "prism pool 1": _PRISM,
    "flink 1": [*_FLINK, "--parallelism=1"],
    "flink 2": [*_FLINK, "--parallelism=2"],
    "spark 1": [*_SPARK, "--spark_master_url=local[1]"],
    "spark 2": [*_SPARK, "--spark_master_url=local[2]"],
}
"""Engine and number of workers -> its flags. Prism asks for one worker, in this process or from a pool."""
_FILES = ("--prism_location", "--flink_job_server_jar", "--spark_job_server_jar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", choices=RUNS, help="may be repeated (default: all)")
    parser.add_argument("--records", type=int, default=180_000)
    parser.add_argument("--repeats", type=int, default=3, help="of each run (default: 3)")
    parser.add_argument("--json", type=Path, help="write every measurement there, beside those it has")
    parser.add_argument("--work", type=Path, help="folder for input and output (default: a temporary one)")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="scaling-benchmark-"))
    members = max(1, round(arguments.records / _MEMBER_RECORDS))
    source = _make_input(members, work)
    names = [name for name in arguments.run or RUNS if _there(name)]
    records = members * _MEMBER_RECORDS
    found: dict[str, Any] = {"cores": os.cpu_count(), "records": records, "seconds": {}}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
    for _ in range(arguments.repeats):
        for name in names:
            found["seconds"].setdefault(name, []).append(_run(name, source, max(2, members // 4), work))
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    _print_table(found)
    if not arguments.work:
        shutil.rmtree(work)


def _there(name: str) -> bool:
    files = [flag.partition("=")[2] for flag in RUNS[name] if flag.startswith(_FILES)]
    missing = [file for file in files if not os.path.exists(file)]
    if missing:
        print(f"{name}: not measured, no {missing[0]}; scripts/fetch_engines.sh fetches it", file=sys.stderr)
    return not missing


def _run(name: str, source: Path, shards: int, work: Path) -> float:
    shutil.rmtree(work / "out", ignore_errors=True)
    with _workers(name, work / "cluster") as flags:
        command = [sys.executable, "-m", "pipeline.convert", f"--input={source}", f"--output={work / 'out'}"]
        return measure([*command, f"--num_shards=train={shards}", *flags, *RUNS[name]]).seconds


@contextlib.contextmanager
def _workers(name: str, folder: Path) -> Iterator[list[str]]:
    """The flags of what must be running for that engine; a worker for each slot."""
    if name != "prism pool 1" and not name.startswith("flink"):
        yield []
        return
    only = [] if name.startswith("flink") else ["--only=pools"]
    count = f"--task_managers={name[-1]}"
    script = [sys.executable, str(ROOT / "scripts/cluster.py")]
    output = measure([*script, "start", f"--folder={folder}", count, "--slots=1", *only]).output
    try:
        yield output.split()
    finally:
        measure([*script, "stop", f"--folder={folder}"])


def _print_table(found: dict[str, Any]) -> None:
    records, seconds = found["records"], found["seconds"]
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"{'engine, workers':<16} {'records/s':>10} {'seconds':>8} {'of DirectRunner':>16}   each run, s")
    for name in filter(medians.get, RUNS):
        direct = medians.get(f"direct {name[-1]}")
        share = f"{direct / medians[name]:.2f}" if direct else "-"
        each = ", ".join(f"{one:.1f}" for one in seconds[name])
        print(f"{name:<16} {records / medians[name]:>10,.0f} {medians[name]:>8.1f} {share:>16}   {each}")


if __name__ == "__main__":
    main()
