"""Write a store as one file: packed for `FeatureStore.open`, or exported for other programs.

The file is written atomically, and every value is checked as it is read. What `export` writes,
`importing.import_vectors` reads back.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import h5py
import numpy as np

from ...common.counts import counted
from ...common.errors import InputError, explain_write_errors
from ...common.files import atomic_open, check_free_space
from ...common.log import with_progress
from ...common.outputs import Output, check_place
from ...common.signals import defer_signals
from ...manifests.table import as_table
from .reader import FeatureStore
from .shard import COLUMNS, DTYPES, encode_columns, read_layer, trailer, write_datasets

if TYPE_CHECKING:
    import pandas as pd


FROM_TABLE = ("session", "speaker", "split", "start", "end")  # columns that a table adds
EXPORTED = (".npz", ".parquet")
BLOCK = 1024  # rows of a Parquet row group
SPARE = 1 << 16  # bytes besides the arrays: headers and names


def pack(path: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Write a store as one file, layer by layer, for sharing; read it with `FeatureStore.open`.

    An existing file is never replaced by other content unless `overwrite`.

    Returns
    -------
    int
        Bytes of the file.
    """
    store = FeatureStore.open(path)
    out = _checked_out(out, store)
    offset = _offset(store)
    shape = (len(store.layers), int(offset[-1]), store.dim)
    dtype = DTYPES[store.config["dtype"]]
    crc32 = [np.empty((0, shape[0])), *(shard.crc32 for shard in store.shards)]
    small = encode_columns(store.rows(), store.rejected(), offset, np.concatenate(crc32))
    attributes = {
        "fingerprint": store.fingerprint,
        "configuration": store.config,
        "versions": store.versions,
    }
    size = int(np.prod(shape)) * dtype.itemsize
    needed = size + sum(values.nbytes for values in small.values()) + SPARE
    check_free_space(out.parent, needed)
    with atomic_open(out, needed, overwrite=overwrite) as file:
        with (
            defer_signals(),
            h5py.File(file, "w") as described,
        ):  # space for the features is only reserved: a hole in the file
            start = write_datasets(described, small, attributes, shape, dtype)
        digest = hashlib.sha256(_bytes(file, 0, start))
        digest.update(_bytes(file, start + size, None))
        file.write(trailer(start, size, digest))
        file.seek(start)
        for layer in with_progress(store.layers, "layers"):
            for rows in _layer_parts(store, layer):
                file.write(rows.data)
        return file.seek(0, os.SEEK_END)


def export(
    path: str | Path,
    out: str | Path,
    *,
    table: pd.DataFrame | str | Path | None = None,
    overwrite: bool = False,
) -> int:
    """Write a store for other programs, in the format of the suffix; all values are checked.

    ``.npz``: `segment_id`, `duration` (s), `frames`, `audio_bytes`, `audio_crc32`, `offset`,
    `configuration` (JSON), and per layer ``layer_N (rows, dim)`` in the stored dtype; segment i
    owns the rows ``offset[i]:offset[i+1]``. ``.parquet`` (pooled stores): a row per segment,
    ``layer_N`` a float32 list of length dim; the configuration in the schema's metadata. Both hold
    `content_sha256`, by which an import detects whether anything was changed. An existing file is
    never replaced by other content unless `overwrite`.

    Parameters
    ----------
    table
        Segment table, or its file: adds its columns `FROM_TABLE`, and only its segments are
        written.

    Returns
    -------
    int
        Segments written.

    Raises
    ------
    InputError
        None of the table's segments is in the store, or frames are to be written to Parquet.
    """
    store = FeatureStore.open(path)
    out = _checked_out(out, store, EXPORTED)
    chosen = _Chosen(store, table)
    if out.suffix == ".parquet" and store.kind != "pooled":
        raise InputError(
            f"{out}: the store's kind is {store.kind!r}, expected 'pooled' for .parquet; "
            "export to .npz"
        )
    width = 4 if out.suffix == ".parquet" else DTYPES[store.config["dtype"]].itemsize
    needed = len(store.layers) * int(chosen.offset[-1]) * store.dim * width + SPARE
    check_free_space(out.parent, needed)
    with atomic_open(out, needed, overwrite=overwrite) as file:
        (_export_npz if out.suffix == ".npz" else _export_parquet)(store, chosen, file)
    return len(chosen.columns["segment_id"])


def content_sha256(config: Mapping[str, Any], columns: Mapping[str, Any], crc32: np.ndarray) -> str:
    """Return what identifies an export: configuration, `segment_id` and `COLUMNS`, features.

    `crc32` (n, layers) are the features' checksums.
    """
    listed = [np.asarray(columns[name]).tolist() for name in ("segment_id", *COLUMNS)]
    digest = hashlib.sha256(
        json.dumps([dict(config), *listed], sort_keys=True, default=str).encode()
    )
    digest.update(np.ascontiguousarray(crc32, dtype="<u4").data)
    return digest.hexdigest()


