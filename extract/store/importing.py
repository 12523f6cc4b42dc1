"""Make a store of vectors that another encoder made: checked, and never mistaken for another's.

Such an encoder is identified by the name that the user gives and, since its weights are unknown, by
the SHA-256 of all its vectors, `vectors_sha256` in the store's configuration. Two files of vectors
thus count as two encoders, even under one name. If the file of weights is at hand, its SHA-256 is
used instead, and stores from several files belong together.

What `export` wrote gives the same store again, with configuration, bits, durations and checksums of
samples, as long as its vectors are unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import log as log_info
from ...common.names import normal_name
from ...manifests.table import as_table
from .export import content_sha256
from .layout import rejected_path, write_rejected
from .maintenance import begin_anew
from .reader import FeatureStore
from .shard import COLUMNS, DTYPES, SCHEMA, checksums
from .vectors import Vectors, read_vectors
from .writer import StoreWriter

if TYPE_CHECKING:
    import pandas as pd


POOLING = "imported"  # how a vector was pooled from its frames is unknown
NO_VECTOR = "no-vector"  # code of a segment that the file of vectors lacks
SAME_LENGTH = 1e-3  # s


@dataclass(frozen=True)
class ImportSummary:
    """Result of an import."""

    store: str
    name: str
    segments: int  # segments of the table with features in the store
    new: int  # of these, written by this import
    layers: int
    dim: int
    dtype: str
    given: str  # type of the numbers in the file
    missing: int = 0  # segments of the table without a vector
    unexpected: int = 0  # vectors of other segments

    def __str__(self) -> str:
        """Return one line."""
        size = f"{counted(self.layers, 'layer')} x {self.dim}, {self.dtype}"
        parts = [
            f"{self.store}: {counted(self.segments, 'segment')} of {self.name}, {self.new} new, "
            f"{size}"
        ]
        if self.given not in DTYPES:
            parts.append(f"{self.given} in the file")
        if self.missing:
            parts.append(f"{self.missing} have no vector, see {rejected_path(self.store)}")
        if self.unexpected:
            parts.append(f"{counted(self.unexpected, 'vector', 'is')} of no segment of the table")
        return "; ".join(parts)


def import_vectors(  # noqa: PLR0913  (the options of the command)
    vectors: str | Path,
    table: pd.DataFrame | str | Path,
    store: str | Path,
    *,
    name: str | None = None,
    weights: str | Path | None = None,
    partial: bool = False,
    overwrite: bool = False,
    log: Callable[[str], object] = log_info,
    lock: bool = True,
) -> FeatureStore:
    """Make a store of another encoder's vectors for a table's segments, and open it.

    Parameters
    ----------
    vectors
        ``.npz``, ``.parquet`` or ``.csv``, in a form that `vectors` describes; finite numbers.
        float16 and float32 stay as they are, other types become float32.
    table
        Segment table, or its file; joined by `segment_id`.
    store
        Folder; created if absent. Rows that it already has from the same file stay.
    name
        Of the encoder; not needed for what `export` wrote, which includes it.
    weights
        File of the encoder's weights, which identifies it instead of the vectors.
    partial
        Import what table and vectors have in common. Segments without a vector are then rejected
        (``no-vector``), and other vectors are left out.
    overwrite
        Replace an existing store, once the new one is complete.
    log
        Receives a summary line.
    lock
        Hold the store's lock; without it, no other process may write there.

    Returns
    -------
    FeatureStore
        The whole store.

    Raises
    ------
    InputError
        The file has none of these forms, ids are missing, unexpected or repeated, numbers are not
        finite, or the store is of another encoder or has other features for a segment.

    Examples
    --------
    >>> store = import_vectors("d.npz", "table.csv", "d", name="resemblyzer")  # doctest: +SKIP
    >>> store.layers, store.dim  # doctest: +SKIP
    ([0], 256)
    """
    options: dict[str, Any] = {"name": name, "weights": weights, "partial": partial}
    options |= {"overwrite": overwrite, "lock": lock}
    summary = run_import(vectors, as_table(table), store, **options)
    log(str(summary))
    return FeatureStore.open(store)


def run_import(  # noqa: PLR0913  (the options of the command)
    path: str | Path,
    table: pd.DataFrame,
    store: str | Path,
    *,
    name: str | None = None,
    weights: str | Path | None = None,
    partial: bool = False,
    overwrite: bool = False,
    lock: bool = True,
) -> ImportSummary:
    """Import as `import_vectors` does, and return the summary."""
    if overwrite and os.path.lexists(store):
        options: dict[str, Any] = {"name": name, "weights": weights, "partial": partial}
        written = begin_anew(
            Path(store), lambda new: run_import(path, table, new, lock=lock, **options), lock=lock
        )
        return replace(written, store=str(store))
    vectors = read_vectors(path)
    config, values = _identified(path, vectors, name, weights)
    missing, unexpected = _check_same_segments(path, vectors, table, partial=partial)
    rows = table[~table["segment_id"].isin(set(missing))]
    durations = _durations(path, vectors, rows)
    with StoreWriter(store, config, lock=lock) as writer:
        new = _write(writer, vectors, values, durations)
        for segment_id in missing:
            if segment_id not in writer.rejections:
                writer.reject(segment_id, NO_VECTOR, f"{path} has no vector of it")
        writer.commit()
        write_rejected(store, writer.rejections.values())
    return ImportSummary(
        store=str(store),
        name=config["encoder"],
        segments=len(rows),
        new=new,
        layers=len(values),
        dim=config["dim"],
        dtype=config["dtype"],
        given=str(next(iter(vectors.layers.values())).dtype),
        missing=len(missing),
        unexpected=len(unexpected),
    )


def _identified(
    path: str | Path, vectors: Vectors, name: str | None, weights: str | Path | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the store's configuration and the vectors (layers, rows, dim) as they are stored."""
    encoder = vectors.config.get("encoder")
    as_exported = _as_exported(vectors)
    if as_exported is not None and name in (None, encoder) and not weights:
        return dict(vectors.config), as_exported
    if as_exported is not None:
        raise InputError(
            f"{path}: holds features of {encoder!r} as spk-store export wrote them, expected no "
            "other identity; leave out --name and --weights"
        )
    if not name:
        problem = "does not say which encoder made it"
        if vectors.config:
            problem = f"is not what spk-store export wrote of {encoder!r} any more"
        raise InputError(f"{path}: {problem}, expected a name for it; pass --name NAME")
    return _named(path, vectors, normal_name(name), weights)


