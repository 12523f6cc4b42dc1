"""The three tables' schemas that live on disk, and the one reader and writer of each.

Segment table: one row per segment, columns `SEGMENT_COLUMNS` (needed) and `OPTIONAL_COLUMNS`
(kept where present). Predictions table: one row per scored segment, `PREDICTION_COLUMNS` and
`PREDICTION_OPTIONAL`. Other columns are refused, so that a misspelt one is never ignored.
Both are CSV or Parquet, by suffix. Rows are joined by ``segment_id`` alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import InputError
from ..common.files import write_whole

if TYPE_CHECKING:  # pandas takes a second to import, and `--help` needs only InputError
    import pandas as pd

SPLITS = ("train", "valid", "test")
LATEST = 1e7  # s, 116 days: no recording is longer, and every sample has its own number up to there
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f]")  # control characters; some steer a terminal

SEGMENT_COLUMNS = {
    "segment_id": "str",  # unique; from recording, speaker, start and end as annotated
    "audio": "str",  # file, relative to the audio root, or absolute
    "start": "float64",  # s, from the start of the audio file
    "end": "float64",  # s
    "speaker": "str",  # the label; unique within its scope
    "session": "str",  # the meeting
}
OPTIONAL_COLUMNS = {
    "channel": "str",  # 0-based index of the recording's channel, or empty: as --channel says
    "line": "int64",  # 0-based line of the annotation file; the reference's NNNN
    "overlap": "float64",  # 0..1, share in which somebody else speaks too
    "split": "str",  # one of SPLITS, or empty: purged, belongs to none
}
PREDICTION_COLUMNS = {
    "segment_id": "str",
    "session": "str",
    "speaker": "str",  # the truth
    "predicted": "str",
    "score": "float64",  # 0..1, calibrated probability of `predicted`
    "split": "str",
    "model": "str",
}
PREDICTION_OPTIONAL = {
    "scores": "str",  # JSON object {speaker: calibrated probability}, all candidates
}


def segment_id(session: str, speaker: str, start: float, end: float) -> str:
    """Return the identity of a turn, made from its content (times in seconds, to 0.1 ms).

    >>> segment_id("20200709_L_R002S03C01", "001-M", 35.8939, 37.419)
    '20200709_L_R002S03C01_001-M_0035.8939_0037.4190'
    """
    return f"{session}_{speaker}_{start:09.4f}_{end:09.4f}"


def sample_span(start: float, end: float, rate: int) -> tuple[int, int]:
    """Return first and stop sample of a segment: the only place where seconds become samples.

    Both times (s) are rounded, half up, on the grid of `rate` (Hz), so that a segment never
    depends on where its neighbour ends.

    >>> first, stop = sample_span(35.8939, 35.8939 + 1.5251, 16000)
    >>> first, stop, stop - first
    (574302, 598704, 24402)
    """
    return math.floor(start * rate + 0.5), math.floor(end * rate + 0.5)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read and check a segment table.

    Returns
    -------
    DataFrame
        Columns as in `SEGMENT_COLUMNS` and `OPTIONAL_COLUMNS`, rows in file order.

    Raises
    ------
    InputError
        The file cannot be read, or `check_table` refuses it.
    """
    return check_table(_read(path, {**SEGMENT_COLUMNS, **OPTIONAL_COLUMNS}), where=str(path))


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Check a segment table and write it whole or not at all; read it back with `read_table`."""
    _write(check_table(table, where=str(path)), path)


def check_table(table: pd.DataFrame, where: str = "table") -> pd.DataFrame:
    """Return `table` with the schema's dtypes, or raise `InputError` with the first offender."""
    table = _typed(table, SEGMENT_COLUMNS, OPTIONAL_COLUMNS, where)
    ids = table["segment_id"]
    _refuse(where, ids[ids.duplicated()], "segment_id", "given before", "unique ids")
    for column in ("segment_id", "audio", "speaker", "session"):
        _refuse(where, table[column][table[column] == ""], column, "empty", "text")
    for column in ("start", "end"):
        wrong = table[column][~table[column].map(math.isfinite)]
        _refuse(where, wrong, column, "not a finite number", "seconds")
        late = table[column][table[column] > LATEST]
        _refuse(where, late, column, "too late", f"at most {LATEST:g} s")
    if "line" in table:
        _refuse(where, table["line"][table["line"] < 0], "line", "below 0", "0 or more")
    early = table["start"][(table["start"] < 0) | (table["start"] >= table["end"])]
    _refuse(where, early, "start", "below 0 or not before its end", "0 <= start < end")
    if "overlap" in table:
        wrong = table["overlap"][~table["overlap"].between(0, 1)]
        _refuse(where, wrong, "overlap", "out of range", "0..1")
    if "split" in table:
        wrong = table["split"][~table["split"].isin([*SPLITS, ""])]
        _refuse(where, wrong, "split", "unknown", "train, valid, test or nothing (purged)")
    return table


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read and check a predictions table (columns: `PREDICTION_COLUMNS`, `PREDICTION_OPTIONAL`)."""
    return check_predictions(_read(path, {**PREDICTION_COLUMNS, **PREDICTION_OPTIONAL}), str(path))


def write_predictions(predictions: pd.DataFrame, path: str | Path) -> None:
    """Check a predictions table and write it whole or not at all."""
    _write(check_predictions(predictions, str(path)), path)


def check_predictions(predictions: pd.DataFrame, where: str = "predictions") -> pd.DataFrame:
    """Return `predictions` with the schema's dtypes, or raise `InputError`."""
    predictions = _typed(predictions, PREDICTION_COLUMNS, PREDICTION_OPTIONAL, where)
    ids = predictions["segment_id"] + " of " + predictions["model"]
    _refuse(where, ids[ids.duplicated()], "segment_id", "given before", "one row per model")
    wrong = predictions["score"][~predictions["score"].between(0, 1)]
    _refuse(where, wrong, "score", "out of range", "0..1")
    return predictions


