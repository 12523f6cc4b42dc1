"""Name normalisation (NFC, surrounding blanks stripped) and placeholder names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

PLACEHOLDER = re.compile(r"<\s*(na|n/a|nan|none|null|unk|unknown)\s*>", re.IGNORECASE)


def normal_name(text: str) -> str:
    r"""Normalise a name of a session, speaker, person or file for comparison.

    macOS decomposes accents in file names, and hand-typed cells often end in a blank; neither
    difference is visible.

    Examples
    --------
    >>> normal_name(" Bu\u0308ro ") == "B\u00fcro"
    True
    """
    return unicodedata.normalize("NFC", text).strip()


def normal_names(names: Any) -> Any:
    r"""Normalise a list of names read from a model file; return anything else unchanged.

    Older versions did not normalise names on reading, so their files may hold other forms than
    the table does.

    >>> normal_names(["Bu\u0308ro"]) == ["B\u00fcro"], normal_names([1])
    (True, [1])
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return names
    return [normal_name(name) for name in names]


def is_placeholder(name: str) -> bool:
    """Return whether a name is a placeholder such as ``<NA>``; a bare ``NA`` may be a real name.

    >>> is_placeholder("<NA>"), is_placeholder("NA")
    (True, False)
    """
    return PLACEHOLDER.fullmatch(name) is not None


def changed_names(names: Iterable[str]) -> str:
    """Describe how normalisation changed `names`: how many, and how many became equal; "" if none.

    >>> changed_names(["A", "A ", "B"])
    "1 name is read in NFC without blanks at its ends, first 'A ' as 'A', which makes 1 of 3 equal"
    """
    distinct = set(names)
    changed = sorted(name for name in distinct if normal_name(name) != name)
    if not changed:
        return ""
    first, normal = ascii(changed[0]), ascii(normal_name(changed[0]))
    are, their = ("name is", "its") if len(changed) == 1 else ("names are", "their")
    message = f"{len(changed)} {are} read in NFC without blanks at {their} ends, first {first} "
    message += f"as {normal}"
    equal = len(distinct) - len({normal_name(name) for name in distinct})
    return message + (f", which makes {equal} of {len(distinct)} equal" if equal else "")


def shortened(name: str, longest: int) -> str:
    """Shorten a name to at most `longest` bytes (>= 40), replacing its middle by a hash.

    >>> shortened("S1_001-M", 40), shortened("x" * 50, 40)
    ('S1_001-M', 'xxxxxxxxxxxxxxxxxx~77cf1206~xxxxxxxxxxxx')
    """
    data = name.encode()
    if len(data) <= longest:
        return name
    room = longest - 10
    head = data[: room * 6 // 10].decode(errors="ignore")
    tail = data[len(data) - room * 4 // 10 :].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(data).hexdigest()[:8]}~{tail}"
