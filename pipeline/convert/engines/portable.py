"""Beam's other engines: what can be known of a run before it starts, and what is said of one that failed."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from apache_beam.options import pipeline_options as beam_options
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import create_runner
from apache_beam.runners.runner import PipelineRunner

from pipeline.convert.engines.flink import Flink, is_local, reason
from schemas.errors import EngineError, UserError

_CONNECT_SECONDS = 10.0
_FILE_FLAGS = ("flink_job_server_jar", "spark_job_server_jar", "prism_location")
_POOL = "--environment_type=EXTERNAL --environment_config=HOST:PORT for a worker pool beside each"
_KNOWN = {
    "NoResourceAvailableException": "the cluster has fewer free slots than --parallelism asks for, since a TaskManager "
    "was lost or another job has them; the same command takes what is left then",
    "Insufficient number of network buffers": "Flink has too little network memory for the job; set "
    "taskmanager.memory.network.min and .max to 256m",
}
"""What stands in an engine's words -> what happened."""
_job_servers: list[Any] = []
"""Engines that this process has started."""
_SESSION = "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])"
_OUR_FRAME = re.compile(r'^ *File ".*[/\\](pipeline|schemas)[/\\](\w+[/\\])?\w+\.py"', flags=re.MULTILINE)


def make_engine(name: str, flags: Sequence[str]) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner and its options. Raises UserError for what would fail only after a minute, or in a hundred lines."""
    options = PipelineOptions([f"--runner={name}", *flags])
    given, _ = parsed_flags(options)
    try:
        runner = create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--runner={name}: {_why_none(name, error)}") from error
    for flag in _FILE_FLAGS:
        path = given.get(flag)
        if path and "://" not in path and not os.path.isfile(path):
            raise UserError(f"--{flag}={path}: expected a file, found none; docs/cluster.md says where it comes from")
    endpoint = given["job_endpoint"]
    if endpoint and endpoint != "embed":
        _refuse_unreachable("job_endpoint", endpoint)
    kind, local = type(runner).__name__, True
    if kind == "FlinkRunner":
        local = is_local(given["flink_master"])
        if not local and not endpoint:
            _refuse_docker("flink_master", given["flink_master"], "TaskManager", given)
            _follow_cluster(options.view_as(beam_options.FlinkRunnerOptions), flags)
    elif kind == "SparkRunner":
        local = given["spark_master_url"].startswith("local")
        if not local and not endpoint:
            _refuse_docker("spark_master_url", given["spark_master_url"], "Spark worker", given)
    elif kind == "PortableRunner":
        local = False
        if not endpoint:
            raise UserError("--runner=PortableRunner: expected --job_endpoint=HOST:PORT, the job server, found none")
        if endpoint != "embed":
            _refuse_docker("job_endpoint", endpoint, "of the engine's workers", given)
    if kind in ("FlinkRunner", "SparkRunner") and not endpoint and not _submits_itself(given):
        _refuse_missing_java(given["job_server_java_launcher"])
    if local and given["environment_type"] == "EXTERNAL" and given["environment_config"]:
        _refuse_unreachable("environment_config", given["environment_config"])
    _remember_job_server(runner)
    return runner, options


def _why_none(name: str, error: Exception) -> str:
    """Why Beam has no such runner: there is none, or it can't be loaded here."""
    known = beam_options.StandardOptions.KNOWN_RUNNER_NAMES
    if "." in name or name.lower().removesuffix("runner") in (one.lower().removesuffix("runner") for one in known):
        return f"it can't be loaded here ({str(error).splitlines()[0]}); use DirectRunner or FlinkRunner"
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else "DirectRunner is this machine, docs/cluster.md names the others"
    return f"expected one of Beam's runners, found none of that name; {hint}"


