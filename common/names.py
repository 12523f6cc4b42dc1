"""When two names are the same: after NFC, and without blanks at their ends."""

from __future__ import annotations

import unicodedata


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
