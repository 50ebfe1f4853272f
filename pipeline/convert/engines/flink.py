"""Flink's REST interface: how large a cluster is, which jobs it has, and the end of one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from schemas.errors import UserError

_SECONDS = 10.0
_OVER = ("FINISHED", "CANCELED", "FAILED")


@dataclass(frozen=True)
class Cluster:
    task_managers: int
    slots: int
    version: str
    """Two numbers, as Beam's job servers are named by: 1.20."""


@dataclass(frozen=True)
class Flink:
    """A Flink cluster, by the address that --flink_master names."""

    master: str

    @property
    def url(self) -> str:
        return (self.master if "://" in self.master else f"http://{self.master}").rstrip("/")

    def cluster(self) -> Cluster:
        """Raises UserError where there is no cluster, or none with a slot."""
        expected = f"--flink_master={self.master}: expected the REST address of a Flink cluster"
        try:
            found = self._asked("/overview")
            version = ".".join(str(found["flink-version"]).split(".")[:2])
            cluster = Cluster(int(found["taskmanagers"]), int(found["slots-total"]), version)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{expected}, found {reason(error)}; check that it runs, and the port (often 8081)"
            ) from error
        except (KeyError, TypeError) as error:
            raise UserError(f"{expected}, found another server; check the port (often 8081)") from error
        if not cluster.slots:
            raise UserError(f"{expected} with slots, found {cluster.task_managers} TaskManagers and none; start some")
        return cluster

    def unfinished(self, name: str) -> dict[str, str]:
        """The state by id of the jobs of that name which aren't over. Raises OSError, ValueError."""
        jobs = self._asked("/jobs/overview").get("jobs", [])
        return {job["jid"]: job["state"] for job in jobs if name in job["name"] and job["state"] not in _OVER}

    def cancel(self, job: str) -> None:
        """Asks for a job's end. Raises OSError."""
        self._asked(f"/jobs/{job}?mode=cancel", "PATCH")

    def _asked(self, path: str, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return dict(json.loads(answer.read() or b"{}"))


def is_local(master: str) -> bool:
    """Whether it is Beam's word for a Flink inside the job server."""
    return master in ("[local]", "[auto]")


def reason(error: Exception) -> str:
    """Why a server couldn't be reached, in the operating system's words."""
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner).lower()
