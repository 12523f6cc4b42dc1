"""Whether a machine sees the folders of a job: files to look for, and a look from over there.

Machines that share no folder would write into folders of their own name, which nobody collects. So
a file is left in the folder to write to, and each machine is asked whether it sees that file, and
the inputs, with the same content, and whether it can write beside it. Packages that results depend
on must have one version everywhere.
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

PROBE = f"{WRITING}probe-"  # how the name of the file to look for begins
HEAD = 1 << 16  # bytes of an input that are compared, beside its size
Marks = Sequence[tuple[str, str, str]]  # of each file: what it stands for, its path, its content


def check_machines(
    ray: Any,
    folder: Path | None,
    inputs: Sequence[tuple[str, str]],
    *,
    packages: Sequence[str] = (),
    otherwise: str = "",
) -> None:
    """Raise `InputError` where a machine of Ray cannot do a job.

    Parameters
    ----------
    folder, inputs
        As in `probe_files`.
    packages
        Those that must have the versions that they have here.
    otherwise
        What remains where folders cannot be shared, in the words of a repair.
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
    """Have relative paths start from a folder, in a process that does units; "" changes nothing.

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
    """Leave a file in `folder` while open; yield what `look` compares on another machine.

    Parameters
    ----------
    folder
        Where the machines write; None where only this process does.
    inputs
        What it is called in messages, and the path, of each file or folder that the job reads;
        those that are not there are passed over.
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
    """Return what this machine lacks, or nothing.

    Parameters
    ----------
    marks
        From `probe_files`: what it has to see, and to write beside the first where that is a probe.
    versions
        Those that packages must have.
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

    Of a folder nothing is compared.
    """
    if os.path.isdir(path):
        return "folder"
    with open(path, "rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
        return f"{os.fstat(file.fileno()).st_size} {head}"
