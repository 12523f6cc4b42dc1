"""The schemas of the tables on disk, each with its one reader and writer.

Segment table: one row per segment, columns `SEGMENT_COLUMNS` (required) and `OPTIONAL_COLUMNS`
(kept if present). Predictions table: one row per scored segment, `PREDICTION_COLUMNS` and
`PREDICTION_OPTIONAL`. Other columns are kept unchanged; names that look misspelt are reported on
stderr. Both are CSV or Parquet, by suffix. Rows are joined by ``segment_id`` alone.

Names of sessions and speakers are normalised (`common/names.py`) whenever a table is checked, so
that "A " and "A" are the same speaker everywhere; reading a table reports this.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.counts import counted
from ..common.errors import InputError
from ..common.files import atomic_write
from ..common.log import is_quiet
from ..common.names import changed_names, is_placeholder, normal_name
from .split_record import keep_record, read_record_into, record_of
from .text_files.delimited import Sheet, decimal_points, expected_names, misspelt, read_delimited
from .text_files.kinds import kind_of
from .text_files.table_path import TABLE_MAKER, input_suffix, table_suffix

if TYPE_CHECKING:
    import pandas as pd


SPLITS = ("train", "valid", "test")
MAX_SECONDS = 1e7  # s, 116 days: no recording is longer; up to there each sample has a number
ID = re.compile(r"(.+)_\d{4,}\.\d{4}_\d{4,}\.\d{4}(?:_ch\d+)?")  # `segment_id`
CHANNEL = re.compile(r"0*(\d{1,4})(?:\.0+)?")  # a spreadsheet turns 1 into 1.0
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f]")  # control characters; some steer a terminal

SEGMENT_COLUMNS = {
    "segment_id": "str",  # unique; from recording, speaker, start and end as annotated
    "audio": "str",  # file, relative to the audio root, or absolute
    "start": "float64",  # s, from the start of the audio file
    "end": "float64",  # s
    "speaker": "str",  # the label; unique within its scope
    "session": "str",  # the meeting
}
OPTIONAL_COLUMNS = {
    "channel": "str",  # 0-based index of the recording's channel; empty: the run's --channel
    "line": "int64",  # 0-based line of the annotation file; the reference's NNNN
    "overlap": "float64",  # 0..1, share of the time in which somebody else speaks too
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
PREDICTION_OPTIONAL = {  # tables of older versions have neither times nor `best`
    "start": "float64",  # s, the segment's, from the start of its audio file
    "end": "float64",  # s
    "best": "str",  # the most probable speaker, even if `predicted` is `UNKNOWN_SPEAKER`
    "scores": "str",  # JSON object {speaker: calibrated probability}, all candidates
}
PREDICTIONS_MAKER = "spk-classify predict"
UNKNOWN_SPEAKER = "unknown"  # predicted if nobody is probable enough


def segment_id(session: str, speaker: str, start: float, end: float, channel: str = "") -> str:
    """Return the id of a turn, made from its content (times in seconds, to 0.1 ms).

    >>> segment_id("20200709_L_R002S03C01", "001-M", 35.8939, 37.419)
    '20200709_L_R002S03C01_001-M_0035.8939_0037.4190'
    >>> segment_id("S1", "A", 1.0, 2.5, "1")
    'S1_A_0001.0000_0002.5000_ch1'
    """
    of_channel = f"_ch{channel}" if channel else ""
    return f"{session}_{speaker}_{start:09.4f}_{end:09.4f}{of_channel}"


def id_names(identity: str) -> str:
    """Return ``{session}_{speaker}`` of a `segment_id`; "" for ids of another form.

    >>> id_names("S1_A_0001.0000_0002.5000_ch1"), id_names("utt7")
    ('S1_A', '')
    """
    match = ID.fullmatch(identity)
    return match[1] if match else ""


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
        Columns as in `SEGMENT_COLUMNS` and `OPTIONAL_COLUMNS`, rows in file order; the record of
        its split, if there is one beside the file, in ``attrs["split"]``.

    Raises
    ------
    InputError
        The file cannot be read, or `check_table` refuses it.
    """
    sheet = _read(path, {**SEGMENT_COLUMNS, **OPTIONAL_COLUMNS}, TABLE_MAKER)
    table = check_table(_with_points(sheet), where=str(path))
    _tell(sheet, table, ("session", "speaker"), path)
    read_record_into(table, path)
    return table


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a segment table as ``.csv`` or ``.parquet``, and its split's record beside it.

    Raises
    ------
    InputError
        `check_table` refuses it, or it cannot be written.
    """
    record = record_of(table)
    _write(check_table(table, where=str(path)), path)
    keep_record(record, path)


def as_table(table: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Return a checked segment table, given one or its file."""
    return read_table(table) if isinstance(table, (str, Path)) else check_table(table)


