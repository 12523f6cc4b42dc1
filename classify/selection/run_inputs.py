"""Record a run's inputs row by row, so that it is never resumed or extended with other inputs.

``inputs.json`` in a sweep's folder holds the rows of its table (`COLUMNS`), each with a checksum of
its features at the swept layers, and the store's configuration. ``config.json``, written last,
holds the SHA-256 of every file of the run; the tables that `curve` and `open-set` add identify the
run in their column ``run``.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...extract.store.layout import differing_keys, setting_text
from ...extract.store.reader import FeatureStore
from .sweep_cache import NOT_IN_A_CELL

if TYPE_CHECKING:
    import pandas as pd


INPUTS_FILE = "inputs.json"
SCHEMA = 1
COLUMNS = ("session", "speaker", "split", "start", "end")
# not compared between stores: the layers they hold, their precision and file format
FREE_KEYS = ("layers", "dtype", "schema")


@dataclass(frozen=True, eq=False)
class Inputs:
    """The rows and features of a run.

    Attributes
    ----------
    rows : DataFrame of str, indexed by segment id
        `COLUMNS` and ``features``, a checksum, empty if extraction rejected the segment.
    layers : list of int
        The layers that the checksums cover.
    store : dict
        The store's configuration.
    """

    rows: pd.DataFrame = field(repr=False)
    layers: Sequence[int]
    store: Mapping[str, Any] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Return a fingerprint of the inputs that does not depend on the order of rows."""
        facts = json.dumps([list(self.layers), dict(self.store)], sort_keys=True).encode()
        return hashlib.sha256(self.rows.sort_index().to_csv().encode() + facts).hexdigest()


def inputs_of(table: pd.DataFrame, store: FeatureStore, layers: Sequence[int]) -> Inputs:
    """Return the inputs of a run on these layers of a table and a store."""
    numbers = sorted(set(layers))
    rows = table[["segment_id"]].assign(
        **{name: table[name].map(_text) if name in table else "" for name in COLUMNS},
        features=checksums(store, table["segment_id"].to_numpy(str), numbers),
    )
    return Inputs(rows.set_index("segment_id").astype(str), numbers, dict(store.config))


def _text(value: object) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def checksums(store: FeatureStore, ids: Sequence[str], layers: Sequence[int]) -> list[str]:
    """Return a checksum of each segment's features at `layers`; empty if it has none.

    Computed from the CRC-32 that the store holds per segment and layer; no feature is read.
    """
    columns = [list(store.layers).index(layer) for layer in layers]
    place = {str(name): number for number, name in enumerate(store.ids())}
    if not place:
        return ["" for _ in ids]
    sums = np.concatenate([shard.crc32[:, columns] for shard in store.shards]).astype("<u4")
    text = {name: f"{zlib.crc32(sums[place[name]].tobytes()):08x}" for name in ids if name in place}
    return [text.get(name, "") for name in ids]


def write_inputs(inputs: Inputs, folder: str | Path) -> None:
    """Write ``inputs.json`` of a run's folder."""
    content = {
        "schema": SCHEMA,
        "layers": list(inputs.layers),
        "store": dict(inputs.store),
        "columns": ["segment_id", *inputs.rows.columns],
        "rows": [list(row) for row in inputs.rows.itertuples(name=None)],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    atomic_write(Path(folder) / INPUTS_FILE, text.encode())


def read_inputs(folder: str | Path) -> Inputs | None:
    """Return the recorded inputs of a run's folder; None if it has no record.

    Raises
    ------
    InputError
        The file is damaged.
    """
    import pandas as pd

    path = Path(folder) / INPUTS_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        rows = pd.DataFrame(content["rows"], columns=content["columns"], dtype="str")
        rows = rows.set_index("segment_id")[[*COLUMNS, "features"]]
        return Inputs(rows, [int(layer) for layer in content["layers"]], dict(content["store"]))
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected what a sweep was made of; sweep into "
            "another folder"
        ) from problem


def check_same_inputs(
    folder: str | Path, table: pd.DataFrame, store: FeatureStore, *, repair: str
) -> None:
    """Raise `InputError`, naming what differs, unless a run's folder is of this table and store.

    A folder written before inputs were recorded is compared by its predictions
    (`_check_predicted`).
    """
    recorded = read_inputs(folder)
    if recorded is None:
        _check_predicted(Path(folder), table, repair=repair)
        return
    check_same_store(recorded.store, store, whose=f"the store of {folder}", repair=repair)
    missing = [layer for layer in recorded.layers if layer not in store.layers]
    if missing:
        raise InputError(
            f"{store.path}: layers {missing} are missing, found {list(store.layers)}, expected "
            f"those of {folder}; {repair}"
        )
    now = inputs_of(table, store, recorded.layers).rows
    difference = difference_of(recorded.rows, now)
    if difference:
        where = store.path if " features" in difference else "table"
        raise InputError(f"{where}: {difference}; {repair}")


