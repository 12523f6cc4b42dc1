"""Read vectors that another program made of segments, at one layer or several.

There are three forms, by suffix:

- ``.npz``: `segment_id` (or `segment_ids`, `ids`), n texts, and either a single numeric array
  (n, dim) or (n, layers, dim) of any name, or arrays ``layer_N`` (n, dim). Without ids, each array
  belongs to the segment whose id is its name, and is (dim,) or (layers, dim).
- ``.parquet``: `segment_id` and either one column of lists, columns ``layer_N`` of lists, or one
  column per number, in order.
- ``.csv``: `segment_id` and one column per number.

Columns of a segment table or an export, and row numbers that pandas wrote, are ignored. Nothing is
unpickled. What `export` wrote also has a `configuration`, and a `content_sha256` that shows whether
the vectors are unchanged.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...manifests.table import OPTIONAL_COLUMNS, SEGMENT_COLUMNS
from ...manifests.text_files.delimited import read_delimited
from .layout import HDF5
from .shard import COLUMNS

if TYPE_CHECKING:
    import pandas as pd


SUFFIXES = (".npz", ".parquet", ".csv")
IDS = ("segment_id", "segment_ids", "ids")
LAYER = re.compile(r"layer_(\d{1,4})")
ROW_NUMBERS = ("index", "Unnamed: 0")  # names that pandas gives to row numbers
PASSED_OVER = {*SEGMENT_COLUMNS, *OPTIONAL_COLUMNS, *COLUMNS, "offset", *ROW_NUMBERS}
SAVE = "save numpy.savez(FILE, segment_id=ids, vectors=array)"
MAGICS = (  # first bytes, what such a file is, what to do
    (HDF5, "an HDF5 file", "name a store, packed or not, where a command takes STORE"),
    (b"\x93NUMPY", "a single array (.npy), which has no ids", SAVE),
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"\x80", "a pickle, which may run code and is not opened", SAVE),
    (b"RIFF", "a recording", "name the vectors made of it"),
    (b"fLaC", "a recording", "name the vectors made of it"),
)
EXPECTED = "vectors as .npz, .parquet or .csv"


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of segments, as read from a file.

    Attributes
    ----------
    ids
        Of the n segments.
    layers : {number: (rows, dim)}
        All of one numeric type; segment i has row i, or the rows ``offset[i]:offset[i+1]``.
    offset
        (n+1,) int64.
    columns : {name: (n,)}
        Those of `shard.COLUMNS` that an export includes.
    config
        The configuration of an exported store; empty for other files.
    content_sha256
        As recorded in an export.
    """

    ids: list[str]
    layers: Mapping[int, np.ndarray]
    offset: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    content_sha256: str = ""


def read_vectors(path: str | Path) -> Vectors:
    """Read a file of vectors.

    Raises
    ------
    InputError
        The file is missing, does not match its suffix, or has none of the forms above; an id
        occurs twice; numbers are missing.
    """
    path = Path(path)
    _check_format(path)
    suffix = path.suffix.lower()
    read = {".npz": _read_npz, ".parquet": _read_parquet, ".csv": _read_csv}[suffix]
    try:
        vectors = read(path)
    except InputError:
        raise
    except Exception as problem:  # numpy, zip and pyarrow raise a dozen kinds for a damaged file
        reason = " ".join(str(problem).split())
        raise InputError(
            f"{path}: cannot be read ({reason}), expected {EXPECTED}; write it again"
        ) from problem
    _check_ids(path, vectors.ids)
    return vectors


