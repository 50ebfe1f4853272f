"""TF_CONFIG: a spec that makes no sense is one line, and workers find each other, or end, within a bound."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from model.network.cluster import Cluster, check_alike, meet, parse_cluster
from schemas.errors import UserError

TWO = {"worker": ["a:1", "b:2"]}


def spec(cluster: Any, task: Any) -> str:
    return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'cluster': {}}", "expected JSON, for instance .*, found"),
        ("[]", "expected JSON with cluster and task"),
        ("5", "expected JSON with cluster and task"),
        (spec({}, {"type": "worker", "index": 0}), "expected cluster with the addresses"),
        (spec("a:1", {"type": "worker", "index": 0}), "expected cluster with the addresses"),
        (spec(TWO, {}), "expected task with the type and index"),
        (json.dumps({"cluster": TWO}), "expected task with the type and index"),
        (spec({**TWO, "ps": ["c:3"]}, {"type": "worker", "index": 0}), "expected chief and worker, found ps"),
        (spec({**TWO, "evaluator": ["c:3"]}, {"type": "worker", "index": 0}), "found evaluator"),
        (spec(TWO, {"type": "evaluator", "index": 0}), "expected type chief or worker, found 'evaluator'"),
        (spec(TWO, {"index": 0}), "expected type chief or worker, found None"),
        (spec(TWO, {"type": "worker", "index": 2}), r"from 0 to less than the 2 worker\(s\) of cluster, found 2"),
        (spec(TWO, {"type": "worker", "index": -1}), "found -1"),
        (spec(TWO, {"type": "worker", "index": True}), "found True"),
        (spec(TWO, {"type": "worker"}), "found None"),
        (spec(TWO, {"type": "chief", "index": 0}), r"the 0 chief\(s\) of cluster, found 0"),
        (spec({"worker": ["a:1", "a:1"]}, {"type": "worker", "index": 0}), "a:1 stands there twice"),
        (spec({"chief": ["a:1", "c:3"]}, {"type": "chief", "index": 0}), "expected one chief at most"),
        (spec({"worker": {"0": "a:1"}}, {"type": "worker", "index": 0}), "expected a list of HOST:PORT for worker"),
        *[
            (spec({"worker": ["a:1", address]}, {"type": "worker", "index": 0}), "expected HOST:PORT")
            for address in ("b", "b:", ":2", "b:0", "b:65536", "b:x", "grpc://b:2", 7, None)
        ],
    ],
)
def test_a_spec_that_makes_no_sense_is_one_line(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=f"^TF_CONFIG: .*{expected}.*unset it to train on this machine alone$"):
        parse_cluster(text)


@pytest.mark.parametrize("text", [None, "", " ", "{}", spec({"worker": ["a:1"]}, {"type": "worker", "index": 0})])
def test_a_machine_alone_is_no_cluster(text: str | None) -> None:
    assert parse_cluster(text) is None


def test_the_chief_is_the_first() -> None:
    found = parse_cluster(spec({"worker": ["a:1", "[::1]:2"], "chief": ["c:3"]}, {"type": "worker", "index": "1"}))
    assert found is not None
    assert (found.addresses, found.own) == (("c:3", "a:1", "[::1]:2"), 2)
    assert (found.name(0), found.name(2), found.place(2)) == ("chief 0", "worker 1", ("::1", 2))


def cluster_of(ports: list[int], own: int) -> Cluster:
    tasks = tuple(("worker", index) for index in range(len(ports)))
    return Cluster(tasks, tuple(f"127.0.0.1:{port}" for port in ports), own)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def met(ports: list[int], said: list[dict[str, Any]], order: list[int]) -> list[str]:
    """What each worker ends with, "" for well; they come in that order."""

    def one(own: int) -> str:
        time.sleep(0.3 * order.index(own))
        try:
            meet(cluster_of(ports, own), said[own], wait_seconds=20)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(ports)) as pool:
        return list(pool.map(one, range(len(ports))))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_workers_that_are_alike_meet_in_any_order(order: list[int]) -> None:
    assert met(free_ports(3), [{"steps": (1, 2)}] * 3, order) == ["", "", ""]


def test_every_worker_says_what_differs() -> None:
    said = [{"--steps": 3, "step": 10, "same": 1}, {"--steps": 3, "step": 10, "same": 1}, {"--steps": 4, "step": None}]
    answers = met(free_ports(3), said, [1, 0, 2])
    assert len(set(answers)) == 1
    assert "--steps is 3 on worker 0, 4 on worker 2" in answers[0]
    assert "step is 10 on worker 0, None on worker 2; same is 1 on worker 0, None on worker 2" in answers[0]


def test_only_differences_are_refused() -> None:
    check_alike(cluster_of([1, 2], 0), [{"a": 1}, {"a": 1}])
    with pytest.raises(UserError, match="a is 1 on worker 0, 2 on worker 1; give all"):
        check_alike(cluster_of([1, 2], 0), [{"a": 1, "b": 3}, {"a": 2, "b": 3}])


@pytest.mark.parametrize("own", [0, 1])
def test_a_worker_that_never_comes_is_named_and_given_up(own: int, capsys: pytest.CaptureFixture[str]) -> None:
    ports = free_ports(2)
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"worker {1 - own} at 127.0.0.1:{ports[1 - own]} didn't come within 1 seconds"):
        meet(cluster_of(ports, own), {}, wait_seconds=1)
    assert time.monotonic() - begun < 5
    assert f"waiting for worker {1 - own} at 127.0.0.1:{ports[1 - own]}, 1 seconds at most" in capsys.readouterr().out


def test_a_host_without_an_address_is_waited_for_too() -> None:
    cluster = Cluster((("worker", 0), ("worker", 1)), ("no-such-host.invalid:1", f"127.0.0.1:{free_ports(1)[0]}"), 1)
    with pytest.raises(UserError, match=r"no-such-host.invalid:1 didn't come within .* \(.*\); run the same command"):
        meet(cluster, {}, wait_seconds=1)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"worker 0 can't listen on port {port} .*end what has it"):
            meet(cluster_of([port, *free_ports(1)], 0), {}, wait_seconds=1)


def test_a_port_that_may_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied (while attempting to bind on address ('', 9))")

    monkeypatch.setattr(socket, "create_server", refused)
    expected = r"worker 0 can't listen on port 9 \(Permission denied\); choose one above 1023 on every worker$"
    with pytest.raises(UserError, match=expected):
        meet(cluster_of([9, 10], 0), {}, wait_seconds=1)


def test_strangers_and_second_starts_do_not_disturb_a_meeting() -> None:
    ports = free_ports(2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, cluster_of(ports, 0), {"a": 1}, wait_seconds=20)
        time.sleep(0.5)
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b'{"worker": 7, "says": {}}\n', b"\xff\n", b""):
            with socket.create_connection(("127.0.0.1", ports[0])) as stranger:
                stranger.sendall(nonsense)
        lost = socket.create_connection(("127.0.0.1", ports[0]))
        lost.sendall(b'{"worker": 1, "says": {"a": 2}}\n{')  # ends before it is all said
        lost.close()
        time.sleep(0.5)
        assert not first.done()
        pool.submit(meet, cluster_of(ports, 1), {"a": 1}, wait_seconds=20).result(20)
        first.result(20)


def test_two_workers_of_one_number() -> None:
    ports = free_ports(3)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(meet, cluster_of(ports, 0), {}, wait_seconds=6)
        time.sleep(0.5)
        with socket.create_connection(("127.0.0.1", ports[0])) as earlier:
            earlier.sendall(b'{"worker": 1, "says": {}}\n')
            time.sleep(0.5)
            with pytest.raises(UserError, match="worker 1 has come already; give every worker an index of its own"):
                meet(cluster_of(ports, 1), {}, wait_seconds=5)
        with pytest.raises(UserError, match="didn't come"):
            leader.result(20)


def test_what_answers_may_be_another_program() -> None:
    """For instance the worker's last start, which hasn't noticed yet that the others are gone."""
    ports = free_ports(2)
    with socket.create_server(("127.0.0.1", ports[0])) as other:

        def answer() -> None:
            while True:
                connection, _ = other.accept()
                connection.sendall(b"\0\0\x12\4\0\0\0")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match="what answers there is no worker that waits"):
            meet(cluster_of(ports, 1), {}, wait_seconds=2)
