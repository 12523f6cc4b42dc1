"""`InputError`, the exception for everything a user can repair, and helpers that raise it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .counts import counted


class InputError(ValueError):
    """An error the user can repair: `WHERE: WHAT is FOUND, expected EXPECTED; REPAIR`.

    `notes` are the (kind, place, message) notes collected before the error, to be listed in a file.
    """

    notes: Sequence[tuple[str, str, str]] = ()


@contextmanager
def explain_write_errors(path: str | Path, needed: int = 0) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into an `InputError` that says why.

    `needed` is the size of the file in bytes, if known.
    """
    try:
        yield
    except OSError as problem:
        room = f"room for {counted(needed, 'byte')}" if needed else "room"
        raise InputError(
            f"{path}: cannot be written ({problem.strerror or problem}), expected a folder with "
            f"{room} and leave to write; name another place"
        ) from problem


def check_choice(where: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(
            f"{where}: {value!r} is given, expected one of {', '.join(choices)}; correct it"
        )