def _check_format(path: Path) -> None:
    """Refuse a file that is not one of vectors, and say what it is."""
    if (path / "store.json").is_file():
        raise InputError(
            f"{path}: is a store, expected {EXPECTED}; name it where a command takes STORE"
        )
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); correct the path") from None
    suffix = path.suffix.lower()
    for magic, kind, repair in MAGICS:
        if head.startswith(magic) and (suffix, magic) != (".parquet", b"PAR1"):
            raise InputError(f"{path}: is {kind}, expected {EXPECTED}; {repair}")
    if head.startswith(b"PK"):
        _check_zip(path)
    elif suffix == ".npz" or (suffix == ".parquet" and not head.startswith(b"PAR1")):
        raise InputError(f"{path}: is no {suffix} by its first bytes, expected one; write it again")
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: suffix is {path.suffix!r}, expected {' or '.join(SUFFIXES)}; rename it"
        )


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected {EXPECTED}; write it again"
        ) from None
    if all(name.endswith(".npy") for name in names):
        if path.suffix.lower() != ".npz":
            raise InputError(f"{path}: is an .npz by its content; rename it")
        return
    kind, repair = "a zip archive", "unpack it and name the vectors"
    if any(name.endswith("data.pkl") for name in names):
        kind, repair = "a file of PyTorch, which may run code and is not opened", SAVE
    if "[Content_Types].xml" in names:
        kind, repair = "a spreadsheet", "save it as CSV (UTF-8)"
    raise InputError(f"{path}: is {kind}, expected {EXPECTED}; {repair}")


def _check_ids(path: Path, ids: Sequence[str]) -> None:
    if not ids:
        raise InputError(f"{path}: holds 0 vectors, expected at least 1; write it again")
    seen: set[str] = set()
    twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} segment_ids are given twice, first {twice[0]!r}, expected each "
            "once; delete one of them"
        )


def _read_npz(path: Path) -> Vectors:
    with np.load(path, allow_pickle=False) as file:
        objects = [name for name in file.files if name not in IDS and _is_object(file, name)]
        arrays = {name: file[name] for name in file.files if name not in objects}
    key = next((name for name in IDS if name in arrays), None)
    if key is None:
        return _by_segment(path, arrays)
    if arrays[key].ndim != 1:
        raise InputError(
            f"{path}: {key!r} has shape {arrays[key].shape}, expected a list of ids; {SAVE}"
        )
    ids = arrays.pop(key).astype(np.str_).tolist()
    named = {int(m[1]): arrays[n] for n in arrays if (m := LAYER.fullmatch(n))}
    offset = _offset(arrays, len(ids))
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    config = dict(json.loads(str(arrays["configuration"]))) if "configuration" in arrays else {}
    sha256 = str(arrays.get("content_sha256", ""))
    layers = named or _layers(path, _only_array(path, arrays, len(ids)))
    _check_layers(path, layers, int(offset[-1]))
    return Vectors(ids, layers, offset, columns, config, sha256)