def check_table(table: pd.DataFrame, where: str = "table") -> pd.DataFrame:
    """Return `table` with the schema's dtypes and normalised names, or raise `InputError`.

    Columns of the schema come first, in its order; then all others, unchanged.
    """
    table = _typed(table, SEGMENT_COLUMNS, OPTIONAL_COLUMNS, where)
    table = _with_normal_names(table, ("session", "speaker"))
    ids = table["segment_id"]
    _check_none(where, ids[ids.duplicated()], "segment_id", "given before", "unique ids")
    for column in ("segment_id", "audio", "speaker", "session"):
        _check_none(where, table[column][table[column] == ""], column, "empty", "text")
    for column in ("speaker", "session"):
        wrong = table[column][table[column].isin([*filter(is_placeholder, table[column].unique())])]
        _check_none(where, wrong, column, "a placeholder", "a name")
    for column in ("start", "end"):
        wrong = table[column][~table[column].map(math.isfinite)]
        _check_none(where, wrong, column, "not a finite number", "seconds")
        late = table[column][table[column] > MAX_SECONDS]
        _check_none(where, late, column, "too late", f"at most {MAX_SECONDS:g} s")
    if "line" in table:
        _check_none(where, table["line"][table["line"] < 0], "line", "below 0", "0 or more")
    early = table["start"][(table["start"] < 0) | (table["start"] >= table["end"])]
    _check_none(where, early, "start", "below 0 or not before its end", "0 <= start < end")
    if "overlap" in table:
        wrong = table["overlap"][~table["overlap"].between(0, 1)]
        _check_none(where, wrong, "overlap", "out of range", "0..1")
    if "channel" in table:
        wrong = table["channel"][~table["channel"].str.fullmatch(r"\d{0,4}")]
        _check_none(
            where, wrong, "channel", "no channel", "an index from 0, or nothing (--channel)"
        )
    if "split" in table:
        wrong = table["split"][~table["split"].isin([*SPLITS, ""])]
        _check_none(where, wrong, "split", "unknown", "train, valid, test or nothing (purged)")
    return table


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read and check a predictions table (columns: `PREDICTION_COLUMNS`, `PREDICTION_OPTIONAL`)."""
    sheet = _read(path, {**PREDICTION_COLUMNS, **PREDICTION_OPTIONAL}, PREDICTIONS_MAKER)
    predictions = check_predictions(_with_points(sheet), str(path))
    _tell(sheet, predictions, ("session", "speaker", "predicted"), path)
    return predictions


def write_predictions(predictions: pd.DataFrame, path: str | Path) -> None:
    """Check a predictions table and write it atomically."""
    _write(check_predictions(predictions, str(path)), path)


def check_predictions(predictions: pd.DataFrame, where: str = "predictions") -> pd.DataFrame:
    """Return `predictions` with the schema's dtypes, or raise `InputError`."""
    if {"best", "predicted"} <= set(predictions):  # rows of a table without `best` may lack it
        best = predictions["best"].replace("", None)
        predictions = predictions.assign(best=best.fillna(predictions["predicted"]))
    raw = _typed(predictions, PREDICTION_COLUMNS, PREDICTION_OPTIONAL, where)
    names = [name for name in ("session", "speaker", "predicted", "best") if name in raw]
    predictions = _with_normal_names(raw, names)
    if "scores" in predictions and _has_other_names(raw, predictions):
        predictions["scores"] = predictions["scores"].map(_normal_scores)
    ids = predictions["segment_id"] + " of " + predictions["model"]
    _check_none(where, ids[ids.duplicated()], "segment_id", "given before", "one row per model")
    wrong = predictions["score"][~predictions["score"].between(0, 1)]
    _check_none(where, wrong, "score", "out of range", "0..1")
    if {"start", "end"} <= set(predictions):
        wrong = predictions["start"][~(predictions["start"] < predictions["end"])]
        _check_none(where, wrong, "start", "not before its end", "start < end")
    return predictions


