"""Whether a machine sees the folders of a job: files to look for, and a look from over there.

Machines that share no folder would write into folders of their own name, which nobody collects. So
a file is left in the folder to write to, and each machine is asked whether it sees that file, and
the inputs, with the same content, and whether it can write beside it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import explain_write_errors
from ..files import WRITING

HEAD = 1 << 16  # bytes of an input that are compared, beside its size
Marks = Sequence[tuple[str, str, str]]  # of each file: what it stands for, its path, its content


@contextmanager
def probe_files(folder: Path, inputs: Sequence[tuple[str, str]]) -> Iterator[Marks]:
    """Leave a file in `folder` while open; yield what `look` compares on another machine.

    Parameters
    ----------
    folder
        Where the job writes.
    inputs
        What it is called in messages, and the path, of each file that the job reads; those that
        are not there are passed over.
    """
    probe = folder / f"{WRITING}probe-{uuid.uuid4().hex}"
    with explain_write_errors(folder):
        probe.write_text(uuid.uuid4().hex)
    there = [(what, path) for what, path in inputs if os.path.isfile(path)]
    try:
        # in this order: the first is the one that `look` writes beside
        files = [(str(folder.parent), str(probe)), *there]
        yield [(what, path, _content(path)) for what, path in files]
    finally:
        probe.unlink(missing_ok=True)


def look(marks: Marks) -> str:
    """Return what this machine does not see of `probe_files`, or cannot write to, or nothing."""
    for what, path, content in marks:
        try:
            seen = _content(path)
        except OSError as problem:
            return f"{what} is not seen there ({problem.strerror})"
        if seen != content:
            return f"{what} has other files there"
    what, path, _ = marks[0]
    mine = Path(f"{path}-{uuid.uuid4().hex}")
    try:
        mine.write_bytes(b"")
        mine.unlink()
    except OSError as problem:
        return f"{what} cannot be written there ({problem.strerror})"
    return ""


def _content(path: str) -> str:
    """Return the size of a file and the SHA-256 of its first bytes; raises `OSError`."""
    with open(path, "rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
        return f"{os.fstat(file.fileno()).st_size} {head}"
