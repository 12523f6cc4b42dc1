"""The one exception for what a user can repair, and how the system's errors become it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """What the user can repair: `WHERE: WHAT is FOUND, expected EXPECTED; REPAIR`.

    `notes` are what was noted until then, (kind, place, message) each, to be listed in a file.
    """

    notes: Sequence[tuple[str, str, str]] = ()


@contextmanager
def explain_write_errors(path: str | Path, needed: int = 0) -> Iterator[None]:
    """Tell as `InputError` why `path` cannot be written: no leave, no room, a file for a folder.

    `needed` is its size in bytes, where that is known.
    """
    try:
        yield
    except OSError as problem:
        room = f"room for {needed} bytes" if needed else "room"
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