def _read(path: str | Path, columns: Mapping[str, str], maker: str) -> Sheet:
    import pandas as pd

    path = Path(path)
    if input_suffix(path) == ".csv":
        return read_delimited(path, columns, f"make it with {maker}")
    try:
        rows = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with {maker}") from None
    except Exception as problem:  # pandas and pyarrow raise a dozen kinds for a damaged file
        reason = " ".join(str(problem).split())  # some reasons have several lines
        raise InputError(f"{path}: cannot be read ({reason}); write it again") from problem
    names, notes = expected_names(list(rows.columns), list(columns), path)
    return Sheet(rows.set_axis(names, axis=1), ",", notes)


def _with_points(sheet: Sheet) -> pd.DataFrame:
    """Return a file's rows, with decimal commas replaced if its separator allows them."""
    numbers = [name for name in ("start", "end", "overlap", "score") if name in sheet.rows]
    return decimal_points(sheet, numbers)


def _tell(sheet: Sheet, table: pd.DataFrame, names: Sequence[str], path: str | Path) -> None:
    """Report on stderr which of a file's values were not read literally."""
    notes = list(sheet.notes)
    for name in names:
        message = changed_names(sheet.rows[name].astype("str").unique())
        notes += [f"{path}: {name}: {message}"] if message else []
    if "split" in table and (other := (table["split"] != sheet.rows["split"].astype("str")).sum()):
        split = f"split of {counted(other, 'row')} is read"
        notes.append(f"{path}: {split} in lower case and without blanks")
    for note in [] if is_quiet() else notes:
        print(note, file=sys.stderr)


