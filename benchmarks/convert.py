"""Conversion: records/s, peak memory and bytes written by input size, beside a plain script, the floor, and peers.

    python benchmarks/convert.py                                   45 k, 180 k, 720 k and 1.17 M records
    python benchmarks/convert.py --records 180000 --json out.json
    python benchmarks/convert.py --records 180000 --peers VENV     what others use, too

The sides run as whole processes, in turn, several times; the ratios are those of their medians. The input is what
pipeline.sample draws for 12 writers, under as many names as it takes: the pixels repeat, the work doesn't. In every run
the plain script must keep as many records as ours; what a peer (benchmarks/converters.py) loses stands in its row.
TFDS runs in this environment, whose Beam it shares; the others in VENV, which is made from benchmarks/peers/convert.txt
where it isn't there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from process_tree import Measured, measure

SIZES = (45_000, 180_000, 720_000, 1_170_000)  # the last is HWDB1.1's
_MEMBER_RECORDS = 3_777  # pipeline.sample's, with all 3,755 characters and 22 symbols
_HERE = Path(__file__).resolve().parent
_NAMES = {
    "ours": "ours, DirectRunner",
    "plain": "plain multiprocessing script",
    "floor": "floor: the steps alone",
    "tfds": "TFDS with Beam",
    "hugging_face": "Hugging Face datasets",
    "webdataset": "WebDataset ShardWriter",
}
_LEFT_OUT = {"MosaicML MDSWriter": "left out: it needs torch, which on Linux brings gigabytes of CUDA"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, action="append", help="input size; may be repeated")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--peers", type=Path, metavar="VENV", help="measure the peers, too; their environment, kept")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    parser.add_argument("--work", type=Path, help="folder for input and output (default: a temporary one)")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="convert-benchmark-"))
    peers = _prepare_peers(arguments.peers) if arguments.peers else None
    rows = [_compare(size, arguments.repeats, work, peers) for size in arguments.records or SIZES]
    left_out = _LEFT_OUT if peers else {}
    _print_table(rows, left_out)
    if arguments.json:
        found = {"cores": os.cpu_count(), "sizes": rows, "left_out": left_out}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if not arguments.work:
        shutil.rmtree(work)


def _prepare_peers(venv: Path) -> Path:
    """The Python of the peers' environment, which has all they need afterwards."""
    python = venv.absolute() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    needed = ["-r", _HERE / "peers" / "convert.txt", "-c", _HERE.parent / "constraints.txt"]
    subprocess.run([python, "-m", "pip", "install", "-q", *needed], check=True)
    return python


def _compare(size: int, repeats: int, work: Path, peers: Path | None) -> dict[str, Any]:
    members = max(1, round(size / _MEMBER_RECORDS))
    commands = _commands(_make_input(members, work), work / "out", max(2, members // 4), peers)
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    runs: dict[str, list[Measured]] = {side: [] for side in commands}
    written: dict[str, int] = {}
    kept: dict[str, int] = {}
    for _ in range(repeats):
        for side, command in commands.items():
            shutil.rmtree(work / "out", ignore_errors=True)
            try:
                measured = measure(command, environment)
            except subprocess.CalledProcessError as error:
                raise SystemExit(f"{side}: {error.output[-2000:]}") from error
            runs[side].append(measured)
            written[side] = sum(path.stat().st_size for path in (work / "out").rglob("*") if path.is_file())
            if side == "floor":
                continue
            found = _kept(work / "out", measured.output)
            kept[side] = min(found, kept.get(side, found))
            if side in ("ours", "plain") and found != kept["ours"]:
                raise SystemExit(f"{side}: kept {found:,} records, expected {kept['ours']:,}, as ours at first")
    records = members * _MEMBER_RECORDS
    row: dict[str, Any] = {"records": records, "kept": kept["ours"]}
    for side, of_side in runs.items():
        seconds = statistics.median(one.seconds for one in of_side)
        row[side] = {
            "records_per_second": round(records / seconds),
            "seconds": [round(one.seconds, 2) for one in of_side],
            "largest_process_mb": round(statistics.median(one.largest_bytes for one in of_side) / 1e6),
            "all_processes_mb": round(statistics.median(one.tree_bytes for one in of_side) / 1e6),
            "written_mb": round(written[side] / 1e6),
        }
        if side in kept:
            row[side]["lost"] = kept["ours"] - kept[side]
    for side in runs:
        if side != "ours":
            row[f"of_{side}"] = round(row["ours"]["records_per_second"] / row[side]["records_per_second"], 3)
    return row


def _commands(source: Path, output: Path, shards: int, peers: Path | None) -> dict[str, list[str]]:
    python = sys.executable
    to, count = f"--output={output}", f"--num_shards={shards}"
    ours = [python, "-m", "pipeline.convert", "--runner=DirectRunner", to, f"--num_shards=train={shards}"]
    commands = {
        "ours": [*ours, f"--input={source}"],
        "plain": [python, str(_HERE / "plain_convert.py"), f"--input={source}", to, count],
        "floor": [python, str(_HERE / "floor_convert.py"), f"--input={source}"],
    }
    if peers:
        for name, of_peer in {"tfds": python, "hugging_face": str(peers), "webdataset": str(peers)}.items():
            commands[name] = [of_peer, str(_HERE / "converters.py"), name, f"--input={source}", to, count]
    return commands


def _kept(output: Path, printed: str) -> int:
    card = output / "dataset.json"
    if card.exists():
        return json.loads(card.read_text("utf-8"))["splits"]["train"]["counts"]["kept"]
    return int(re.findall(r"^([\d,]+) records kept$", printed, re.MULTILINE)[-1].replace(",", ""))


def _make_input(members: int, work: Path) -> Path:
    """A folder of `members` links to the sample's files, each under a name of its own."""
    sample = work / "sample"
    if not sample.exists():
        measure([sys.executable, "-m", "pipeline.sample", f"--output={sample}", "--writers=12", "--characters=3755"])
    files = sorted(sample.rglob("*.gnt"))
    folder = work / f"input-{members}"
    folder.mkdir(exist_ok=True)
    for number in range(members):
        link = folder / f"{number + 10_001}-c.gnt"
        if not link.exists():
            os.link(files[number % len(files)], link)
    return folder


def _print_table(rows: list[dict[str, Any]], left_out: dict[str, str]) -> None:
    head = f"{'records/s':>10} {'ours is':>8} {'largest MB':>11} {'all MB':>7} {'written MB':>11}"
    for row in rows:
        print(f"{row['records']:,} records".ljust(30) + head)
        for side, name in _NAMES.items():
            if side not in row:
                continue
            found, ratio = row[side], f"{row[f'of_{side}']:.2f} ×" if side != "ours" else ""
            memory = f"{found['largest_process_mb']:>11,} {found['all_processes_mb']:>7,}"
            lost = f"  lost {found['lost']:,} records" if found.get("lost") else ""
            print(f"{name:<30}{found['records_per_second']:>10,} {ratio:>8} {memory} {found['written_mb']:>11,}{lost}")
        for name, reason in left_out.items():
            print(f"{name:<30}  {reason}")
        print()


if __name__ == "__main__":
    main()
