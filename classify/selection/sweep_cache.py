"""Finished cells (layers x classifier) of a sweep on disk, so that a stopped sweep can resume.

The first line of ``cells.jsonl`` is the fingerprint of everything a cell depends on: the table's
segments, the store's configuration and checksums, the settings, the versions. Then follows one line
per cell. Each line has the CRC-32 of its other fields; everything from the first truncated or
damaged line on is dropped. A file with another fingerprint is replaced, or raises `InputError`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.errors import InputError, explain_write_errors
from ...common.extras import installed_versions
from ...common.files import atomic_write
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..features import LayerSet
from ..options import SweepSettings
from .candidates import Candidate, classifier_names

if TYPE_CHECKING:
    import pandas as pd


SCHEMA = 3  # of the file and of the computation of cells; 3: LDA's spread for few samples
Share = tuple[LayerSet, list[str]]  # a layer set, and the classifiers to try on it
COMPUTED_BY = ("numpy", "scipy", "scikit-learn", "lightgbm")  # cells depend on their versions
# settings that select cells or use the chosen one, but do not change a cell's content
NOT_IN_A_CELL = (
    *("layers", "standardise", "classifiers", "jobs", "calibration", "refit"),
    *("engine", "ray_address"),
)


class SweepCache:
    """The finished trials of one sweep, appended to a file as they finish.

    Parameters
    ----------
    path : path of the file; None keeps them in memory only
    mark : str
        Fingerprint, from `fingerprint_of`.
    anew : bool
        Whether to replace a file with another fingerprint, rather than raise `InputError`.
    """

    def __init__(self, path: Path | None = None, mark: str = "", *, anew: bool = True) -> None:
        self._path = path
        self._trials: dict[tuple[LayerSet, str], Candidate] = {}
        if path is None:
            return
        lines = _whole_lines(path)
        same = lines[:1] == [{"schema": SCHEMA, "fingerprint": mark}]
        begun = len(lines) == 1  # only its first line: replacing it loses nothing
        if not same and not anew and not begun and os.path.lexists(path):
            raise InputError(
                f"{path.parent}: holds a sweep of another table, store, setting or version of spk, "
                "expected the same; pass --overwrite to restart it, or name another folder"
            )
        for line in lines[1:] if same else []:
            self._remember(_trial(line))
        head = _signed({"schema": SCHEMA, "fingerprint": mark})
        written = [head, *(_line(trial) for trial in self._trials.values())]
        atomic_write(path, b"".join(written))

    def __len__(self) -> int:
        return len(self._trials)

    def get(self, layers: LayerSet, classifier: str) -> Candidate | None:
        """Return a finished trial, or None."""
        return self._trials.get((layers, classifier))

    def add(self, trial: Candidate) -> None:
        """Add a finished trial; it is on disk when this returns."""
        self._remember(trial)
        if self._path is not None:
            with explain_write_errors(self._path), self._path.open("ab") as file:
                file.write(_line(trial))

    def _remember(self, trial: Candidate) -> None:
        self._trials[trial.layers, trial.classifier] = trial


def fingerprint_of(
    table: pd.DataFrame, store: FeatureStore, tasks: Sequence[Task], settings: SweepSettings
) -> str:
    """Return the SHA-256 (hex) of everything that a cell's numbers depend on.

    The store contributes its configuration and its checksums of the rows' features.
    """
    chosen = {name: value for name, value in asdict(settings).items() if name not in NOT_IN_A_CELL}
    columns = [name for name in ("segment_id", "session", "speaker", "split") if name in table]
    digest = hashlib.sha256()
    facts = [chosen, dict(store.config), _versions()]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(table[columns].to_csv(index=False).encode())
    digest.update(_checksums(table, store).tobytes())
    for task in tasks:
        digest.update(json.dumps([task.name, *task.labels]).encode())
        for part in (
            task.rows["train"],
            task.rows["valid"],
            *(p for cut in task.cuts for p in cut),
        ):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes() + b"|")
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    return installed_versions(COMPUTED_BY)


def _checksums(table: pd.DataFrame, store: FeatureStore) -> np.ndarray:
    """Return the store's CRC-32 (n, layers) of the rows' features."""
    place = {str(name): number for number, name in enumerate(store.ids())}
    sums = np.concatenate([shard.crc32 for shard in store.shards])
    return sums[[place[name] for name in table["segment_id"]]].astype("<u4")


def remaining_work(
    cells: SweepCache, sets: Sequence[LayerSet], settings: SweepSettings
) -> list[Share]:
    """Return the unfinished classifiers of each layer set that has any."""
    names = classifier_names(settings)
    shares = [
        (layer_set, [name for name in names if cells.get(layer_set, name) is None])
        for layer_set in sets
    ]
    return [(layer_set, missing) for layer_set, missing in shares if missing]


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the file's lines up to the first that is damaged."""
    records: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            fields = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            break
        if fields.pop("crc32", None) != _crc32(fields):
            break
        records.append(fields)
    return records


def _line(trial: Candidate) -> bytes:
    fields = asdict(trial)
    fields["correct"] = base64.b64encode(np.packbits(trial.correct).tobytes()).decode()
    fields["count"] = len(trial.correct)
    return _signed(fields)


def _signed(fields: dict[str, Any]) -> bytes:
    """Return a line of the file: fields and their checksum."""
    whole = {**fields, "crc32": _crc32(fields)}
    return json.dumps(whole, ensure_ascii=False).encode() + b"\n"


def _crc32(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))


def _trial(line: dict[str, Any]) -> Candidate:
    bits = np.frombuffer(base64.b64decode(line["correct"]), np.uint8)
    correct = np.unpackbits(bits, count=line["count"]).astype(bool)
    low, high = line["interval"]
    changed: dict[str, Any] = {
        "layers": LayerSet.from_dict(line["layers"]),
        "correct": correct,
        "interval": (low, high),
        "notes": tuple(line["notes"]),
    }
    rest = {name: value for name, value in line.items() if name not in {"count", *changed}}
    return Candidate(**rest, **changed)