def _with_normal_names(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return `table` with the names in `columns` normalised."""
    for column in columns:
        normal = {name: normal_name(name) for name in table[column].unique()}
        if any(name != new for name, new in normal.items()):
            table = table.assign(**{column: table[column].map(normal)})
    return table


def _has_other_names(raw: pd.DataFrame, predictions: pd.DataFrame) -> bool:
    """Return whether names were changed, so that those in `scores` must be changed too."""
    return not all(raw[name].equals(predictions[name]) for name in ("speaker", "predicted"))


def _normal_scores(text: str) -> str:
    """Return a JSON object {speaker: probability} with normalised names; other text unchanged."""
    try:
        scores = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(scores, dict) or len({normal_name(name) for name in scores}) < len(scores):
        return text
    return json.dumps({normal_name(name): score for name, score in scores.items()})


def _write(table: pd.DataFrame, path: str | Path) -> None:
    path, table = Path(path), table.copy(deep=False)
    table.attrs = {}  # otherwise a Parquet file would keep a copy that nobody checks
    if table_suffix(path) == ".parquet":
        atomic_write(path, table.to_parquet(index=False))
    else:
        others = [
            name for name in table if name not in SEGMENT_COLUMNS and table[name].dtype == "str"
        ]
        risky = any(table[name].str.contains("\r", regex=False).any() for name in others)
        quoting = csv.QUOTE_ALL if risky else csv.QUOTE_MINIMAL  # the writer leaves \r bare
        text = table.to_csv(index=False, lineterminator="\n", quoting=quoting)
        atomic_write(path, text.encode())


def _typed(
    table: pd.DataFrame, needed: Mapping[str, str], optional: Mapping[str, str], where: str
) -> pd.DataFrame:
    names = list(table.columns)
    _check_needed(names, needed, where)
    schema = {name: dtype for name, dtype in {**needed, **optional}.items() if name in names}
    table = table.copy()
    for name, dtype in schema.items():
        try:
            table[name] = _cast(_tidy(table[name]), dtype)
        except (TypeError, ValueError, OverflowError) as problem:
            raise InputError(
                f"{where}: column {name!r} holds what is not {dtype} ({problem}); correct it"
            ) from None
    others = [name for name in names if name not in schema]
    table = table[[*schema, *others]].reset_index(drop=True)
    for name in (name for name, dtype in schema.items() if dtype == "str"):
        if CONTROL_CHARACTERS.search("".join(table[name])):
            wrong = table[name][
                table[name].map(lambda text: CONTROL_CHARACTERS.search(text) is not None)
            ]
            _check_none(where, wrong, name, "text with a control character", "plain text")
    return table


def _check_needed(names: Sequence[str], needed: Mapping[str, str], where: str) -> None:
    """Raise `InputError` if a required column is missing, saying what the file may be."""
    missing = [name for name in needed if name not in names]
    if not missing:
        return
    kind = kind_of(",".join(map(str, names)), where)
    meant = "a predictions table" if "predicted" in needed else "a segment table"
    if kind is not None and kind.name not in ("a segment table", meant):
        raise InputError(
            f"{where}: is {kind.name}: columns {missing} are missing, found {names}; {kind.repair}"
        )
    maker = TABLE_MAKER
    if "predicted" in needed:
        maker = f"{PREDICTIONS_MAKER}, or add them: score is 0..1, model any name"
    repair = misspelt(names, missing)
    if not repair.startswith("rename"):
        repair = f"make the table with {maker}"
    raise InputError(f"{where}: columns {missing} are missing, found {names}; {repair}")


def _tidy(column: pd.Series) -> pd.Series:
    """Undo what spreadsheets and other programs do to a column of splits or channels."""
    if column.name == "split":
        plain = {text: str(text).strip().lower() for text in column.dropna().unique()}
        return column.map({text: new if new in SPLITS else text for text, new in plain.items()})
    if column.name == "channel":
        plain = {text: str(text).strip() for text in column.dropna().unique()}
        return column.map(
            {
                text: CHANNEL.sub(r"\1", new) if CHANNEL.fullmatch(new) else new
                for text, new in plain.items()
            }
        ).fillna("")
    return column


def _cast(column: pd.Series, dtype: str) -> pd.Series:
    """Return the column as `dtype`; raise `ValueError` if that would lose information."""
    if dtype == "str" and column.isna().any():
        raise ValueError(f"row {int(column.isna().to_numpy().argmax()) + 1} is missing")
    if dtype != "int64":
        return column.astype(dtype)
    numbers = column.astype("float64")
    if not (numbers.abs() < 2**62).all() or (numbers != numbers.round()).any():
        raise ValueError("not all are whole numbers")
    return numbers.astype(dtype)


def _check_none(where: str, wrong: pd.Series, column: str, fault: str, expected: str) -> None:
    if len(wrong):
        shown = repr(first) if isinstance(first := wrong.iloc[0], str) else f"{first:g}"
        raise InputError(
            f"{where}: {column} of {counted(len(wrong), 'row')} is {fault}, first {shown} "
            f"in row {int(wrong.index[0]) + 1}, expected {expected}; correct the table"
        )