def _offset(arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Return the rows (count+1,) at which segments begin; raise `ValueError` if invalid."""
    if "configuration" not in arrays:
        return np.arange(count + 1)
    offset = arrays["offset"]
    if offset.shape != (count + 1,) or offset[0] or not (np.diff(offset) > 0).all():
        raise ValueError(f"offset of {counted(count, 'segment')} is {offset.tolist()[:5]}")
    return offset


def _is_object(file: Any, name: str) -> bool:
    try:
        return bool(file[name].dtype.kind == "O")
    except ValueError:  # numpy refuses to unpickle
        return True


def _by_segment(path: Path, arrays: Mapping[str, np.ndarray]) -> Vectors:
    """Return the vectors of a file with an array for each segment."""
    shapes = {values.shape for values in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) not in (1, 2):
        raise InputError(
            f"{path}: holds no {IDS[0]!r}, and arrays of {counted(len(shapes), 'shape')} "
            f"{sorted(shapes)[:3]}, expected ids beside the vectors, or a vector of one length for "
            f"each segment; {SAVE}"
        )
    return Vectors(
        list(arrays), _layers(path, np.stack(list(arrays.values()))), np.arange(len(arrays) + 1)
    )


def _only_array(path: Path, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    numbers = {n: a for n, a in arrays.items() if a.ndim in (2, 3) and a.dtype.kind in "fiu"}
    if len(numbers) != 1:
        raise InputError(
            f"{path}: {counted(len(numbers), 'array')} may be the vectors "
            f"({', '.join(numbers) or 'none'}), expected one of shape ({count}, dim) or ({count}, "
            f"layers, dim); {SAVE}"
        )
    return next(iter(numbers.values()))


def _layers(path: Path, values: np.ndarray) -> dict[int, np.ndarray]:
    """Return the layers of an array (rows, dim) or (rows, layers, dim)."""
    by_layer = values[:, None] if values.ndim == 2 else values
    layers = {number: by_layer[:, number] for number in range(by_layer.shape[1])}
    _check_layers(path, layers, len(values))
    return layers


def _check_layers(path: Path, layers: Mapping[int, np.ndarray], rows: int) -> None:
    shapes = {values.shape for values in layers.values()}
    types = sorted({str(values.dtype) for values in layers.values()})
    kinds = {values.dtype.kind for values in layers.values()}
    if len(shapes) != 1 or len(types) != 1 or not kinds <= set("fiu"):
        raise InputError(
            f"{path}: layers have shapes {sorted(shapes)} and types {types}, expected numbers of "
            "one type and shape; write it again"
        )
    shape = next(iter(shapes))
    if len(shape) != 2 or shape[0] != rows or not shape[1]:
        raise InputError(
            f"{path}: vectors have shape {shape}, expected a row for each of "
            f"{counted(rows, 'segment')}; write it again"
        )


def _read_parquet(path: Path) -> Vectors:
    from pyarrow import parquet

    table = parquet.read_table(path)
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    frame = table.to_pandas()
    config = dict(json.loads(metadata.get("configuration", "{}")))
    return _of_columns(path, frame, config, metadata.get("content_sha256", ""))


def _read_csv(path: Path) -> Vectors:
    rows = read_delimited(path, ["segment_id"], "write the vectors there").rows
    _id_column(path, list(rows))
    numbers = [name for name in rows if name not in {*IDS, *PASSED_OVER}]
    for name in numbers:
        try:
            rows[name] = rows[name].astype(np.float64)
        except ValueError as problem:
            raise InputError(
                f"{path}: column {name!r} holds what is no number ({problem}), expected numbers in "
                "every column beside segment_id; correct or delete it"
            ) from None
    return _of_columns(path, rows, {}, "")


def _of_columns(path: Path, frame: pd.DataFrame, config: Mapping[str, Any], sha256: str) -> Vectors:
    """Return the vectors of a table with a list of numbers, or a column for each number."""
    names = [str(name) for name in frame.columns]
    key = _id_column(path, names)
    rest = [name for name in names if name not in {*IDS, *PASSED_OVER}]
    lists = [name for name in rest if frame[name].dtype == object]
    if lists:
        numbers = {name: _stacked(path, name, frame[name]) for name in lists}
        named = {int(m[1]): numbers[n] for n in lists if (m := LAYER.fullmatch(n))}
        layers = named or _layers(path, _only_array(path, numbers, len(frame)))
    else:
        texts = [name for name in rest if frame[name].dtype.kind not in "fiu"]
        if texts or not rest:
            raise InputError(
                f"{path}: {counted(len(rest) - len(texts), 'column', 'holds')} numbers, and "
                f"{texts[:3]} others, expected segment_id and numbers; delete the others"
            )
        layers = _layers(path, frame[rest].to_numpy())
    _check_layers(path, layers, len(frame))
    columns = {name: frame[name].to_numpy() for name in COLUMNS if name in names and config}
    ids = [str(name) for name in frame[key]]
    return Vectors(ids, layers, np.arange(len(ids) + 1), columns, config, sha256)


def _id_column(path: Path, names: Sequence[str]) -> str:
    key = next((name for name in IDS if name in names), None)
    if key is None:
        raise InputError(
            f"{path}: column 'segment_id' is missing, found {[*names[:5]]}, expected it beside the "
            "numbers; add it"
        )
    return key


def _stacked(path: Path, name: str, lists: pd.Series) -> np.ndarray:
    lengths = sorted({np.size(values) for values in lists})
    if len(lengths) != 1:
        raise InputError(
            f"{path}: lists in {name!r} have {counted(len(lengths), 'length')} ({lengths[:3]}), "
            "expected vectors of one length; write it again"
        )
    return np.stack([np.asarray(values) for values in lists])
