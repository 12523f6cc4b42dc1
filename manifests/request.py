"""What a folder of cut segments was asked for: ``cut.json``, and who may write there.

The request says for every file from which recording, span, channel and format it comes. A later
request may add files; it may not give another meaning to one that is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.errors import InputError
from ..common.files import write_whole, writing

REQUEST = "cut.json"
# {option: value}, {audio: [bytes, CRC-32 of parts]}, {name: [audio, first, stop]}
PARTS = ("settings", "recordings", "segments")


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold the folder `out` for this process; the lock goes with it, however it ends.

    Raises
    ------
    InputError
        Another process holds it, or it cannot be written.
    """
    import fcntl

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        # A folder from elsewhere may hold a link of this name to a file of the user's.
        number = os.open(out / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        handle = os.fdopen(number, "w")  # only opening may tell of the folder
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{out}: another process is writing here, expected one at a time; wait for it or "
                "name another folder"
            ) from None
        yield


def agree(out: Path, asked: dict[str, dict[str, Any]]) -> None:
    """Record what is `asked` (`PARTS`), added to what `out` holds already.

    Raises
    ------
    InputError
        It contradicts what `out` holds, or `out` holds such files and does not say what they are.
    """
    path = out / REQUEST
    held = _read(path) if path.exists() else _nothing(out, asked["segments"])
    for part in PARTS:
        old, new = held[part], asked[part]
        differ = [key for key in new if key in old and old[key] != new[key]]
        if differ:
            key = differ[0]
            raise InputError(
                f"{path}: {len(differ)} of the {part} differ, first {key!r}: made with "
                f"{old[key]!r}, asked for {new[key]!r}; name another folder"
            )
    union = {part: {**held[part], **asked[part]} for part in PARTS}
    write_whole(path, json.dumps(union, ensure_ascii=False, indent=0).encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        held = json.loads(path.read_bytes())
        return {part: dict(held[part]) for part in PARTS}
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem!r}), expected what cut wrote; name another folder"
        ) from None


def _nothing(out: Path, segments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    strange = [name for name in segments if (out / name).exists()]
    if strange:
        raise InputError(
            f"{out}: {len(strange)} of the segment files are there, first {strange[0]!r}, but no "
            f"{REQUEST} that tells how they were cut; name another folder"
        )
    return {part: {} for part in PARTS}
