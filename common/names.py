"""When two names are the same: after NFC, and without blanks at their ends. And what is no name."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

PLACEHOLDER = re.compile(r"<\s*(na|n/a|nan|none|null|unk|unknown)\s*>", re.IGNORECASE)


def normal_name(text: str) -> str:
    r"""Return the form in which names of sessions, speakers, persons and files are compared.

    A Mac decomposes the names of files, and a form filled by hand ends in a blank; both look like
    the name that they are taken for.

    Examples
    --------
    >>> normal_name(" Bu\u0308ro ") == "B\u00fcro"
    True
    """
    return unicodedata.normalize("NFC", text).strip()


def normal_names(names: Any) -> Any:
    r"""Return names that a model's file holds as `normal_name` has them; else what is there.

    Files from before names were normalised on reading hold other forms of those of a table.

    >>> normal_names(["Bu\u0308ro"]) == ["B\u00fcro"], normal_names([1])
    (True, [1])
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return names
    return [normal_name(name) for name in names]


def is_placeholder(name: str) -> bool:
    """Return whether a name only says that there is none; ``NA`` alone may be somebody's.

    >>> is_placeholder("<NA>"), is_placeholder("NA")
    (True, False)
    """
    return PLACEHOLDER.fullmatch(name) is not None


def changed_names(names: Iterable[str]) -> str:
    """Return how many of `names` were not in their normal form, and which became one, or nothing.

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
    """Return a name of at most `longest` bytes (>= 40): itself, or its ends around a hash of it.

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
