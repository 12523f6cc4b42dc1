"""The state of a running job, for other terminals: small files in its output folder.

``FOLDER/.running/job.json`` says how far the job is, who runs it (process and machine) and since
when; its owner rewrites it every few seconds. Each try of a unit on another machine has a file
beside it while it runs; if its process dies the file stays, so that lost tries can be counted.
Readers take no lock. The folder is removed with the job, or by the next job if that was killed.
A job does not depend on these files: if they cannot be written, it goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import atomic_write_bytes
from ..locks import is_gone

PLACE, JOB = ".running", "job.json"
EVERY = 5.0  # s between updates of a job's file
PROCESS = {"pid": int, "host": str, "since": str}
FORMS = ({"name": str, **PROCESS}, {"done": int, "total": int, "updated": float, **PROCESS})


@dataclass(frozen=True)
class Unit:
    """A running unit: name, process and machine, start, number of the try."""

    name: str
    pid: int
    host: str
    since: str
    tries: int


@dataclass(frozen=True)
class Running:
    """The state of a job that runs or was killed.

    Attributes
    ----------
    done, total
        Units committed, of how many.
    pid, host, since
        Process, machine and start time.
    updated
        When the file was last written, s since the epoch.
    units
        Units running on an engine's machines, except those whose process on this machine is gone.
    """

    done: int
    total: int
    pid: int
    host: str
    since: str
    updated: float
    units: tuple[Unit, ...] = ()

    @property
    def age(self) -> float:
        """Seconds since the last update."""
        return max(0.0, time.time() - self.updated)

    @property
    def gone(self) -> bool:
        """Whether it ran on this machine and its process is gone."""
        return is_gone(self.pid, self.host, self.since)


@contextmanager
def announce(folder: Path, total: int, done: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Write a job's state in `folder` within the context; yield a function that may update it."""
    place = folder / PLACE
    ours = {"total": total, **_this_process()}
    last = [-EVERY]

    def update() -> None:
        if time.monotonic() - last[0] < EVERY:
            return
        last[0] = time.monotonic()
        content = json.dumps({"done": done(), "updated": time.time(), **ours})
        with suppress(OSError):
            atomic_write_bytes(place / JOB, content.encode())

    update()
    try:
        yield update
    finally:
        forget(folder)


def forget(folder: Path) -> None:
    """Remove a job's state; only for the holder of the folder's lock."""
    shutil.rmtree(folder / PLACE, ignore_errors=True)


@contextmanager
def under_way(folder: Path, key: str, name: str) -> Iterator[None]:
    """Keep a file for one try of a unit within the context, in the process that runs it."""
    mark = folder / PLACE / f"{key}-{uuid.uuid4().hex}"
    with suppress(OSError):
        mark.write_text(json.dumps({"name": name, **_this_process()}))
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink()


def count_lost_tries(folder: Path, key: str) -> int:
    """Return how many tries of a unit ended with a dead process, and remove their files."""
    marks = list((folder / PLACE).glob(f"{key}-*"))
    for mark in marks:
        with suppress(OSError):
            mark.unlink()
    return len(marks)


def read_running(folder: Path) -> Running | None:
    """Return the state of the job in `folder`, or None if none runs."""
    job = _read(folder / PLACE / JOB)
    if job is None:
        return None
    tries: dict[str, list[dict[str, Any]]] = {}
    for mark in (folder / PLACE).glob("*-*"):
        if (state := _read(mark)) is not None:
            tries.setdefault(mark.name.split("-")[0], []).append(state)
    units = [
        Unit(last["name"], *_process_of(last), len(marks))
        for marks in tries.values()
        for last in [max(marks, key=lambda state: state["since"])]
        if not is_gone(*_process_of(last))
    ]
    units.sort(key=lambda unit: unit.since)
    return Running(job["done"], job["total"], *_process_of(job), job["updated"], tuple(units))


def describe(running: Running) -> dict[str, Any]:
    """Return a job's state as plain data, with the derived `age` and `gone`."""
    return {**asdict(running), "age": running.age, "gone": running.gone}


def _this_process() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _process_of(state: dict[str, Any]) -> tuple[int, str, str]:
    return state["pid"], state["host"], state["since"]


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a state file; None if it is gone, half-written, or someone else's."""
    try:
        content: Any = json.loads(path.read_text()) if path.is_file() else None
        forms = FORMS[path.name == JOB]
        return {name: form(content[name]) for name, form in forms.items()}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
