"""Python's own types where a command has text: ``layers=[4, 8]`` for ``--layers 4,8``.

A dataclass of settings declares the type that the command's option has. Its `__post_init__` calls
`take_native`, so that a list, a number, a truth value or a path given from Python becomes the text
that would have been typed, and everything after it sees one form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from os import PathLike, fspath
from types import NoneType
from typing import Any, get_args, get_type_hints


def as_text(value: Any) -> Any:
    """Return a value as an option's text, or as it is where it has no such form.

    Examples
    --------
    >>> as_text([4, 8]), as_text(["ridge", "lda"]), as_text(True), as_text(0), as_text(range(3))
    ('4,8', 'ridge,lda', 'yes', '0', '0,1,2')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):  # an array, or a column of a table
        value = value.tolist()
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, Mapping)):
        return ",".join(str(as_text(part)) for part in value)
    return value


def take_native(settings: Any) -> None:
    """Replace what a frozen dataclass was given in Python's own types by text, where it has text.

    A field is text where its type is `str`, with or without None; a list of names
    (``tuple[str, ...]``) and a field of several types keep what they were given.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        kinds = {*(get_args(hint) or (hint,))} - {NoneType}
        if kinds == {str} and value is not None and not isinstance(value, str):
            object.__setattr__(settings, field.name, as_text(value))
