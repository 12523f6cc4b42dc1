"""Write a store as one file: packed for `FeatureStore.open`, or exported for other programs.

The file is written atomically, and every value is checked as it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from ...common.errors import InputError, explain_write_errors
from ...common.files import atomic_open, check_free_space
from ...common.outputs import Output, check_place
from ...common.signals import defer_signals
from .reader import FeatureStore
from .shard import DTYPES, encode_columns, read_layer, trailer, write_datasets

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
        for layer in store.layers:
            for rows in _layer_parts(store, layer):
                file.write(rows.data)
        return file.seek(0, os.SEEK_END)


def export(path: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Write a store for other programs, in the format of the suffix; all values are checked.

    ``.npz``: `segment_id`, `duration` (s), `frames`, `audio_bytes`, `audio_crc32`, `offset`,
    `configuration` (JSON), and per layer ``layer_N (rows, dim)`` in the stored dtype; segment i
    owns the rows ``offset[i]:offset[i+1]``. ``.parquet`` (pooled stores): a row per segment,
    ``layer_N`` a float32 list of length dim; the configuration in the schema's metadata. An
    existing file is never replaced by other content unless `overwrite`.

    Returns
    -------
    int
        Segments written.
    """
    store = FeatureStore.open(path)
    out = _checked_out(out, store, EXPORTED)
    if out.suffix == ".parquet" and store.kind != "pooled":
        raise InputError(
            f"{out}: the store's kind is {store.kind!r}, expected 'pooled' for .parquet; "
            "export to .npz"
        )
    width = 4 if out.suffix == ".parquet" else DTYPES[store.config["dtype"]].itemsize
    needed = len(store.layers) * int(_offset(store)[-1]) * store.dim * width + SPARE
    check_free_space(out.parent, needed)
    with atomic_open(out, needed, overwrite=overwrite) as file:
        (_export_npz if out.suffix == ".npz" else _export_parquet)(store, file)
    return len(store)


def _export_npz(store: FeatureStore, file: BinaryIO) -> None:
    arrays = {
        **store.rows(),
        "offset": _offset(store),
        "configuration": np.array(json.dumps(store.config, ensure_ascii=False)),
    }
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, values in arrays.items():
            _save(archive, name, values)
        empty = np.empty((0, store.dim), DTYPES[store.config["dtype"]])
        for layer in store.layers:
            _save(archive, f"layer_{layer}", np.concatenate([empty, *_layer_parts(store, layer)]))


def _save(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, values, allow_pickle=False)


def _export_parquet(store: FeatureStore, file: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = store.rows()
    vector = pa.list_(pa.float32(), store.dim)
    fields = [
        (name, pa.from_numpy_dtype(rows[name].dtype)) for name in rows if name != "segment_id"
    ]
    layers = [(f"layer_{layer}", vector) for layer in store.layers]
    metadata = {"configuration": json.dumps(store.config, ensure_ascii=False)}
    schema = pa.schema([("segment_id", pa.string()), *fields, *layers], metadata=metadata)
    with parquet.ParquetWriter(file, schema) as writer:
        for places in _blocks(len(store)):
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