class _Chosen:
    """The rows of a store that are written: all, or those of a table, in the store's order."""

    def __init__(self, store: FeatureStore, table: pd.DataFrame | str | Path | None) -> None:
        rows, own = store.rows(), {}
        chosen = np.arange(len(store))
        if table is not None:
            own = _columns_of(as_table(table), rows["segment_id"], store)
            chosen = np.flatnonzero(np.isin(rows["segment_id"], own["segment_id"]))
        starts = np.cumsum([0, *(len(shard.crc32) for shard in store.shards)])
        pairs = pairwise(starts)
        self.of_shard = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairs]
        shards = list(zip(store.shards, self.of_shard, strict=True))
        sizes = [np.diff(shard.offset)[places] for shard, places in shards]
        self.offset = np.cumsum(np.concatenate([[0], *sizes]), dtype=np.int64)
        self.columns = {name: values[chosen] for name, values in rows.items()} | own
        empty = np.empty((0, len(store.layers)), "<u4")
        crc32 = np.concatenate([empty, *(shard.crc32[places] for shard, places in shards)])
        self.sha256 = content_sha256(store.config, self.columns, crc32)

    def layer(self, store: FeatureStore, layer: int) -> Iterator[np.ndarray]:
        """Yield one layer of each shard's rows, checked, in the stored dtype."""
        position = store.layers.index(layer)
        for shard, places in zip(store.shards, self.of_shard, strict=True):
            yield read_layer(shard, position, places)


def _columns_of(table: pd.DataFrame, ids: np.ndarray, store: FeatureStore) -> dict[str, np.ndarray]:
    """Return `segment_id` and `FROM_TABLE` of those segments of a table that are in `ids`."""
    there = table.set_index("segment_id")
    chosen = [name for name in ids.tolist() if name in there.index]
    if not chosen:
        raise InputError(
            f"{store.path}: 0 of {counted(len(table), 'segment')} of the table have features, "
            f"first {table['segment_id'].iloc[0]!r}, expected some; run spk-extract on the same "
            "table"
        )
    rows = there.loc[chosen]
    numbers = {name: rows[name].to_numpy(np.float64) for name in ("start", "end")}
    texts = {n: rows[n].to_numpy(str) for n in FROM_TABLE if n in rows and n not in numbers}
    return {"segment_id": np.array(chosen, dtype=np.str_), **texts, **numbers}


def _export_npz(store: FeatureStore, chosen: _Chosen, file: BinaryIO) -> None:
    arrays = {
        **chosen.columns,
        "offset": chosen.offset,
        "configuration": np.array(json.dumps(store.config, ensure_ascii=False)),
        "content_sha256": np.array(chosen.sha256),
    }
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, values in arrays.items():
            _save(archive, name, values)
        empty = np.empty((0, store.dim), DTYPES[store.config["dtype"]])
        for layer in with_progress(store.layers, "layers"):
            blocks = chosen.layer(store, layer)
            _save(archive, f"layer_{layer}", np.concatenate([empty, *blocks]))


def _save(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, values, allow_pickle=False)


def _export_parquet(store: FeatureStore, chosen: _Chosen, file: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = chosen.columns
    vector = pa.list_(pa.float32(), store.dim)
    fields = [
        (name, pa.string() if values.dtype.kind == "U" else pa.from_numpy_dtype(values.dtype))
        for name, values in rows.items()
    ]
    layers = [(f"layer_{layer}", vector) for layer in store.layers]
    metadata = {
        "configuration": json.dumps(store.config, ensure_ascii=False),
        "content_sha256": chosen.sha256,
    }
    schema = pa.schema([*fields, *layers], metadata=metadata)
    with parquet.ParquetWriter(file, schema) as writer:
        blocks = list(_blocks(len(rows["segment_id"])))
        for places in with_progress(blocks, "blocks"):
            columns = [
                pa.array(values[places].tolist(), schema.field(name).type)
                for name, values in rows.items()
            ]
            for layer in store.layers:
                values = store.read(rows["segment_id"][places], layer).reshape(-1)
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), store.dim))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _checked_out(out: str | Path, store: FeatureStore, suffixes: Sequence[str] = ()) -> Path:
    """Check that `out` can be written and is not the store itself; create its parent folder."""
    out = Path(out)
    check_place(out, Output("out", tuple(suffixes)), {"store": [store.path]})
    with explain_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    return out


def _offset(store: FeatureStore) -> np.ndarray:
    """Return (n+1,) the offsets of the segments' rows in a layer of the whole store."""
    sizes = [np.diff(shard.offset) for shard in store.shards]
    return np.cumsum(np.concatenate([[0], *sizes]), dtype=np.int64)


def _layer_parts(store: FeatureStore, layer: int) -> Iterator[np.ndarray]:
    """Yield one layer of each shard, checked, in the stored dtype."""
    for shard in store.shards:
        yield read_layer(shard, store.layers.index(layer), np.arange(len(shard.crc32)))


def _bytes(file: BinaryIO, first: int, stop: int | None) -> bytes:
    file.seek(first)
    return file.read(-1 if stop is None else stop - first)


def _blocks(count: int) -> Iterator[slice]:
    for first in range(0, count, BLOCK):
        yield slice(first, first + BLOCK)
