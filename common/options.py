"""Declare and validate settings.

A setting is declared once, as the field of a frozen dataclass (`option_field`). The Python
argument, the command's option (`click_options`), the key of the YAML file and the line in the docs
all follow from that.

A value comes from a YAML file (as text, true, false, null, or a list of texts), from the command
line or from Python, and is converted to the type of its field or raises `InputError`. Conversion is
strict: numbers are decimal, booleans must be booleans, and text is never truncated.
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
        `text` is not of that form, or a number is out of range.
    """
    values = tuple(parse_float(part.strip()) for part in text.split(","))
    if not all(least <= value <= most for value in values):
        raise ValueError(text)
    return values


def number_list(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` function for one or more numbers from `least` to `most`."""
    return lambda text: numbers(text, least, most)


def number_range(least: float, most: float) -> Callable[[str], object]:
    """Return a `parse` function for two numbers from `least` to `most`, the lower first."""

    def parse(text: str) -> object:
        low, high = numbers(text, least, most)
        if low > high:
            raise ValueError(text)
        return low, high

    return parse


UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # not allowed in names
CORRECT = "correct it"
LONGEST_SHOWN = 60  # characters of a wrong value in a message


DEFAULT_SEED = 0  # of every command
AUDIO_ROOT = "Folder that the table's relative paths start from."
LARGEST_SEED = 2**32 - 1  # the largest that scikit-learn accepts
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
    """Return the dataclass field of a setting.

    Parameters
    ----------
    help
        Help text, one line.
    result
        Whether the value may change the results.
    aliases
        Former names, still accepted as keys of files and as options.
    limits
        Validation: `choices` (texts); `also` (text -> the choice it stands for); `least`, `most`,
        `over`, `under` (bounds of a number, the last two exclusive); `name` (true: a session's
        name, which is normalised); `parse`, which raises `ValueError` for malformed text, with
        `expected`, the form in words; `repair`, instead of "correct it"; `native`, which converts
        Python values to text as typed (`joined`, `yes_or_no`). Display: `unit`, `group` (heading in
        the help), `metavar`, `default_text` (the default in words), `short` (short options), `path`
        (true: an input file or folder), `hidden` (true: accepted but not shown).
    """
    metadata = {"help": help, "choices": (), "result": result, "aliases": tuple(aliases)}
    return field(default=default, metadata={**metadata, "native": _same, **SHOWN, **limits})


def seed_field(help: str, *, optional: bool = False, group: str = "") -> Any:  # noqa: A002
    """Return the field of a seed; if `optional`, None stands for the same default."""
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
    """Return a list of names or numbers as typed on the command line: ``4,8``.

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
    """Return ``yes`` or ``no`` for a boolean, and any other value unchanged."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class CheckedOptions:
    """Base class of frozen dataclasses of settings; validates on creation (`validate_fields`)."""

    def __post_init__(self) -> None:
        for name, value in validate_fields(type(self), vars(self)).items():
            object.__setattr__(self, name, value)


def parse_channel(text: str) -> str:
    """Return a channel, an index from 0 or ``mean``; raise `ValueError` otherwise."""
    if text != "mean" and not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return text if text == "mean" else str(int(text))


def validate_fields(
    kind: type, values: Mapping[str, Any], where: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the value of every field of a dataclass, converted to the field's type.

    Parameters
    ----------
    kind
        The dataclass, with fields made by `option_field`.
    values
        Values of some or all fields. The others have their default, as have fields given None,
        unless None is a valid value (no limit, no folder).
    where
        The file that each field comes from, for those from a file.

    Raises
    ------
    InputError
        A value has the wrong type, range or form.
    """
    hints = get_type_hints(kind)
    fit = {}
    for setting in fields(kind):
        value = values.get(setting.name, setting.default)
        if value is None and NoneType not in get_args(hints[setting.name]):
            value = setting.default  # null in YAML: not set
        try:
            fit[setting.name] = _fit(value, hints[setting.name], setting)
        except ValueError:
            expected = _expected(hints[setting.name], setting)
            repair = setting.metadata.get("repair", CORRECT)
            raise option_error(setting.name, value, expected, repair=repair, where=where) from None
    return fit


def option_error(
    name: str,
    value: Any,
    expected: str,
    *,
    repair: str = CORRECT,
    where: Mapping[str, str] | None = None,
) -> InputError:
    """Return the error for a setting's wrong value, in its file or as an option."""
    if where and name in where:
        return InputError(
            f"{where[name]}: {name} is {shorten(value)}, expected {expected}; {repair}"
        )
    option = name.replace("_", "-")
    return InputError(f"--{option}: value is {shorten(value)}, expected {expected}; {repair}")


def _fit(value: Any, hint: Any, setting: Field[Any]) -> Any:
    if hint == tuple[str, ...]:
        return _names(value)
    kinds = get_args(hint) or (hint,)
    value = setting.metadata["native"](value)
    free_text = str in kinds and not setting.metadata["choices"]
    nothing = (None, "") if free_text else (None, "", "none")
    if NoneType in kinds and value in nothing:
        return None
    typed = _typed(value, kinds)
    if isinstance(typed, str):
        return _text(typed, setting)
    if not isinstance(typed, bool):
        _bounded(typed, setting.metadata)
    return typed


def _typed(value: Any, kinds: Sequence[type]) -> Any:
    if bool in kinds and str in kinds and value in ("true", "false"):
        value = value == "true"  # as text from an option that may also be a path
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


def _text(value: str, setting: Field[Any]) -> str:
    value = setting.metadata.get("also", {}).get(value, value)
    choices = setting.metadata["choices"]
    if UNWRITABLE.search(value) or (choices and value not in choices):
        raise ValueError(value)
    if not value and setting.default != "":
        raise ValueError(value)
    setting.metadata.get("parse", str)(value)
    return normal_name(value) if setting.metadata.get("name") else value


def _bounded(value: float, limits: Mapping[str, Any]) -> None:
    low = limits.get("least", -math.inf) <= value and limits.get("over", -math.inf) < value
    high = value <= limits.get("most", math.inf) and value < limits.get("under", math.inf)
    if not (low and high):
        raise ValueError(value)


def _names(value: Any) -> tuple[str, ...]:
    """Return the names of a list or of a comma-separated text; repetitions are not allowed."""
    if value in (None, ""):
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(name, str) for name in parts):
        raise ValueError(value)
    names = tuple(normal_name(name) for name in parts)
    if not all(names) or len({*names}) < len(names) or UNWRITABLE.search("".join(names)):
        raise ValueError(value)
    return names


def _expected(hint: Any, setting: Field[Any]) -> str:
    limits = setting.metadata
    if "expected" in limits:
        return str(limits["expected"])
    if limits["choices"]:
        return f"one of {list(limits['choices'])}"
    if hint == tuple[str, ...]:
        return "a list of names, each once"
    kinds = get_args(hint) or (hint,)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    text = next(word for kind, word in words.items() if kind in kinds) + _range(limits)
    return f"{text}, or none" if NoneType in kinds else text


def _range(limits: Mapping[str, Any]) -> str:
    words = {"least": " from {}", "over": " above {}", "most": " up to {}", "under": ", below {}"}
    return "".join(word.format(limits[name]) for name, word in words.items() if name in limits)


def shorten(value: Any) -> str:
    """Return a wrong value for a message, shortened."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