def _read(path: str | Path, columns: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    path = Path(path)
    if _suffix(path) == ".parquet":
        reader = pd.read_parquet
        options: dict[str, object] = {}
    else:
        reader = pd.read_csv
        text = {name: "str" for name, dtype in columns.items() if dtype == "str"}
        options = {"dtype": text, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        return reader(path, **options)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with spk-manifests") from None
    except Exception as problem:  # pandas and pyarrow raise a dozen kinds for a damaged file
        reason = " ".join(str(problem).split())  # some reasons have several lines
        raise InputError(f"{path}: cannot be read ({reason}); write it again") from problem


def _write(table: pd.DataFrame, path: str | Path) -> None:
    path = Path(path)
    if _suffix(path) == ".parquet":
        write_whole(path, table.to_parquet(index=False))
    else:
        write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: suffix is {suffix!r}, expected .csv or .parquet; rename it")
    return suffix


def _typed(
    table: pd.DataFrame, needed: Mapping[str, str], optional: Mapping[str, str], where: str
) -> pd.DataFrame:
    found = list(table.columns)
    missing = [name for name in needed if name not in found]
    if missing:
        maker = "spk-manifests rttm, textgrid or csv"
        if found == ["path", "label"]:
            maker = "spk-manifests csv"
        elif "predicted" in needed:
            maker = "spk-classify predict"
        raise InputError(
            f"{where}: columns {missing} are missing, found {found}; make the table with {maker}"
        )
    unknown = [name for name in found if name not in needed and name not in optional]
    if unknown:
        raise InputError(
            f"{where}: columns {unknown} are unknown, expected {[*needed, *optional]}; "
            "remove or rename them"
        )
    schema = {**needed, **optional}
    table = table.copy()
    for name in found:
        try:
            table[name] = _cast(table[name], schema[name])
        except (TypeError, ValueError, OverflowError) as problem:
            raise InputError(
                f"{where}: column {name!r} holds what is not {schema[name]} ({problem}); correct it"
            ) from None
    table = table[[name for name in schema if name in found]].reset_index(drop=True)
    for name in (name for name in table if schema[name] == "str"):
        if UNSEEN.search("".join(table[name])):
            wrong = table[name][table[name].map(lambda text: UNSEEN.search(text) is not None)]
            _refuse(where, wrong, name, "text with a control character", "plain text")
    return table


def _cast(column: pd.Series, dtype: str) -> pd.Series:
    """Return the column as `dtype`; raise `ValueError` where that would lose something."""
    if dtype == "str" and column.isna().any():
        raise ValueError(f"row {int(column.isna().to_numpy().argmax()) + 1} is missing")
    cast = column.astype(dtype)
    if dtype == "int64" and (cast != column.astype("float64")).any():
        raise ValueError("not all are whole")
    return cast


def _refuse(where: str, wrong: pd.Series, column: str, found: str, expected: str) -> None:
    if len(wrong):
        first = wrong.iloc[0]
        shown = repr(first) if isinstance(first, str) else f"{first:g}"
        raise InputError(
            f"{where}: {column} of {len(wrong)} rows is {found}, first {shown} "
            f"in row {int(wrong.index[0]) + 1}, expected {expected}; correct the table"
        )