def parsed_flags(options: PipelineOptions) -> tuple[dict[str, Any], list[str]]:
    """Every flag that Beam knows, with its value, and the names of those it doesn't. Raises UserError."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            known: dict[str, Any] = options.get_all_options()
            everything = options.get_all_options(retain_unknown_options=True)
    except SystemExit as error:
        raise UserError(complaint.getvalue().strip().rpartition("error: ")[2]) from error
    return known, sorted(everything.keys() - known.keys())


def stop_engines() -> None:
    """Ends what Beam has started for a run: it would do so itself only at an orderly end of this process."""
    while _job_servers:
        with contextlib.suppress(Exception):
            _job_servers.pop().stop()


def explain(name: str, error: Exception) -> EngineError | None:
    """What a failed run says, in one line; None where a worker's traceback shows a fault of this program."""
    details = getattr(error, "details", None)
    if callable(details):  # gRPC's
        return EngineError(f"{name}: the connection to the engine was lost ({details()})")
    text = str(error).strip() or type(error).__name__
    if _OUR_FRAME.search(text):
        return None
    for sign, words in _KNOWN.items():
        if sign in text:
            return EngineError(f"{name}: {words}")
    # Java puts the cause last, with a stack under each; Python its exception.
    causes = re.findall(r"^Caused by: (.*)$", text, flags=re.MULTILINE)
    line = causes[-1] if causes else text.splitlines()[-1 if "Traceback (most recent call last)" in text else 0]
    return EngineError(f"{name}: {re.sub(r'^Pipeline .* failed in state ', 'the job ended as ', line)}")


def _remember_job_server(runner: Any) -> None:
    """The engine's own server is ended by `stop_engines`, after the job: by nobody's Ctrl-C before."""
    if not hasattr(runner, "default_job_server"):
        return
    default = runner.default_job_server

    def remembered(options: PipelineOptions) -> Any:
        server = default(options)
        # Beam's wrapper stops it at the first SIGINT, and has no handler to set outside the main thread.
        server = getattr(server, "_job_server", server)
        if hasattr(server, "subprocess_cmd_and_endpoint"):
            server.subprocess_cmd_and_endpoint = _apart(server.subprocess_cmd_and_endpoint)
        _job_servers.append(server)
        return server

    runner.default_job_server = remembered


def _apart(begun: Callable[[], tuple[list[Any], str]]) -> Callable[[], tuple[list[Any], str]]:
    """The command line, and the endpoint, of a program that a terminal's Ctrl-C doesn't reach."""

    def of_its_own() -> tuple[list[Any], str]:
        command, endpoint = begun()
        return [sys.executable, "-c", _SESSION, *command], endpoint

    return of_its_own


def _refuse_docker(flag: str, value: str, where: str, given: dict[str, Any]) -> None:
    if not given["environment_type"]:
        raise UserError(
            f"--{flag}={value}: expected --environment_type, found none, and Beam's own Docker image "
            f"lacks this package; add {_POOL} {where}"
        )


def _submits_itself(given: dict[str, Any]) -> bool:
    return bool(given["flink_submit_uber_jar"] or given["spark_submit_uber_jar"])


def _refuse_missing_java(launcher: str) -> None:
    if shutil.which(launcher) is None:
        raise UserError(
            f"expected Java for the engine's job server, found no {launcher!r}; install a Java runtime (11 or 17), or "
            "name its program with --job_server_java_launcher"
        )


def _follow_cluster(flink: Any, flags: Sequence[str]) -> None:
    """Takes from the cluster what the flags don't say: Beam's own defaults are one slot and the latest version."""
    cluster = Flink(flink.flink_master).cluster()
    if flink.parallelism == -1:
        flink.parallelism = cluster.slots
    if flink.flink_job_server_jar or any(flag.partition("=")[0] == "--flink_version" for flag in flags):
        return
    if cluster.version not in flink.PUBLISHED_FLINK_VERSIONS:
        raise UserError(
            f"--flink_master={flink.flink_master}: expected Flink {', '.join(flink.PUBLISHED_FLINK_VERSIONS)}, found "
            f"{cluster.version}; name a job server for it with --flink_job_server_jar"
        )
    flink.flink_version = cluster.version


def _refuse_unreachable(flag: str, address: str) -> None:
    """A connection that is refused now would be tried again for five minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdecimal():
            raise UserError(f"--{flag}={address}: expected HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--{flag}={address}: expected a server there, found {reason(error)}; start it first"
        ) from error
