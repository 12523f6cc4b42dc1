"""Read and write UEM: the spans of each recording to score, ``session channel start end``.

Fields may be separated by any blanks; comments (``;;``, or dscore's ``;``), empty lines and any
channel are accepted; spans keep their order and are not merged. Output lines are sorted by session
and start, with channel 1 and three to six decimal places.

Programs differ on a session that a UEM does not list: md-eval scores it completely, pyannote's
protocols leave it out. Here it is absent from the result, and the caller decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ..table import MAX_SECONDS
from ..text_files.decoding import read_text
from ..text_files.kinds import check_kind
from .turns import check_name, find_files, parse_float, relative_name
from .writing import check_equal_names, decimal_seconds, underscored

Spans = dict[str, list[tuple[float, float]]]


def read_uem(path: str | Path) -> Spans:
    """Read one UEM file, or all ``*.uem`` below a folder.

    Returns
    -------
    dict
        Session -> (start, end) of each span, in seconds and in the order of the lines.

    Raises
    ------
    InputError
        A file is of another kind, or a line is bad (file and line number).
    """
    spans: Spans = {}
    for file in find_files(path, (".uem",)):
        name = relative_name(path, file)
        text = read_text(file)
        rows = [(line, row.split()) for line, row in enumerate(text.split("\n"))]
        rows = [(line, row) for line, row in rows if row and not row[0].startswith(";")]
        if rows and len(rows[0][1]) != 4:
            check_kind(text, file, name, "a UEM")
        for line, row in rows:
            session, span = _parse(row, f"{name}, line {line + 1}")
            spans.setdefault(session, []).append(span)
    return spans


def _parse(row: list[str], place: str) -> tuple[str, tuple[float, float]]:
    if len(row) != 4:
        raise InputError(
            f"{place}: has {counted(len(row), 'field')}, expected session, channel, start and "
            "end; delete or correct the line"
        )
    start, end = (parse_float(row[k], what=w, place=place) for k, w in ((2, "start"), (3, "end")))
    _check_span(start, end, place)
    return check_name(row[0], what="session", place=place), (start, end)


def _check_span(start: float, end: float, place: str) -> None:
    if not 0 <= start < end <= MAX_SECONDS:
        raise InputError(
            f"{place}: span is {start:g} to {end:g} s, expected 0 <= start < end <= "
            f"{MAX_SECONDS:g}; correct it"
        )


def write_uem(spans: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> None:
    """Write the spans of each session as one UEM; blanks in sessions' names become ``_``.

    Parameters
    ----------
    spans
        Session -> (start, end) of each span, in seconds.

    Raises
    ------
    InputError
        A span is empty or out of range, two names would become one, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_uem({"S 2": [(0, 1.5)], "A": [(3, 4.25)]}, Path(folder, "a.uem"))
    ...     print(Path(folder, "a.uem").read_text())
    A 1 3.000 4.250
    S_2 1 0.000 1.500
    <BLANKLINE>
    """
    check_equal_names(spans, "sessions", "UEM")
    rows = []
    for session, own in spans.items():
        name = underscored(check_name(session, what="session", place=str(path)))
        for start, end in own:
            _check_span(start, end, f"{path}: {session}")
            rows.append((name, start, end))
    lines = [f"{n} 1 {decimal_seconds(s)} {decimal_seconds(e)}\n" for n, s, e in sorted(rows)]
    atomic_write(path, "".join(lines).encode())
