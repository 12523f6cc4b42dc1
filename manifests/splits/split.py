"""Split a table into train, valid and test by a named method, and record how it was done.

`chronological` (default), `blocked-k`, `leave-one-session-out`, `enrol` and `roll-call` purge
segments that would leak; `random` is the thesis project's method and leaks.
`manifests/splits/methods.py` documents each method and its parameters. Every segment gets train,
valid, test, or '' (purged).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pandas as pd

from ...common.errors import InputError
from ..split_record import KEY
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
) -> pd.DataFrame:
    """Divide a table into train, valid and test, and record how in ``attrs["split"]``.

    Parameters
    ----------
    table
        Segment table; an existing column `split` is replaced.
    method
        "chronological", "blocked-k", "leave-one-session-out", "enrol", "roll-call", or "random",
        which leaks.
    parameters
        The keyword arguments of that method's function in `manifests/splits/methods.py`, such as
        `test_share`, `valid_share` (0..1) and `gap` (s).

    Returns
    -------
    DataFrame
        The rows in the order given, with the column `split`: train, valid, test, or empty (purged).
        Its ``attrs["split"]`` is {"method", "parameters", "counts" (per split, and purged),
        "purged" (by reason), "leaky", "untrained" (speakers with test but no training segments),
        "untested" (speakers without test segments)}; `write_table` writes it beside the table.

    Raises
    ------
    InputError
        The method or a parameter is unknown or out of range, or the table does not allow it.

    Examples
    --------
    >>> times = range(0, 40, 4)
    >>> table = pd.DataFrame({"segment_id": [f"s{t}" for t in times], "audio": "a.wav"})
    >>> table = table.assign(start=times, end=[t + 2.0 for t in times], speaker="A", session="S")
    >>> divided = split_table(table, test_share=0.3, gap=1.0)
    >>> " ".join(divided["split"])
    'train train train train train train valid test test test'
    >>> divided.attrs["split"]["method"], divided.attrs["split"]["counts"]["test"]
    ('chronological', 3)
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
    table.attrs[KEY] = record | _left_out(table)
    return table


def _settings(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the method's parameters with its defaults filled in."""
    declared = list(inspect.signature(METHODS[method]).parameters.values())[1:]
    names = [parameter.name for parameter in declared]
    for name in parameters:
        if name not in names:
            raise InputError(
                f"{name}: is not a parameter of {method}, expected some of {', '.join(names)}; "
                "leave it out"
            )
    settings = {p.name: parameters.get(p.name, p.default) for p in declared}
    for name, value in settings.items():
        if value is inspect.Parameter.empty:
            raise InputError(f"{name}: is not given, expected it for {method}; add it")
    return settings


def _left_out(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the speakers that are tested but not trained, and those that are not tested."""
    speakers = {name: set(table["speaker"][table["split"] == name]) for name in SPLITS}
    return {
        "untrained": sorted(speakers["test"] - speakers["train"]),
        "untested": sorted(set(table["speaker"]) - speakers["test"]),
    }
