"""The one exception for what a user can repair."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """What the user can repair: `WHERE: WHAT is FOUND, expected EXPECTED; REPAIR`.

    `notes` are what was noted until then, (kind, place, message) each, to be listed in a file.
    """

    notes: Sequence[tuple[str, str, str]] = ()
