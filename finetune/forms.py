"""Settings that are numbers, or texts of a form of their own; each reader raises `ValueError`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def whole(value: Any) -> int:
    """Return a whole number in decimal digits, or raise `ValueError`."""
    if not WHOLE.fullmatch(str(value)):
        raise ValueError(value)
    return int(value)


def number(value: Any) -> float:
    """Return a finite number in decimal digits, or raise `ValueError`."""
    if not NUMBER.fullmatch(str(value)) or math.isinf(float(value)):
        raise ValueError(value)
    return float(value)


def unfreeze_steps(text: str) -> list[tuple[int, int]]:
    """Return (epoch, layers that stay frozen from then on) of a text such as ``3:4,6:0``.

    Raises
    ------
    ValueError
        Not of that form, an epoch below 1 or not after the one before, or layers that don't fall.

    Examples
    --------
    >>> unfreeze_steps("3:4,6:0")
    [(3, 4), (6, 0)]
    """
    if not text:
        return []
    pairs = [part.strip().split(":") for part in text.split(",")]
    steps = [(whole(epoch), whole(layers)) for epoch, layers in pairs]
    rising = all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(steps))
    if not rising or steps[0][0] < 1 or steps[-1][1] < 0:
        raise ValueError(text)
    return steps


def numbers(text: str, least: float = -math.inf, most: float = math.inf) -> tuple[float, ...]:
    """Return the numbers of a text such as ``0.9,1.1``, all from `least` to `most`.

    Raises
    ------
    ValueError
        Not of that form, or out of range.
    """
    found = tuple(number(part.strip()) for part in text.split(","))
    if not all(least <= value <= most for value in found):
        raise ValueError(text)
    return found


def among(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` for any number of numbers from `least` to `most`."""
    return lambda text: numbers(text, least, most)


def span(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` for two numbers from `least` to `most`, the lower one first."""

    def parse(text: str) -> object:
        low, high = numbers(text, least, most)
        if low > high:
            raise ValueError(text)
        return low, high

    return parse


def channel_form(text: str) -> None:
    """Raise `ValueError` where extraction would refuse the channel."""
    from ..common.audio import check_channel

    check_channel(text)


def shard_form(text: str) -> None:
    """Raise `ValueError` where extraction would refuse the shard."""
    from ..extract.batches import take_shard

    take_shard([], text)


def state_form(text: str) -> None:
    """Raise `ValueError` for what is not ``last``, ``mix`` or a number of digits."""
    if text not in ("last", "mix") and not (text.isascii() and text.isdigit()):
        raise ValueError(text)


def all_form(text: str) -> None:
    """Raise `ValueError` for any text but ``all``."""
    if text != "all":
        raise ValueError(text)
