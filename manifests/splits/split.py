"""Divide a table into train, valid and test by a named method, and record how it was done.

`chronological` (default), `blocked-k`, `leave-one-session-out`, `enrol` and `roll-call` purge what
would leak; `random` is the reference project's and leaks (`manifests/splits/methods.py` says how
each works and what its parameters mean). Every segment gets train, valid, test, or '' (purged).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ...common.errors import InputError
from ...common.files import atomic_write
from ..table import SPLITS
from . import methods

METHODS: dict[str, Callable[..., methods.Assigned]] = {
    "chronological": methods.chronological,
    "blocked-k": methods.blocked,
    "leave-one-session-out": methods.leave_one_session_out,
    "enrol": methods.enrolment_seconds,
    "roll-call": methods.roll_call,
    "random": methods.random,
}


def split_table(
    table: pd.DataFrame, method: str = "chronological", **parameters: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table with a new column `split`, and a record of how it was made.

    Parameters
    ----------
    table
        Segment table; a column `split` it has is replaced.
    method
        One of `METHODS`.
    parameters
        The keyword arguments of that method's function in `manifests/splits/methods.py`.

    Returns
    -------
    tuple
        The table in the order given, and {"method", "parameters", "counts" (per split, and
        purged), "purged" (by reason), "leaky", "untrained" (speakers with test but no training
        segments), "untested" (speakers without test segments)}.

    Raises
    ------
    InputError
        The method or a parameter is unknown or out of range, or the table does not allow it.
    """
    if method not in METHODS:
        raise InputError(f"method: is {method!r}, expected one of {', '.join(METHODS)}; correct it")
    settings = _settings(method, parameters)
    if not len(table):
        raise InputError("table: holds 0 segments, expected at least 1; drop fewer of them")
    table = table.reset_index(drop=True)
    splits, purged = METHODS[method](table, **settings)
    table = table.assign(split=splits)
    counts = {name: int((splits == name).sum()) for name in SPLITS}
    record = {
        "method": method,
        "parameters": settings,
        "counts": {**counts, "purged": int((splits == "").sum())},
        "purged": purged,
        "leaky": method == "random",
    }
    return table, record | _left_out(table)


def _settings(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the method's parameters with its defaults filled in."""
    known = list(inspect.signature(METHODS[method]).parameters.values())[1:]
    names = [parameter.name for parameter in known]
    for name in parameters:
        if name not in names:
            raise InputError(
                f"{name}: is no parameter of {method}, expected some of {', '.join(names)}; "
                "leave it out"
            )
    settings = {p.name: parameters.get(p.name, p.default) for p in known}
    for name, value in settings.items():
        if value is inspect.Parameter.empty:
            raise InputError(f"{name}: is not given, expected it for {method}; add it")
    return settings


def _left_out(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return which speakers cannot be recognised for want of training, and which are not tested."""
    speakers = {name: set(table["speaker"][table["split"] == name]) for name in SPLITS}
    return {
        "untrained": sorted(speakers["test"] - speakers["train"]),
        "untested": sorted(set(table["speaker"]) - speakers["test"]),
    }


def write_record(record: dict[str, Any], table_path: str | Path) -> None:
    """Write how a table was split beside it, as ``TABLE.split.json``."""
    atomic_write(_record_path(table_path), json.dumps(record, indent=1).encode())


def read_record(table_path: str | Path) -> dict[str, Any] | None:
    """Return how a table was split, or None where nobody wrote it down.

    Raises
    ------
    InputError
        The record is damaged.
    """
    path = _record_path(table_path)
    if not path.exists():
        return None
    try:
        return _checked(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        raise InputError(f"{path}: cannot be read ({problem}); run spk-manifests split") from None


def _checked(record: Any) -> dict[str, Any]:
    """Return a record of the form that `split_table` gives, or raise `ValueError`."""
    forms = {"method": str, "parameters": dict, "counts": dict, "purged": dict, "leaky": bool}
    forms |= {"untrained": list, "untested": list}
    wrong = [k for k, kind in forms.items() if not isinstance(dict(record).get(k), kind)]
    counts = [] if wrong else [*record["counts"].values(), *record["purged"].values()]
    if wrong or not all(type(count) is int for count in counts):
        raise ValueError(f"{', '.join(wrong) or 'counts'} missing or of another type")
    return dict(record)


def drop_record(table_path: str | Path) -> None:
    """Remove the record of a table that was there before, which says nothing of the new one."""
    _record_path(table_path).unlink(missing_ok=True)


def keep_record(record: dict[str, Any] | None, new_table: str | Path) -> None:
    """Give a table made of another one's rows its record; without one, leave none behind."""
    if record is None:
        drop_record(new_table)
    else:
        write_record(record, new_table)


def summarise(record: dict[str, Any]) -> str:
    """Return one line: the method, the counts, what was purged why, and who cannot be tested."""
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items())
    reasons = ", ".join(f"{count} {why}" for why, count in record["purged"].items() if count)
    told = f"{record['method']}{' (leaky)' if record['leaky'] else ''}: {counts}"
    told += f" ({reasons})" if reasons else ""
    for name in ("untrained", "untested"):
        if record[name]:
            told += f"; {len(record[name])} speakers {name}"
    return told


def _record_path(table_path: str | Path) -> Path:
    return Path(f"{table_path}.split.json")
