"""The one exception for what a user can repair."""

from __future__ import annotations


class InputError(ValueError):
    """What the user can repair: `WHERE: WHAT is FOUND, expected EXPECTED; REPAIR`."""