def _as_exported(vectors: Vectors) -> np.ndarray | None:
    """Return the bits that an export was written with; None if it is no export, or was changed."""
    config = vectors.config
    if config.get("dtype") not in DTYPES or not set(COLUMNS) <= set(vectors.columns):
        return None
    values = _stacked(vectors, DTYPES[config["dtype"]])
    same = config.get("layers") == sorted(vectors.layers) and config.get("dim") == values.shape[2]
    columns = {"segment_id": vectors.ids, **vectors.columns}
    same &= content_sha256(config, columns, _crc32(vectors, values)) == vectors.content_sha256
    return values if same else None


def _stacked(vectors: Vectors, dtype: np.dtype) -> np.ndarray:
    given = [vectors.layers[layer] for layer in sorted(vectors.layers)]
    with np.errstate(over="ignore", invalid="ignore"):  # reported by `_named`
        return np.stack(given).astype(dtype)


def _named(
    path: str | Path, vectors: Vectors, name: str, weights: str | Path | None
) -> tuple[dict[str, Any], np.ndarray]:
    """Return configuration and stored vectors of an encoder known only by name and hash."""
    half = next(iter(vectors.layers.values())).dtype == np.float16
    dtype = "float16" if half else "float32"
    values = _stacked(vectors, DTYPES[dtype])
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(0, 2)))
    if len(bad):
        raise InputError(
            f"{path}: {counted(len(bad), 'vector', 'is', of=len(vectors.ids))} not finite as "
            f"{dtype}, first of {vectors.ids[bad[0]]!r}, expected numbers; correct them, or leave "
            "these segments out of file and table"
        )
    identity = {"vectors_sha256": _sha256(vectors, values)}
    if weights:
        identity = {"weights_sha256": _file_sha256(weights)}
    return {
        "schema": SCHEMA,
        "kind": "pooled",
        "encoder": name,
        **identity,
        "layers": sorted(vectors.layers),
        "pooling": POOLING,
        "dim": values.shape[2],
        "dtype": dtype,
    }, values


def _crc32(vectors: Vectors, values: np.ndarray) -> np.ndarray:
    pairs = pairwise(vectors.offset.tolist())
    return np.array([checksums(np.ascontiguousarray(values[:, a:b])) for a, b in pairs], "<u4")


