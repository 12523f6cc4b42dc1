"""Check that the machines of a job share its folders.

Machines without a shared folder would each write into a folder of their own, from which nothing is
collected. So a probe file is left in the output folder, and each machine reports whether it sees
that file and the inputs with the same content, and can write beside the probe. Packages that
results depend on must have the same version everywhere.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..counts import counted
from ..errors import InputError, explain_write_errors
from ..extras import installed_versions
from ..files import WRITING
from .ray_session import ask_machines

PROBE = f"{WRITING}probe-"  # start of the probe file's name
HEAD = 1 << 16  # bytes of an input that are compared, besides its size
Marks = Sequence[tuple[str, str, str]]  # for each file: name in messages, path, content


def check_machines(
    ray: Any,
    folder: Path | None,
    inputs: Sequence[tuple[str, str]],
    *,
    packages: Sequence[str] = (),
    otherwise: str = "",
) -> None:
    """Raise `InputError` if a machine of Ray cannot do a job.

    Parameters
    ----------
    folder, inputs
        As in `probe_files`.
    packages
        Packages that must have the same versions as here.
    otherwise
        What else the user can do if folders cannot be shared, worded as a repair.
    """
    with probe_files(folder, inputs) as marks:
        unfit = ask_machines(ray, look, marks, installed_versions(packages))
    if unfit:
        machine, reason = next(iter(unfit.items()))
        raise InputError(
            f"--ray-address: {counted(len(unfit), 'machine')} cannot work, first {machine}: "
            f"{reason}, expected the same folders and versions on each; mount and install the same "
            f"on each{otherwise}"
        )


def working_folder(folder: str) -> list[tuple[str, str]]:
    """Return the input of a job whose units `work_in` a folder; none for ""."""
    return [(f"the working folder {folder}, which paths start from,", folder)] if folder else []


def work_in(folder: str) -> None:
    """Make a worker process resolve relative paths from a folder; "" changes nothing.

    Raises
    ------
    InputError
        This machine, which joined after `check_machines`, does not see the folder.
    """
    try:
        if folder:
            os.chdir(folder)
    except OSError as problem:
        raise InputError(
            f"{folder}: is not seen on a machine of Ray ({problem.strerror}), expected the "
            "working folder, which paths start from; run the command in a folder that all share"
        ) from None


@contextmanager
def probe_files(folder: Path | None, inputs: Sequence[tuple[str, str]]) -> Iterator[Marks]:
    """Leave a probe file in `folder` within the context; yield what `look` compares elsewhere.

    Parameters
    ----------
    folder
        Folder that the machines write to; None if only this process writes.
    inputs
        Name in messages, and path, of each file or folder that the job reads; missing ones are
        skipped.
    """
    files = [(what, path) for what, path in inputs if os.path.exists(path)]
    if folder is None:
        yield [(what, path, _content(path)) for what, path in files]
        return
    probe = folder / f"{PROBE}{uuid.uuid4().hex}"
    with explain_write_errors(folder):
        probe.write_text(uuid.uuid4().hex)
    try:
        files.insert(0, (str(folder), str(probe)))
        yield [(what, path, _content(path)) for what, path in files]
    finally:
        probe.unlink(missing_ok=True)


def look(marks: Marks, versions: Mapping[str, str] | None = None) -> str:
    """Return what this machine lacks, or "".

    Parameters
    ----------
    marks
        From `probe_files`: what it must see; if the first is a probe, it must write beside it.
    versions
        Required versions of packages.
    """
    for name, version in installed_versions(list(versions or {})).items():
        if versions and version != versions[name]:
            return f"{name} is {version} there and {versions[name]} here"
    for what, path, content in marks:
        try:
            seen = _content(path)
        except OSError as problem:
            return f"{what} is not seen there ({problem.strerror})"
        if seen != content:
            return f"{what} has other files there"
    what, path, _ = marks[0] if marks else ("", "", "")
    if not os.path.basename(path).startswith(PROBE):
        return ""
    mine = Path(f"{path}-{uuid.uuid4().hex}")
    try:
        mine.write_bytes(b"")
        mine.unlink()
    except OSError as problem:
        return f"{what} cannot be written there ({problem.strerror})"
    return ""


def _content(path: str) -> str:
    """Return the size of a file and the SHA-256 of its first bytes; raises `OSError`.

    The content of a folder is not compared.
    """
    if os.path.isdir(path):
        return "folder"
    with open(path, "rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
        return f"{os.fstat(file.fileno()).st_size} {head}"
