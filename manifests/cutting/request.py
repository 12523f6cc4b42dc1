"""``cut.json``: the request that a folder of cut segments was made from.

It says which recording, time span, channel and format each file comes from. A later request may add
files, but may not redefine an existing one.
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


def record_request(out: Path, request: dict[str, dict[str, Any]]) -> None:
    """Merge `request` (a dict of `PARTS`) into the one recorded in `out`.

    Raises
    ------
    InputError
        It contradicts the recorded request, or `out` has such files but no recorded request.
    """
    path = out / REQUEST
    recorded = _read(path) if path.exists() else _nothing(out, request["segments"])
    for part in PARTS:
        old, new = recorded[part], request[part]
        differ = [key for key in new if key in old and old[key] != new[key]]
        if differ:
            key = differ[0]
            raise InputError(
                f"{path}: {len(differ)} of the {part} differ, first {key!r}: made with "
                f"{old[key]!r}, asked for {new[key]!r}; name another folder"
            )
    union = {part: {**recorded[part], **request[part]} for part in PARTS}
    atomic_write(path, json.dumps(union, ensure_ascii=False, indent=0).encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        recorded = json.loads(path.read_bytes())
        return {part: dict(recorded[part]) for part in PARTS}
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem!r}), expected what cut wrote; name another folder"
        ) from None


def _nothing(out: Path, segments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    strange = [name for name in segments if (out / name).exists()]
    if strange:
        raise InputError(
            f"{out}: {len(strange)} of the segment files exist, first {strange[0]!r}, but no "
            f"{REQUEST} that says how they were cut; name another folder"
        )
    return {part: {} for part in PARTS}
