"""Start-up: what --help, the imports and a conversion of 1,000 records take, whole processes, medians.

python benchmarks/startup.py --json startup.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from process_tree import measure

_LEAN = (
    "import gc, sys; from pipeline.convert.direct import Absent; gc.set_threshold(100_000); "
    "sys.meta_path.insert(0, Absent()); "
)
_CHARACTERS = 500  # of two writers: 1,000 records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = _times(Path(name), flags.repeats)
    for what, seconds in rows.items():
        print(f"{what:<44} {seconds:>6.2f} s")
    if flags.json:
        flags.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def _times(work: Path, repeats: int) -> dict[str, float]:
    sample, output = work / "sample", work / "out"
    draw = ["-m", "pipeline.sample", f"--output={sample}", "--writers=2", f"--characters={_CHARACTERS}"]
    measure([sys.executable, *draw])
    convert = ["-m", "pipeline.convert", "--runner=DirectRunner", f"--output={output}", f"--input={sample}"]
    commands = {
        "python -c pass": ["-c", "pass"],
        "pipeline.convert --help": ["-m", "pipeline.convert", "--help"],
        "import pyarrow": ["-c", "import pyarrow, pyarrow.parquet"],
        "import pipeline.shards.chunk, pipeline.shards.shard": [
            "-c",
            "import pipeline.shards.chunk, pipeline.shards.shard",
        ],
        "import apache_beam": ["-c", "import apache_beam"],
        "the same, as a conversion does": ["-c", f"{_LEAN}import apache_beam"],
        "pipeline.convert.transforms, as a conversion does": ["-c", f"{_LEAN}import pipeline.convert.transforms"],
        "import numba": ["-c", "import numba"],
        "what is compiled, kept by an earlier run": [
            "-c",
            "from pipeline.shards import packing; from pipeline.steps import kernels; "
            "assert not kernels.KERNELS.failure() and not packing.KERNELS.failure()",
        ],
        "a conversion of 1,000 records": convert,
        "model.train --help": ["-m", "model.train", "--help"],
    }
    seconds: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(repeats):
        for what, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            seconds[what].append(measure([sys.executable, *command]).seconds)
    return {what: statistics.median(found) for what, found in seconds.items()}


if __name__ == "__main__":
    main()
