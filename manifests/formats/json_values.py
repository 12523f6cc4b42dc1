"""Read JSON and JSON lines, optionally gzipped, and check the values that turns are made from.

Numbers that JSON does not allow (NaN, Infinity) are refused, and so are files that are nested too
deeply or unpack to more than `LARGEST` bytes.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ...common.errors import InputError
from ..text_files.decoding import decode
from ..text_files.kinds import NEMO
from .turns import NUMBER

GZIP = b"\x1f\x8b"
LARGEST = 2**30  # bytes of an unpacked file
AGAIN = "write the file again"


def read_json_text(path: Path) -> str:
    """Return the text of a JSON or JSON lines file, unpacked if it is gzipped.

    Raises
    ------
    InputError
        The file cannot be read, is damaged, or is not text.
    """
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            with gzip.open(path) as file:
                data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(f"{path}: cannot be read ({reason}); {AGAIN}") from None
    if len(data) > LARGEST:
        raise InputError(f"{path}: unpacks to more than {LARGEST} bytes, expected less; split it")
    return decode(data, path)


def parse_json(text: str, place: str) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    InputError
        It is not JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        reason = str(problem) if isinstance(problem, ValueError) else "nested too deeply"
        raise InputError(f"{place}: is not JSON ({reason[:80]}); {AGAIN}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def check_not_nemo(text: str, name: str, expected: str) -> None:
    """Raise `InputError` if an unusable text begins like a NeMo manifest."""
    if re.match(NEMO, text):
        raise InputError(
            f"{name}: is a NeMo manifest, expected {expected}; run spk-manifests nemo on it"
        )


def parse_json_lines(text: str, name: str) -> list[tuple[int, Any]]:
    """Return (0-based line, value) of each line that is not blank, or the items of a JSON list."""
    if text.lstrip().startswith("["):
        items = parse_json(text, name)
        return list(enumerate(items))
    return [
        (line, parse_json(row, f"{name}, line {line + 1}"))
        for line, row in enumerate(text.split("\n"))
        if row.strip()
    ]


def number(row: Mapping[str, Any], key: str, place: str) -> float:
    """Return a finite number from an object, even if written as text, or raise `InputError`."""
    value = row.get(key)
    is_text = isinstance(value, str) and NUMBER.fullmatch(value.strip())
    if is_text or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        seconds = _float(value)
        if math.isfinite(seconds):
            return seconds + 0.0  # -0 is 0
    shown = "missing" if key not in row else repr(value)[:40]
    raise InputError(f"{place}: {key} is {shown}, expected a finite number; correct it")


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def text(row: Mapping[str, Any], key: str, place: str) -> str:
    """Return a text from an object, "" if there is none, or raise `InputError`."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a speaker given as a number
    if not isinstance(value, str):
        raise InputError(f"{place}: {key} is {repr(value)[:40]}, expected text; correct it")
    return value
