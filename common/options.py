"""Settings: what each is, what it may be, and how a wrong one is refused.

A setting is declared once, as the field of a frozen dataclass (`option_field`). From that come the
Python argument, the command's option (`click_options`), the key of the YAML file and its line in
the docs.

A setting comes from a YAML file (as text, or true, false, null, a list of texts), from the command
line or from Python. Each is brought to the type of its field, or refused; nothing is guessed: a
number is written in decimal digits, a truth value is one already, and text is never cut short.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields
from os import PathLike, fspath
from types import NoneType
from typing import Any, get_args, get_type_hints

from .errors import InputError
from .names import normal_name

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def parse_int(value: Any) -> int:
    """Return a whole number in decimal digits, or raise `ValueError`."""
    if not WHOLE.fullmatch(str(value)):
        raise ValueError(value)
    return int(value)


def parse_float(value: Any) -> float:
    """Return a finite number in decimal digits, or raise `ValueError`."""
    if not NUMBER.fullmatch(str(value)) or math.isinf(float(value)):
        raise ValueError(value)
    return float(value)


def numbers(text: str, least: float = -math.inf, most: float = math.inf) -> tuple[float, ...]:
    """Return the numbers of a text such as ``0.9,1.1``, all from `least` to `most`.

    Raises
    ------
    ValueError
        Not of that form, or out of range.
    """
    found = tuple(parse_float(part.strip()) for part in text.split(","))
    if not all(least <= value <= most for value in found):
        raise ValueError(text)
    return found


def number_list(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` for any number of numbers from `least` to `most`."""
    return lambda text: numbers(text, least, most)