def begin_run(
    folder: str | Path,
    table: pd.DataFrame,
    store: FeatureStore,
    layers: Sequence[int],
    *,
    anew: bool = False,
) -> None:
    """Prepare a folder for a sweep; raise `InputError` if it holds a run of other inputs.

    The inputs are written first, so that an interrupted run records them too. With `anew`, a run of
    other inputs is replaced; until the new one is done, the folder has no ``config.json``.
    """
    repair = "pass --overwrite to restart it, or name another folder"
    try:
        check_same_inputs(folder, table, store, repair=repair)
    except InputError:
        if not anew:
            raise
        (Path(folder) / "config.json").unlink(missing_ok=True)
        (Path(folder) / INPUTS_FILE).unlink(missing_ok=True)
    if not (Path(folder) / INPUTS_FILE).exists():
        write_inputs(inputs_of(table, store, layers), folder)


def check_same_store(
    config: Mapping[str, Any], store: FeatureStore, *, whose: str, repair: str
) -> None:
    """Raise `InputError`, naming the keys that differ, unless `config` is the store's."""
    theirs = store.config
    differ = differing_keys(config, theirs, free=FREE_KEYS)
    if differ:
        pairs = "; ".join(
            f"{key} {setting_text(theirs.get(key))}, not {setting_text(config.get(key))}"
            for key in differ
        )
        raise InputError(
            f"{store.path}: configuration is another than {whose} has ({pairs}), expected the "
            f"same; {repair}"
        )


def difference_of(then: pd.DataFrame, now: pd.DataFrame) -> str:
    """Describe the first difference of `now` from `then` (`Inputs.rows`); empty if none.

    Segments are compared first, then columns; the first row that differs is named.
    """
    gone, new = then.index.difference(now.index), now.index.difference(then.index)
    if len(gone):
        return (
            f"{len(gone)} of the run's {counted(len(then), 'row')} {agree(len(gone), 'is', 'are')} "
            f"missing, first {gone[0]!r}, expected all of them"
        )
    if len(new):
        return (
            f"{counted(len(new), 'row', 'is', of=len(now))} not the run's, first {new[0]!r}, "
            "expected none"
        )
    now = now.loc[then.index]
    for column in (name for name in (*COLUMNS, "features") if name in then):
        rows = np.flatnonzero((then[column] != now[column]).to_numpy())
        if len(rows):
            was, is_now = then[column].iloc[rows[0]], now[column].iloc[rows[0]]
            kind = "other features" if column == "features" else f"another {column}"
            return (
                f"{counted(len(rows), 'row', 'has', of=len(then))} {kind}, first "
                f"{then.index[rows[0]]!r} with {is_now or 'none'!r}, expected the run's "
                f"{was or 'none'!r}"
            )
    return ""


def _check_predicted(folder: Path, table: pd.DataFrame, *, repair: str) -> None:
    """Compare a table's test rows with a run's predictions, its only record of inputs."""
    from ...manifests.table import read_predictions

    path = folder / "predictions.csv"
    if not path.is_file():
        return
    columns = ["segment_id", "session", "speaker", "split"]
    then = read_predictions(path)[columns].drop_duplicates("segment_id")
    now = table[table["segment_id"].isin(then["segment_id"])]
    now = now.assign(split=now.get("split", ""))[columns]
    frames = [frame.set_index("segment_id") for frame in (then, now)]
    difference = difference_of(*(frame.assign(start="", end="", features="") for frame in frames))
    if difference:
        raise InputError(f"table: {difference}; {repair}")


def sealed(folder: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Return {name: SHA-256} of the run's files that exist."""
    paths = {name: Path(folder) / name for name in names}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.is_file()
    }


def check_sealed(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Raise `InputError` unless a sweep's files have the checksums in its ``config.json``.

    They differ where another sweep was killed while writing, or a file was replaced.
    """
    named = config.get("files")
    named = named if isinstance(named, dict) else {}
    now = sealed(folder, list(map(str, named)))
    differ = [name for name in named if now.get(name) != named[name]]
    if differ:
        raise InputError(
            f"{folder}: {counted(len(differ), 'file', 'is', of=len(named))} not those that "
            f"config.json was written with, first {differ[0]!r}, expected one run's; sweep again, "
            "or name a predictions table instead of the folder"
        )


def run_mark(folder: str | Path, config: Mapping[str, Any]) -> str:
    """Return the identifier of a run in ``learning.csv`` and ``openset.csv``."""
    predictions = sealed(folder, ["predictions.csv"])
    settings = {k: v for k, v in config.get("settings", {}).items() if k not in NOT_IN_A_CELL}
    facts = [predictions, config.get("chosen"), settings]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
