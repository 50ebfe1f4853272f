"""python -m pipeline.inspect: a finished data set in figures, pictures, SQL, and a report to hand on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TextIO

from pipeline import storage
from schemas.command import EXIT_DIFFERENT, Parser, at_least, expanded, path_or_url, prints_its_product, run_command
from schemas.errors import UserError

_USAGE = """python -m pipeline.inspect DIR [--format F] [--checksums] [--against PATH …]
       python -m pipeline.inspect DIR --sql "SELECT …" [--format F]
       python -m pipeline.inspect DIR --html FILE [--against PATH …]
       python -m pipeline.inspect DIR --index
       python -m pipeline.inspect DIR show SAMPLE_ID … | --char C | --writer W [--output FILE.png]
       python -m pipeline.inspect diff DIR_A DIR_B [--format F]"""
_SHOWN = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if `diff` finds a difference, 2 for what the user can mend."""
    return run_command("pipeline.inspect", lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(arguments: list[str]) -> int:
    if arguments[:1] == ["diff"]:
        return _diff(arguments[1:], sys.stdout)
    if arguments[1:2] == ["show"]:
        return _show(expanded(arguments[0]), arguments[2:], sys.stdout)
    return _inspect(arguments, sys.stdout)


def _inspect(argv: Sequence[str], out: TextIO) -> int:
    parser = Parser(
        "pipeline.inspect",
        "Shows what a data set holds: a summary, by default.",
        usage=_USAGE,
        epilog="'DIR show --help' and 'diff --help' say more of those two. "
        "--s3_endpoint_url=URL and its kin lead to a store that isn't Amazon's: docs/object-storage.md.",
    )
    add = parser.add_argument
    add("folder", type=path_or_url, metavar="DIR", help="the folder of a data set, or its URL")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sql", metavar="QUERY", help="ask the manifest: DuckDB's SQL over one view, manifest")
    what.add_argument(
        "--html", type=path_or_url, metavar="FILE", help="write a report: one file that needs nothing else to be read"
    )
    what.add_argument(
        "--index", action="store_true", help="write an .idx beside each shard, for DALI's TFRecord reader"
    )
    what.add_argument(
        "--checksums", action="store_true", help="with the summary: compare the archives' MD5 with CASIA's"
    )
    add(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="of the summary (table or json) or of --sql's answer (default: table)",
    )
    _add_against(parser)
    arguments = _parse(parser, argv)
    given = arguments.sql is not None or arguments.html or arguments.index
    if arguments.format == "csv" and not given:
        raise UserError("--format csv: expected --sql with it; the summary has the formats table and json")
    if arguments.format != "table" and (arguments.html or arguments.index):
        raise UserError(f"--format {arguments.format}: expected the summary or --sql with it")
    if arguments.against and not (arguments.html or arguments.checksums):
        raise UserError("--against: expected show, --html or --checksums with it; nothing else looks into the archives")
    if not (arguments.html or arguments.index):
        prints_its_product()
    # Each imports what it needs, so that --help doesn't wait for Arrow, OpenCV and DuckDB.
    if arguments.sql is not None:
        from pipeline.inspect.sql import print_answer

        print_answer(arguments.folder, arguments.sql, arguments.format, out)
        return 0
    from pipeline.inspect.manifest import open_dataset

    inspected = open_dataset(arguments.folder)
    if arguments.html:
        from pipeline.inspect.report.write import write_report

        print(write_report(inspected, arguments.html, arguments.against), file=out)
    elif arguments.index:
        from pipeline.inspect.index import write_index

        for path in write_index(inspected):
            print(path, file=out)
    else:
        from pipeline.inspect.overview import print_overview

        print_overview(inspected, arguments.format, arguments.against if arguments.checksums else None, out)
    return 0


def _show(folder: str, argv: Sequence[str], out: TextIO) -> int:
    parser = Parser(
        "pipeline.inspect DIR show",
        "The original bitmap of records and what each of the six steps makes of it, side by side.",
    )
    add = parser.add_argument
    add("sample_ids", nargs="*", metavar="SAMPLE_ID", help="split/member/record_index, as in the manifest")
    add("--char", metavar="C", help="records of this character")
    add("--writer", metavar="W", help="records of this writer")
    add(
        "--limit",
        type=int,
        default=_SHOWN,
        metavar="N",
        help="with --char or --writer: how many (default: %(default)s)",
    )
    add("--output", type=path_or_url, metavar="FILE", help="a PNG instead of blocks on the terminal")
    _add_against(parser)
    arguments = _parse(parser, argv)
    if bool(arguments.sample_ids) == bool(arguments.char or arguments.writer):
        raise UserError("show: expected either SAMPLE_IDs or --char and --writer; for instance show --char 云")
    at_least(1, "--limit", arguments.limit)
    if arguments.output and not arguments.output.lower().endswith(".png"):
        raise UserError(f"--output {arguments.output}: expected a name that ends in .png")
    if not arguments.output:
        prints_its_product()
    from pipeline.inspect.manifest import open_dataset
    from pipeline.inspect.show import choose_named, choose_where, show

    inspected = open_dataset(folder)
    if arguments.sample_ids:
        rows = choose_named(inspected, arguments.sample_ids)
    else:
        rows = choose_where(inspected, {"char": arguments.char, "writer": arguments.writer}, arguments.limit)
    show(inspected, rows, arguments.against, arguments.output, out)
    return 0


def _diff(argv: Sequence[str], out: TextIO) -> int:
    parser = Parser(
        "pipeline.inspect diff",
        "What differs between two data sets: settings, records, labels, pixels. Ends with status 1 if "
        "something does, 0 if nothing does.",
    )
    parser.add_argument(
        "folders", type=path_or_url, nargs=2, metavar="DIR", help="the folder of a data set, or its URL"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    arguments = _parse(parser, argv)
    prints_its_product()
    from pipeline.inspect.diff import print_differences

    a, b = arguments.folders
    return EXIT_DIFFERENT if print_differences(a, b, arguments.format, out) else 0


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    return parser.parse_args(storage.take_flags(argv))


def _add_against(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--against",
        type=path_or_url,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="where the archives lie now, if not where the card says",
    )
