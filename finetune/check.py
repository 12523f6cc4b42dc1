"""What settings may be, alone and beside each other, and how a wrong one is told.

A setting comes from a YAML file (as text, or true, false, null, a list of texts), from the command
line or from Python. Each is brought to the type of its field, or refused; nothing is guessed: a
number is written in decimal digits, a truth value is one already, and text is never cut short.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, field, fields
from os import PathLike, fspath
from types import NoneType
from typing import Any, get_args, get_type_hints

from ..common.errors import InputError
from ..common.names import normal_name
from .forms import WHOLE, number, unfreeze_steps, whole

UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # no name of a file or a speaker needs them
CORRECT = "correct it"
MODES = {"val_acc": "max", "val_loss": "min"}  # what is monitored -> which is better
LONGEST_SHOWN = 60  # characters of a wrong value


def setting(default: Any, help: str, *, result: bool = True, **limits: Any) -> Any:  # noqa: A002
    """Return a dataclass field of a setting.

    Parameters
    ----------
    help
        One line for people.
    result
        Whether another value may change what comes out.
    limits
        `choices` (texts); `also` (text -> the choice it stands for); `least`, `most`, `over`,
        `under` (bounds of a number, the last two excluded); `name` (true: it is a session's, and
        compared as names are); `parse`, which raises `ValueError` for
        a text of another form, with `expected`, which tells that form.
    """
    metadata = {"help": help, "choices": (), "result": result, **limits}
    return field(default=default, metadata=metadata)


def checked(
    kind: type, values: Mapping[str, Any], where: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the value of every field of a dataclass in the field's type.

    Parameters
    ----------
    kind
        The dataclass, of fields made by `setting`.
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
            told = _expected(hints[known.name], known)
            raise refusal(known.name, value, told, where=where) from None
    return fit


def agreed(fit: Mapping[str, Any], where: Mapping[str, str]) -> None:
    """Raise `InputError` where settings, each in range, contradict each other."""
    for name, expected, repair in _contradictions(fit):
        raise refusal(name, fit[name], expected, repair=repair, where=where)


def _contradictions(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, what is expected of it, the repair)."""
    if fit["checkpoint_save_top_k"] == 0:
        yield "checkpoint_save_top_k", "a whole number from 1, or -1 for all", CORRECT
    mode = MODES[fit["checkpoint_monitor"]]
    if fit["checkpoint_mode"] != mode:
        yield "checkpoint_mode", f"{mode} for {fit['checkpoint_monitor']}", CORRECT
    yield from _never_open(fit)
    for name, chance in (("noise_dir", "noise_prob"), ("reverb_dir", "reverb_prob")):
        if fit[name] is not None and not fit[chance]:
            told = f"none beside {chance} 0, with which nothing is taken from it"
            yield name, told, f"leave it out, or set {chance}"


def _never_open(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what would be asked to train and never does."""
    frozen, last = fit["freeze_encoder_layers"], fit["max_epochs"] - 1
    if not fit["freeze_feature_extractor"] and frozen != 0:
        told = (
            f"true beside freeze_encoder_layers {frozen}, since what lies below frozen layers "
            "would train through them"
        )
        yield "freeze_feature_extractor", told, "set freeze_encoder_layers to 0"
    steps = unfreeze_steps(fit["unfreeze"])
    if steps and frozen != "all" and steps[0][1] >= frozen:
        yield "unfreeze", f"fewer layers than freeze_encoder_layers, {frozen}", CORRECT
    if steps and steps[-1][0] > last:
        told = f"epochs up to {last}, the last (from 0) of max_epochs {last + 1}"
        yield "unfreeze", told, "leave out the later steps"


def refusal(
    name: str,
    value: Any,
    expected: str,
    *,
    repair: str = CORRECT,
    where: Mapping[str, str] | None = None,
) -> InputError:
    """Return the error that tells a setting's wrong value, in its file or as an option."""
    if where and name in where:
        return InputError(f"{where[name]}: {name} is {shown(value)}, expected {expected}; {repair}")
    option = name.replace("_", "-")
    return InputError(f"--{option}: value is {shown(value)}, expected {expected}; {repair}")


def _fit(value: Any, hint: Any, known: Field[Any]) -> Any:
    if hint == tuple[str, ...]:
        return _names(value)
    kinds = get_args(hint) or (hint,)
    nothing = (None, "") if str in kinds else (None, "", "none")
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
        return whole(value)
    if float in kinds:
        return number(value)
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


def shown(value: Any) -> str:
    """Return a wrong value as a message tells it, never long."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
