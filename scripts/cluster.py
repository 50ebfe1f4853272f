"""A Flink cluster on one machine, of the parts that a real one has: a JobManager, TaskManagers, a worker pool.

    python scripts/cluster.py start                JobManager, 2 TaskManagers of 2 slots each, a worker pool
    python scripts/cluster.py start --only pool    the worker pool alone, for another engine
    python scripts/cluster.py stop

Each is a process of its own that goes on until `stop`; logs and settings are in the cluster's folder. Flink's jars are
what scripts/fetch_engines.sh fetches, and `java` is the one on the PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
ENGINES = Path(os.environ.get("HWDB_ENGINES", ROOT / "build" / "engines"))
START_SECONDS = 60.0
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# Flink reaches into these; Java 17 keeps them shut otherwise.
_OPENS = ("java.lang", "java.net", "java.io", "java.nio", "java.lang.reflect", "java.text", "java.time", "java.util")
_OPENS += ("java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch")

_TASK_MANAGER_MEMORY = {
    "framework.heap.size": "128m",
    "framework.off-heap.size": "128m",
    "task.heap.size": "512m",
    "task.off-heap.size": "64m",
    "managed.size": "128m",
    # A sorted shuffle takes 512 buffers of 32 KiB for each of its outputs before it begins.
    "network.min": "256m",
    "network.max": "256m",
    "jvm-metaspace.size": "256m",
    "jvm-overhead.min": "128m",
    "jvm-overhead.max": "128m",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--only", choices=("flink", "pool"), help="start just these (default: both)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "cluster", help="logs, settings, process ids")
    parser.add_argument("--rest_port", type=int, default=8081, help="Flink's port for --flink_master (default: 8081)")
    parser.add_argument("--pool_port", type=int, default=50000, help="the worker pool's port (default: 50000)")
    parser.add_argument("--task_managers", type=int, default=2, help="TaskManagers (default: 2)")
    parser.add_argument("--slots", type=int, default=2, help="task slots of each TaskManager (default: 2)")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if arguments.action == "stop":
        stop(folder)
        return
    if (folder / "processes.json").exists():
        sys.exit(f"cluster.py: {folder}: a cluster was started from here already; stop it first")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.only != "pool":
            start_flink(folder, arguments.rest_port, arguments.task_managers, arguments.slots)
        if arguments.only != "flink":
            start_pool(folder, arguments.pool_port, arguments.task_managers * arguments.slots)
    except BaseException:
        stop(folder)
        raise
    if arguments.only != "pool":
        print(f"--runner=FlinkRunner --flink_master=localhost:{arguments.rest_port}", end=" ")
    print(f"--environment_type=EXTERNAL --environment_config=localhost:{arguments.pool_port}")


def start_flink(folder: Path, rest_port: int, task_managers: int, slots: int) -> None:
    """A JobManager and its TaskManagers, in JVMs of their own; returns when all have found each other."""
    jars = sorted((ENGINES / "flink" / "lib").glob("*.jar"))
    if not jars:
        sys.exit(
            f"cluster.py: {ENGINES}/flink/lib: expected Flink's jars, found none; run scripts/fetch_engines.sh flink"
        )
    java = shutil.which("java")
    if java is None:
        sys.exit("cluster.py: expected java on the PATH, found none; install a Java runtime, 11 or 17")
    _write_settings(folder, rest_port, slots)
    base = [java, *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS)]
    classes = ["-classpath", os.pathsep.join(map(str, jars))]
    logs = [f"-Dlog4j.configurationFile={folder}/log4j.properties"]
    settings = ["--configDir", str(folder)]
    _spawn(folder, "jobmanager", [*base, "-Xmx512m", *logs, *classes, _JOB_MANAGER, *settings])
    for number in range(task_managers):
        _spawn(folder, f"taskmanager-{number}", [*base, "-Xmx768m", *logs, *classes, _TASK_MANAGER, *settings])
    deadline = time.monotonic() + START_SECONDS
    while overview(rest_port).get("taskmanagers") != task_managers:
        _check(folder, deadline, f"{task_managers} TaskManagers")
        time.sleep(0.2)


def start_pool(folder: Path, port: int, processes: int) -> None:
    """A worker pool, which the TaskManagers share; each of several machines has one of its own."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pipeline.convert.workers", f"--port={port}", f"--processes={processes}"]
    _spawn(folder, "pool", command, {**os.environ, "PYTHONPATH": python_path})
    deadline = time.monotonic() + START_SECONDS
    while "--environment_config" not in (folder / "pool.log").read_text():
        _check(folder, deadline, f"a worker pool on port {port}")
        time.sleep(0.2)


def stop(folder: Path) -> None:
    """Ends every process of the cluster, and those they have started."""
    family: list[psutil.Process] = []
    for one in processes(folder).values():
        with contextlib.suppress(psutil.Error):
            family += [one, *one.children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    for one in alive:
        with contextlib.suppress(psutil.Error):
            one.kill()
    (folder / "processes.json").unlink(missing_ok=True)


def processes(folder: Path) -> dict[str, psutil.Process]:
    """The cluster's processes that are alive, by name."""
    found = {}
    for name, (pid, started) in _read(folder).items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE:
                found[name] = process
    return found


def overview(rest_port: int) -> dict[str, int]:
    """What the JobManager says of its cluster; empty as long as it doesn't answer."""
    try:
        with urllib.request.urlopen(f"http://localhost:{rest_port}/overview", timeout=5) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return {}


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        return int(bound.getsockname()[1])


def _write_settings(folder: Path, rest_port: int, slots: int) -> None:
    settings = {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": free_port(),
        "rest.address": "localhost",
        "rest.port": rest_port,
        "taskmanager.host": "localhost",
        "taskmanager.numberOfTaskSlots": slots,
        # A TaskManager that isn't started by Flink's own scripts must be told all of this.
        "taskmanager.cpu.cores": float(slots),
        **{f"taskmanager.memory.{name}": size for name, size in _TASK_MANAGER_MEMORY.items()},
        # A job whose TaskManager is lost starts again on what is left; finished pieces are found and not made again.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 3,
        "restart-strategy.fixed-delay.delay": "1 s",
        # Where too few are left, that is said after a minute: Flink's own default waits five, at each attempt.
        "slot.request.timeout": 15000,
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "io.tmp.dirs": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    (folder / "log4j.properties").write_text(
        "rootLogger.level = INFO\nrootLogger.appenderRef.console.ref = Console\nappender.console.name = Console\n"
        "appender.console.type = CONSOLE\nappender.console.layout.type = PatternLayout\n"
        "appender.console.layout.pattern = %d %-5p %c{1} %m%n\n"
    )


def _spawn(folder: Path, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    known = {**_read(folder), name: (process.pid, psutil.Process(process.pid).create_time())}
    (folder / "processes.json").write_text(json.dumps(known))


def _read(folder: Path) -> dict[str, tuple[int, float]]:
    path = folder / "processes.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _check(folder: Path, deadline: float, awaited: str) -> None:
    ended = sorted(_read(folder).keys() - processes(folder).keys())
    if ended:
        sys.exit(f"cluster.py: {ended[0]} ended while it started; {folder / ended[0]}.log says why")
    if time.monotonic() > deadline:
        sys.exit(f"cluster.py: expected {awaited} within {START_SECONDS:.0f} s; the logs in {folder} say why not")


if __name__ == "__main__":
    main()
