"""What a folder of cut segments was asked for: ``cut.json``.

The request says for every file from which recording, span, channel and format it comes. A later
request may add files; it may not give another meaning to one that is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.errors import InputError
from ...common.files import atomic_write

REQUEST = "cut.json"
# {option: value}, {audio: [bytes, CRC-32 of parts]}, {name: [audio, first, stop]}
PARTS = ("settings", "recordings", "segments")


def record_request(out: Path, asked: dict[str, dict[str, Any]]) -> None:
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
    atomic_write(path, json.dumps(union, ensure_ascii=False, indent=0).encode())


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
