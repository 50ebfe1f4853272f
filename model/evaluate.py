"""python -m model.evaluate: how well a run reads a split, over every sample, by character and by writer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from model.answers import calibration, metrics
from model.answers.calibration import read_calibration
from model.answers.run import add_model_flag, check_data_set, load_model, place_for, read_run
from model.network.devices import cluster_of_environment, make_strategy, setup_tensorflow
from pipeline.reader import add_data_flags
from pipeline.reader.dataset import open_dataset
from schemas.command import Parser, at_least, local_path, make_console, print_table, run_command
from schemas.command.outputs import check_output, output
from schemas.dataset import MANIFEST_FOLDER
from schemas.errors import UserError, explained

if TYPE_CHECKING:
    from model.answers.scoring import Scores

COMMAND = "model.evaluate"
EVALUATION = "evaluation.parquet"
EVALUATION_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), False, {"meaning": "the manifest's: split/member/record_index"}),
        pa.field("label", pa.int16(), False, {"meaning": "the truth, index into classes.txt"}),
        pa.field("prediction", pa.int16(), False, {"meaning": "the label found most likely"}),
        pa.field("probability", pa.float32(), False, {"meaning": "of the prediction, calibrated, 0 to 1"}),
        pa.field("rank", pa.int16(), False, {"meaning": "of the truth; 1 where the prediction is right"}),
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(COMMAND, "Reads every sample of a split with a trained model and counts what is right.")
    add_model_flag(parser)
    add_data_flags(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")
    parser.add_argument("--where", metavar="CONDITION", help="only its records that fit a condition on the manifest")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="samples at once, over all replicas (default: 256 each, 64 on a CPU)"
    )
    parser.add_argument("--replicas", type=int, metavar="N", help="devices (default: every GPU, or the CPU)")
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit temperature and threshold to this split first, as training does to its validation split",
    )
    parser.add_argument("--rows", type=int, default=10, metavar="N", help="length of the tables (default: 10)")
    parser.add_argument(
        "--output", type=local_path, metavar="FILE", help=f"Parquet, a row for each sample (default: RUN/{EVALUATION})"
    )

    def body() -> int:
        flags = parser.parse_args(argv)
        at_least(0, "--rows", flags.rows)
        evaluate(flags, make_console())
        return 0

    return run_command(COMMAND, body)


def evaluate(flags: argparse.Namespace, console: Console) -> None:
    """One evaluation, from the run and the data set to the printed tables and the rows' file."""
    split, path = flags.split, flags.output or place_for(EVALUATION, flags.model)
    check_output(path, COMMAND, owned)
    run, data = read_run(flags.model), open_dataset(flags.data, flags.cache_bytes)
    if run.in_the_box and flags.calibrate:
        raise UserError("--calibrate: the recogniser in the box stays as it is; name a run of your own with --model")
    check_data_set(run, data)
    records = data.records(split, flags.where)
    if cluster_of_environment() is not None:
        raise UserError("TF_CONFIG: expected one worker, the rows go to one file; unset it")
    setup_tensorflow()  # takes seconds: what can be refused is refused before
    from model.answers.scoring import Evaluation, calibrate_run, forward_of

    strategy = make_strategy(flags.replicas)
    with strategy.scope():
        model = load_model(run)
    evaluation = Evaluation(forward_of(model), strategy, flags.batch, flag="--batch")
    trust = calibrate_run(run, evaluation, records) if flags.calibrate else read_calibration(run.folder)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Evaluating", total=len(records))
        scores = evaluation.scores(records, trust.temperature, lambda done: bar.update(task, completed=done))
    rows = records.rows(["sample_id", "writer"]).take(scores.position)
    writers = rows["writer"].to_numpy().astype(str)
    table = pa.table(
        [rows["sample_id"], scores.label, scores.prediction, scores.probability, scores.rank], schema=EVALUATION_SCHEMA
    )
    facts = {"split": split, "class_digest": data.classes.digest}
    title = f"{run.name} ({run.network}) on {data.folder}, split {split}"
    if flags.where is not None:
        facts |= {"where": flags.where, "where_digest": records.digest}
        title += f" where {flags.where}"
    with explained(f"write {path}"), output(path, COMMAND, owned) as temporary:
        pq.write_table(table.replace_schema_metadata(facts), temporary)
    print_evaluation(console, title, run.classes.characters, scores, writers, flags.rows)
    right = scores.rank == 1
    console.print()
    console.print(calibration.in_words(trust, scores.probability, scores.raw_probability, right))
    if flags.rows:
        print_table(
            console, "What predict --threshold refuses", *calibration.table_of(trust, scores.probability, right)
        )
    console.print()
    console.print(f"a row for each sample: {path}; sample_id joins {data.folder}/{MANIFEST_FOLDER}")


def owned(path: Path) -> list[Path] | None:
    """A file with the columns and the metadata of an evaluation."""
    schema = pq.read_schema(path)
    return [path] if schema.names == EVALUATION_SCHEMA.names and b"class_digest" in (schema.metadata or {}) else None


def print_evaluation(
    console: Console, title: str, names: Sequence[str], scores: Scores, writers: np.ndarray, rows: int
) -> None:
    """The tables, `rows` long; `names` are the characters in label order, `writers` is [n]."""
    label, prediction, rank = scores.label, scores.prediction, scores.rank
    by_character = metrics.worst_characters(names, label, prediction, rank)
    by_writer = metrics.worst_first(metrics.tally(writers, rank))
    accuracies = [entry.accuracy for entry in by_writer]
    console.print(title)
    n = len(label)
    figures = [("samples", f"{n:,}"), ("characters", f"{len(by_character):,}"), ("writers", f"{len(by_writer):,}")]
    for top in (1, metrics.TOP):
        right = int(np.count_nonzero(rank <= top))
        figures.append((f"top-{top}", f"{right / n:.2%}  ({right:,} right, {n - right:,} wrong)"))
    figures.append(("by writer", f"{min(accuracies):.2%} to {max(accuracies):.2%}, median {np.median(accuracies):.2%}"))
    figures.append(("loss", f"{np.mean(scores.loss, dtype=np.float64):.4f}"))
    for name, value in figures:
        console.print(f"  {name:<11}{value}")
    if not rows:
        return
    if not any(entry.wrong for entry in by_character):
        console.print("  every sample was read rightly: no character or writer to name")
        return
    columns = ["", "samples", "wrong", "top-1", f"top-{metrics.TOP}", "most often as"]
    for kind, worst, shown in (("Characters", by_character, 6), ("Writers", by_writer, 5)):
        lines = [
            [
                entry.key,
                *(f"{count:,}" for count in (entry.samples, entry.wrong)),
                *(f"{share:.2%}" for share in (entry.accuracy, entry.top_accuracy)),
                entry.read_as,
            ][:shown]
            for entry in worst[:rows]
            if entry.wrong
        ]
        print_table(console, f"{kind} read worst", columns[:shown], lines)
    lines = [
        [f"{names[pair.first]} {names[pair.second]}"]
        + [f"{figure:,}" for figure in (pair.times, pair.first_as_second, pair.second_as_first)]
        for pair in metrics.confused_pairs(label, prediction)[:rows]
    ]
    if lines:
        headings = ["", "times", "first as second", "second as first"]
        print_table(console, "Characters most often taken for each other", headings, lines)


if __name__ == "__main__":
    sys.exit(main())