def number_range(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` for two numbers from `least` to `most`, the lower one first."""

    def parse(text: str) -> object:
        low, high = numbers(text, least, most)
        if low > high:
            raise ValueError(text)
        return low, high

    return parse


UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # no name of a file or a speaker needs them
CORRECT = "correct it"
LONGEST_SHOWN = 60  # characters of a wrong value


DEFAULT_SEED = 0  # of every command
AUDIO_ROOT = "Folder that the table's relative paths start from."
LARGEST_SEED = 2**32 - 1  # what scikit-learn takes
SHOWN: dict[str, Any] = {
    "unit": "",
    "group": "",
    "metavar": "",
    "default_text": "",
    "short": (),
    "path": False,
    "hidden": False,
}


def option_field(
    default: Any,
    help: str,  # noqa: A002
    *,
    result: bool = True,
    aliases: Sequence[str] = (),
    **limits: Any,
) -> Any:
    """Return a dataclass field of a setting.

    Parameters
    ----------
    help
        One line for people.
    result
        Whether another value may change what comes out.
    aliases
        Names of before: keys that a file may still have, options that may still be typed.
    limits
        `choices` (texts); `also` (text -> the choice it stands for); `least`, `most`, `over`,
        `under` (bounds of a number, the last two excluded); `name` (true: it is a session's, and
        compared as names are); `parse`, which raises `ValueError` for
        a text of another form, with `expected`, which tells that form; `repair`, which takes the
        place of "correct it"; `native`, which turns what
        is natural in Python into what is typed (`joined`, `yes_or_no`). And what people are shown:
        `unit`, `group` (heading in the help), `metavar`, `default_text` (the default in words),
        `short` (short options), `path` (true: a file or folder that is read), `hidden` (true: an
        option of before, which is taken and not shown).
    """
    metadata = {"help": help, "choices": (), "result": result, "aliases": tuple(aliases)}
    return field(default=default, metadata={**metadata, "native": _same, **SHOWN, **limits})


def seed_field(help: str, *, optional: bool = False, group: str = "") -> Any:  # noqa: A002
    """Return the field of a seed; where it is `optional`, None stands for the same default."""
    return option_field(
        None if optional else DEFAULT_SEED,
        help,
        least=0,
        most=LARGEST_SEED,
        group=group,
        default_text=str(DEFAULT_SEED),
    )


def _same(value: Any) -> Any:
    return value


def joined(value: Any) -> Any:
    """Return a list of names or numbers as it is typed, ``4,8``; a single number likewise.

    Examples
    --------
    >>> joined([4, 8]), joined(4), joined("0-12")
    ('4,8', '4', '0-12')
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # an array or a column
    if isinstance(value, (list, tuple, range)):
        return ",".join(map(str, value))
    return value if value is None or isinstance(value, bool) else str(value)


def yes_or_no(value: Any) -> Any:
    """Return true or false as it is typed, ``yes`` or ``no``; another value as it is."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class CheckedOptions:
    """Base of a frozen dataclass of settings, each checked when it is made (`validate_fields`)."""

    def __post_init__(self) -> None:
        for name, value in validate_fields(type(self), vars(self)).items():
            object.__setattr__(self, name, value)


def parse_channel(text: str) -> str:
    """Return a channel, an index from 0 or ``mean``, or raise `ValueError`."""
    if text != "mean" and not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return text if text == "mean" else str(int(text))


def validate_fields(
    kind: type, values: Mapping[str, Any], where: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the value of every field of a dataclass in the field's type.

    Parameters
    ----------
    kind
        The dataclass, of fields made by `option_field`.
    values
        Of some fields or all; the others keep their default, and so does one whose value is None,
        unless None is a value of its own (no limit, no folder).
    where
        Of fields that a file gave, its name.

    Raises
    ------
    InputError
        A value is of another type, out of range or of another form.
    """
    hints = get_type_hints(kind)
    fit = {}
    for known in fields(kind):
        value = values.get(known.name, known.default)
        if value is None and NoneType not in get_args(hints[known.name]):
            value = known.default  # null, which is "not set"
        try:
            fit[known.name] = _fit(value, hints[known.name], known)
        except ValueError:
            told, repair = (
                _expected(hints[known.name], known),
                known.metadata.get("repair", CORRECT),
            )
            raise option_error(known.name, value, told, repair=repair, where=where) from None
    return fit


def option_error(
    name: str,
    value: Any,
    expected: str,
    *,
    repair: str = CORRECT,
    where: Mapping[str, str] | None = None,
) -> InputError:
    """Return the error that tells a setting's wrong value, in its file or as an option."""
    if where and name in where:
        return InputError(
            f"{where[name]}: {name} is {shorten(value)}, expected {expected}; {repair}"
        )
    option = name.replace("_", "-")
    return InputError(f"--{option}: value is {shorten(value)}, expected {expected}; {repair}")


def _fit(value: Any, hint: Any, known: Field[Any]) -> Any:
    if hint == tuple[str, ...]:
        return _names(value)
    kinds = get_args(hint) or (hint,)
    value = known.metadata["native"](value)
    free_text = str in kinds and not known.metadata["choices"]
    nothing = (None, "") if free_text else (None, "", "none")
    if NoneType in kinds and value in nothing:
        return None
    found = _typed(value, kinds)
    if isinstance(found, str):
        return _text(found, known)
    if not isinstance(found, bool):
        _bounded(found, known.metadata)
    return found


def _typed(value: Any, kinds: Sequence[type]) -> Any:
    if bool in kinds and str in kinds and value in ("true", "false"):
        value = value == "true"  # a command's option that may also be a path gives text
    if isinstance(value, bool):
        if bool not in kinds:
            raise ValueError(value)
        return value
    if int in kinds and (str not in kinds or WHOLE.fullmatch(str(value))):
        return parse_int(value)
    if float in kinds:
        return parse_float(value)
    if str in kinds and isinstance(value, (str, PathLike)):
        return fspath(value)
    raise ValueError(value)


def _text(value: str, known: Field[Any]) -> str:
    value = known.metadata.get("also", {}).get(value, value)
    choices = known.metadata["choices"]
    if UNWRITABLE.search(value) or (choices and value not in choices):
        raise ValueError(value)
    if not value and known.default != "":
        raise ValueError(value)
    known.metadata.get("parse", str)(value)
    return normal_name(value) if known.metadata.get("name") else value


def _bounded(value: float, limits: Mapping[str, Any]) -> None:
    low = limits.get("least", -math.inf) <= value and limits.get("over", -math.inf) < value
    high = value <= limits.get("most", math.inf) and value < limits.get("under", math.inf)
    if not (low and high):
        raise ValueError(value)


def _names(value: Any) -> tuple[str, ...]:
    """Return the names of a list, or of a text with commas, each once."""
    if value in (None, ""):
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(name, str) for name in parts):
        raise ValueError(value)
    names = tuple(normal_name(name) for name in parts)
    if not all(names) or len({*names}) < len(names) or UNWRITABLE.search("".join(names)):
        raise ValueError(value)
    return names


def _expected(hint: Any, known: Field[Any]) -> str:
    limits = known.metadata
    if "expected" in limits:
        return str(limits["expected"])
    if limits["choices"]:
        return f"one of {list(limits['choices'])}"
    if hint == tuple[str, ...]:
        return "a list of names, each once"
    kinds = get_args(hint) or (hint,)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    told = next(word for kind, word in words.items() if kind in kinds) + _range(limits)
    return f"{told}, or none" if NoneType in kinds else told


def _range(limits: Mapping[str, Any]) -> str:
    words = {"least": " from {}", "over": " above {}", "most": " up to {}", "under": ", below {}"}
    return "".join(word.format(limits[name]) for name, word in words.items() if name in limits)


def shorten(value: Any) -> str:
    """Return a wrong value as a message tells it, never long."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
