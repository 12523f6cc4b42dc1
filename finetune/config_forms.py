"""Forms of settings that are text: one function each checks what a setting may be.

It raises `ValueError` for any other text; the setting's field has the expected form in words.
"""

from __future__ import annotations

from itertools import pairwise

from ..common.options import parse_int


def unfreeze_steps(text: str) -> list[tuple[int, int]]:
    """Return (epoch, layers that stay frozen from then on) from a text such as ``3:4,6:0``.

    Raises
    ------
    ValueError
        The text has another form, an epoch is below 1 or not after the previous one, or the
        number of layers does not fall.

    Examples
    --------
    >>> unfreeze_steps("3:4,6:0")
    [(3, 4), (6, 0)]
    """
    if not text:
        return []
    pairs = [part.strip().split(":") for part in text.split(",")]
    steps = [(parse_int(epoch), parse_int(layers)) for epoch, layers in pairs]
    rising = all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(steps))
    if not rising or steps[0][0] < 1 or steps[-1][1] < 0:
        raise ValueError(text)
    return steps


def shard_form(text: str) -> None:
    """Raise `ValueError` if extraction would refuse the shard."""
    from ..extract.pipeline.batching import take_part

    take_part([], text)


def check_layer_choice(text: str) -> None:
    """Raise `ValueError` unless the text is ``last``, ``mix`` or a number."""
    if text not in ("last", "mix") and not (text.isascii() and text.isdigit()):
        raise ValueError(text)


def all_form(text: str) -> None:
    """Raise `ValueError` for any text but ``all``."""
    if text != "all":
        raise ValueError(text)
