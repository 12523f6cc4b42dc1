"""What another terminal may know of a running job: small files in the folder that it writes to.

``FOLDER/.running/job.json`` holds how far the job is, by whom (process and machine) and since when;
its owner replaces it every few seconds. Beside it each try of a unit on some machine has a file
while it lasts, and longer where its process died: so the tries of a unit can be counted. Whoever
reads takes no lock. The folder goes with the job; what a killed one leaves, the next one removes.
None of this is needed: where it cannot be written, the job goes on.
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
    """A unit under way: its name, the process and machine that do it, since when, which try."""

    name: str
    pid: int
    host: str
    since: str
    tries: int


@dataclass(frozen=True)
class Running:
    """A job that runs, or was killed.

    Attributes
    ----------
    done, total
        What is committed, of how many.
    pid, host, since
        Its process and machine, and when it began.
    updated
        When it last wrote that, s since the epoch.
    units
        Those under way on machines of an engine; not those whose process on this machine is gone.
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
        """How long ago that was, s."""
        return max(0.0, time.time() - self.updated)

    @property
    def gone(self) -> bool:
        """Whether it ran on this machine, and its process is gone."""
        return is_gone(self.pid, self.host, self.since)


@contextmanager
def announce(folder: Path, total: int, done: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Write how far a job in `folder` is, while open; yield what writes that anew, now and then."""
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
    """Remove what a job has written of itself; for the holder of the folder's lock only."""
    shutil.rmtree(folder / PLACE, ignore_errors=True)


@contextmanager
def under_way(folder: Path, key: str, name: str) -> Iterator[None]:
    """Leave a file for a try of a unit while it lasts, in the process that does it."""
    mark = folder / PLACE / f"{key}-{uuid.uuid4().hex}"
    with suppress(OSError):
        mark.write_text(json.dumps({"name": name, **_this_process()}))
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink()


def count_lost_tries(folder: Path, key: str) -> int:
    """Return how many tries of a unit have not ended by themselves, and forget them."""
    marks = list((folder / PLACE).glob(f"{key}-*"))
    for mark in marks:
        with suppress(OSError):
            mark.unlink()
    return len(marks)


def read_running(folder: Path) -> Running | None:
    """Return the state of the job in `folder`, or None where none runs."""
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
    """Return a job's state as plain data, with what follows from it."""
    return {**asdict(running), "age": running.age, "gone": running.gone}


def _this_process() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _process_of(state: dict[str, Any]) -> tuple[int, str, str]:
    return state["pid"], state["host"], state["since"]


def _read(path: Path) -> dict[str, Any] | None:
    """Return what that file says; None where it is gone, half-written, or somebody else's."""
    try:
        content: Any = json.loads(path.read_text()) if path.is_file() else None
        forms = FORMS[path.name == JOB]
        return {name: form(content[name]) for name, form in forms.items()}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