def _sha256(vectors: Vectors, values: np.ndarray) -> str:
    """Return what identifies vectors and their ids, independent of the order of rows."""
    order = sorted(range(len(vectors.ids)), key=vectors.ids.__getitem__)
    head = [[vectors.ids[k] for k in order], sorted(vectors.layers), str(values.dtype)]
    digest = hashlib.sha256(json.dumps(head).encode())
    for layer in values:
        digest.update(np.ascontiguousarray(layer[order]).data)
    return digest.hexdigest()


def _file_sha256(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be read ({problem.strerror}), expected the encoder's weights; correct "
            "--weights"
        ) from None


def _check_same_segments(
    path: str | Path, vectors: Vectors, table: pd.DataFrame, *, partial: bool
) -> tuple[list[str], list[str]]:
    """Return the segments without a vector and the vectors without a segment; refuse either."""
    wanted, given = table["segment_id"].tolist(), set(vectors.ids)
    missing = [name for name in wanted if name not in given]
    strange = given.difference(wanted)
    unexpected = [name for name in vectors.ids if name in strange]
    if len(missing) == len(wanted):
        raise InputError(
            f"{path}: none of the table's {counted(len(wanted), 'segment')} has a vector, first "
            f"vector {vectors.ids[0]!r}, first segment {wanted[0]!r}, expected the same "
            "segment_ids; name the table that the vectors were made from"
        )
    lacking = f"{counted(len(missing), 'segment', 'has', of=len(wanted))} no vector"
    spare = f"{counted(len(unexpected), 'vector', 'is', of=len(given))} of no segment of the table"
    for names, what, whose in (
        (missing, lacking, "expected one for each"),
        (unexpected, spare, "expected none"),
    ):
        if names and not partial:
            raise InputError(
                f"{path}: {what}, first {names[0]!r}, {whose}; correct either, or "
                "pass --partial to take what both have"
            )
    return missing, unexpected


def _durations(path: str | Path, vectors: Vectors, rows: pd.DataFrame) -> dict[str, float]:
    """Return {segment_id: length in s}; refuse an export whose segments had other times."""
    lengths = (rows["end"] - rows["start"]).tolist()
    durations = dict(zip(rows["segment_id"].tolist(), lengths, strict=True))
    if "duration" not in vectors.columns:
        return durations
    exported = dict(zip(vectors.ids, vectors.columns["duration"].tolist(), strict=True))
    other = [name for name, s in durations.items() if abs(exported[name] - s) > SAME_LENGTH]
    if other:
        raise InputError(
            f"{path}: {counted(len(other), 'segment', 'has')} another length in the table, first "
            f"{other[0]!r} with {durations[other[0]]:.4f} s, expected {exported[other[0]]:.4f} s, "
            "of which the features are; name the table that they were made of"
        )
    return {name: exported[name] for name in durations}


def _write(
    writer: StoreWriter, vectors: Vectors, values: np.ndarray, durations: Mapping[str, float]
) -> int:
    """Write what the store lacks, and return how many; refuse other features for a segment."""
    there = FeatureStore.open(writer.path)
    frames = writer.config["kind"] == "frames"
    new = 0
    for place, segment_id in enumerate(vectors.ids):
        if segment_id not in durations:
            continue
        own = np.ascontiguousarray(values[:, vectors.offset[place] : vectors.offset[place + 1]])
        if segment_id in writer.done:
            _check_same_features(there, segment_id, own)
            continue
        exported: dict[str, Any] = {n: column[place] for n, column in vectors.columns.items()}
        audio = {name: int(exported.get(name, 0)) for name in COLUMNS if name.startswith("audio")}
        writer.add(
            segment_id,
            own.swapaxes(0, 1) if frames else own[:, 0],
            duration=durations[segment_id],
            frames=int(exported["frames"]) if "frames" in exported else own.shape[1],
            **audio,
        )
        new += 1
    return new


def _check_same_features(store: FeatureStore, segment_id: str, own: np.ndarray) -> None:
    layers: Sequence[int] = store.layers
    read = store.read_frames if store.kind == "frames" else lambda name, n: store.read([name], n)
    if any(not np.array_equal(read(segment_id, n), own[k]) for k, n in enumerate(layers)):
        raise InputError(
            f"{store.path}: features of {segment_id!r} differ from those in the file, expected the "
            "same; name another store"
        )
