"""Shards: immutable HDF5 files with the features of some segments at every layer.

Datasets, all contiguous and uncompressed: ``features (layers, total, dim)`` float16 or float32,
layer-major, so that one layer is one run of bytes; ``offset (n+1,)``: segment i owns the rows
``offset[i]:offset[i+1]`` (one row when pooled, its frames when not); ``crc32 (n, layers)`` of
those bytes; ``segment_id (n,)`` UTF-8; ``duration`` (s), ``frames``, ``audio_bytes``,
``audio_crc32`` and ``audio_digest`` (of the decoded samples; 0: unknown, and absent in shards from
before there was one), all ``(n,)``; ``rejected``: a JSON list. Attributes: ``schema``,
``fingerprint``, ``configuration`` and ``versions`` (JSON).

After HDF5's own data come 56 bytes that HDF5 ignores: a magic number, the features' offset and
size, and the SHA-256 of everything else. A file is thus verified before HDF5 parses it (damaged
ones can crash HDF5) without reading gigabytes: HDF5 sees only hashed bytes, and the features, read
without HDF5, have a CRC-32 per segment and layer. A shard's name ends in the SHA-256 of the whole
file, which ``verify`` checks.

Files are treated as untrusted: no link in them is followed, and no special type (references,
objects, variable length) is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.signals import defer_signals

DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
COLUMNS: dict[str, np.dtype] = {  # besides segment_id, which has the width of the longest
    "duration": np.dtype("<f8"),
    "frames": np.dtype("<i8"),
    "audio_bytes": np.dtype("<i8"),
    "audio_crc32": np.dtype("<u4"),
    "audio_digest": np.dtype("<u8"),
}
LATER = {"audio_digest"}  # columns that older shards lack; zeros stand for them
KINDS = {  # dataset -> numpy kind, which excludes objects, references and variable length
    **{name: dtype.kind for name, dtype in COLUMNS.items()},
    "features": "f",
    "segment_id": "S",
    "offset": "i",
    "crc32": "u",
    "rejected": "u",
}
REASON = ("segment_id", "code", "message")
ATTRIBUTES = ("schema", "fingerprint", "configuration", "versions")
REPAIR = "delete the file and run spk-extract again"


def check_structure(path: Path, file: h5py.File) -> None:
    """Refuse any structure that our writer never produces, before following or reading it."""
    if set(file) | LATER != set(KINDS) or set(file.attrs) != set(ATTRIBUTES):
        raise damaged_error(path, f"datasets {sorted(file)} and attributes {sorted(file.attrs)}")
    for name in ATTRIBUTES:
        if file.attrs.get_id(name).dtype.kind != "S":
            raise damaged_error(path, f"attribute {name!r} of a type that is not text")
    for name, kind in ((name, KINDS[name]) for name in file):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise damaged_error(path, f"an external link at {name!r}")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != kind:
            raise damaged_error(path, f"another type at {name!r}")
        if dataset.is_virtual or dataset.external or dataset.chunks:
            raise damaged_error(path, f"virtual, external or chunked storage at {name!r}")
        if (
            dataset.id.get_storage_size() != dataset.nbytes
            or dataset.nbytes > file.id.get_filesize()
        ):
            raise damaged_error(path, f"storage that is not allocated at {name!r}")


def check_shapes(path: Path, shape: tuple[int, ...], small: Mapping[str, np.ndarray]) -> None:
    """Refuse datasets whose shapes do not match the number of segments."""
    count = len(small["segment_id"])
    offset = small["offset"]
    fits = (
        len(shape) == 3
        and all(small[name].shape == (count,) for name in COLUMNS)
        and small["crc32"].shape == (count, shape[0])
        and offset.shape == (count + 1,)
        and (offset[0], offset[-1]) == (0, shape[1])
        and bool((np.diff(offset) > 0).all())
    )
    if not fits:
        raise damaged_error(path, "datasets whose shapes do not match")


def require_object(described: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an entry that must be a JSON object, or raise `TypeError`."""
    if not isinstance(described[key], dict):
        raise TypeError(f"{key} is no JSON object")
    return described[key]


def text_of(value: object) -> str:
    """Return a string that can be encoded, or raise `TypeError` or `ValueError`."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    value.encode()  # JSON may contain lone surrogates, which cannot be encoded
    return value


def damaged_error(path: Path, content: str) -> InputError:
    """Return the error for a damaged shard or packed store."""
    if path.parent.name == "shards":
        return InputError(
            f"{path}: the file holds {content}, expected a shard as written; {REPAIR}"
        )
    return InputError(
        f"{path}: the file holds {content}, expected a packed store as written; name the folder of "
        "the store, or pack it again with spk-store pack"
    )


SCHEMA = 1
TRAILER = struct.Struct("<8sQQ32s")
MARK = b"spkshard"


@dataclass(frozen=True, eq=False)
class Shard:
    """A checked shard without its features, which `read_layer` reads."""

    path: Path
    start: int  # byte at which the features begin
    shape: tuple[int, int, int]  # layers, total, dim
    dtype: np.dtype
    offset: np.ndarray  # (n+1,) int64
    crc32: np.ndarray  # (n, layers) uint32
    columns: dict[str, np.ndarray]  # segment_id (n,) str, and COLUMNS
    rejected: list[dict[str, str]]  # segment_id, code, message
    attributes: dict[str, Any]  # ATTRIBUTES, decoded


def checksums(features: np.ndarray) -> list[int]:
    """Return the CRC-32 of a segment's features (layers, rows, dim) at each layer."""
    return [zlib.crc32(layer.data) for layer in features]


class _Image:
    """An in-memory file for HDF5 that stores only what is written, not reserved space."""

    def __init__(self) -> None:
        self._writes: list[tuple[int, bytes]] = []
        self._place = 0
        self.size = 0

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = origin + place
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._writes.append((self._place, content))
        self._place += len(content)
        self.size = max(self.size, self._place)
        return len(content)

    def read(self, count: int) -> bytes:
        first, self._place = self._place, self._place + count
        return self.part(first, first + count)

    def readinto(self, room: Any) -> int:
        room[:] = self.read(len(room))
        return len(room)

    def truncate(self, size: int) -> int:
        self.size = size
        return size

    def flush(self) -> None:
        """Do nothing, as nothing is held back: HDF5 calls it when it closes the file."""

    def part(self, first: int, stop: int) -> bytes:
        """Return the bytes from `first` to `stop`; zeros where nothing was written."""
        content = bytearray(stop - first)
        for place, data in self._writes:
            begin, end = max(place, first), min(place + len(data), stop)
            if begin < end:
                content[begin - first : end - first] = data[begin - place : end - place]
        return bytes(content)


@defer_signals()  # HDF5 mistakes exceptions raised within it for its own errors
def shard_parts(
    features: np.ndarray,
    offset: np.ndarray,
    columns: Mapping[str, Any],
    rejected: Sequence[Mapping[str, str]],
    attributes: Mapping[str, Any],
    crc32: np.ndarray,
) -> list[memoryview | bytes]:
    """Return the bytes of a shard file, in parts to be written one after another.

    HDF5 builds its own part in memory, where no disk can be full; the features are not copied.

    Parameters
    ----------
    features
        (layers, total, dim), float16 or float32; each layer is contiguous.
    offset
        (n+1,) int64, the rows of each segment.
    columns
        `segment_id` (n,) str, and `COLUMNS`, each (n,).
    rejected
        `segment_id`, `code` and `message` of each rejected segment.
    attributes
        `fingerprint`, `configuration`, `versions`.
    crc32
        (n, layers) uint32, the `checksums` of each segment.
    """
    small = encode_columns(columns, rejected, offset, crc32)
    image = _Image()
    with h5py.File(image, "w") as file:
        start = write_datasets(file, small, attributes, features.shape, features.dtype)
    stop = start + features.nbytes
    head, tail = image.part(0, start), image.part(stop, image.size)
    digest = hashlib.sha256(head)
    digest.update(tail)
    layers = [layer.data.cast("B") for layer in features if layer.size]
    return [head, *layers, tail + trailer(start, features.nbytes, digest)]


def trailer(start: int, size: int, digest: Any) -> bytes:
    """Return a shard's last bytes; `digest` has been fed all other bytes but the features."""
    head = TRAILER.pack(MARK, start, size, bytes(32))[:-32]
    digest.update(head)
    return head + digest.digest()


def encode_columns(
    columns: Mapping[str, Any],
    rejected: Sequence[Mapping[str, str]],
    offset: np.ndarray,
    crc32: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return all datasets except the features, in their stored types."""
    ids = [str(segment_id).encode() for segment_id in columns["segment_id"]]
    text = json.dumps(list(rejected), ensure_ascii=False).encode()
    return {
        "segment_id": np.array(ids, dtype=f"S{max(map(len, ids), default=1)}"),
        **{name: np.asarray(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()},
        "rejected": np.frombuffer(text, dtype="u1"),
        "offset": np.asarray(offset, dtype="<i8"),
        "crc32": np.asarray(crc32, dtype="<u4"),
    }


def write_datasets(
    file: h5py.File,
    small: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> int:
    """Write all datasets, only reserving space for the features; return the features' offset."""
    for name, values in small.items():
        file.create_dataset(name, data=values)
    for name, value in {**attributes, "schema": SCHEMA}.items():
        file.attrs[name] = np.bytes_(json.dumps(value, ensure_ascii=False, sort_keys=True))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)  # the same rows give the same bytes
    space = h5py.h5s.create_simple(shape)
    features = h5py.h5d.create(file.id, b"features", h5py.h5t.py_create(dtype), space, plan)
    return features.get_offset() or 0  # no offset when there are no rows


@defer_signals()  # HDF5 mistakes exceptions raised within it for its own errors
def read_shard(path: Path) -> Shard:
    """Check a shard and read everything but its features.

    Raises
    ------
    InputError
        The file is truncated or damaged, or has a structure that shards never have.
    """
    start, size = _check_trailer(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_structure(path, file)
            attributes = {name: json.loads(file.attrs[name]) for name in ATTRIBUTES}
            require_object(attributes, "configuration"), require_object(attributes, "versions")
            small = {name: file[name][()] for name in file if name != "features"}
            features = file["features"]
            shape, dtype, begin = features.shape, features.dtype, features.id.get_offset() or 0
        ids = np.array([raw.decode() for raw in small["segment_id"]], dtype=np.str_)
        listed = json.loads(bytes(small["rejected"]))
        rejected = [{key: text_of(row[key]) for key in REASON} for row in listed]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise damaged_error(path, str(problem)) from problem
    if (schema := attributes["schema"]) != SCHEMA:
        raise InputError(
            f"{path}: schema is {schema}, expected {SCHEMA}; use the spk version that wrote it"
        )
    if (begin, int(np.prod(shape)) * dtype.itemsize) != (start, size):
        raise damaged_error(path, "features not where its trailer says")
    small = {name: np.zeros(len(ids), COLUMNS[name]) for name in LATER} | small
    check_shapes(path, shape, small)
    columns = {"segment_id": ids, **{name: small[name] for name in COLUMNS}}
    return Shard(
        path, start, shape, dtype, small["offset"], small["crc32"], columns, rejected, attributes
    )


def read_layer(shard: Shard, position: int, segments: np.ndarray) -> np.ndarray:
    """Read the rows of some segments at one layer, in the stored dtype, and check them.

    Parameters
    ----------
    position
        Index of the layer in the store's list of layers.
    segments
        (k,) int64, indices of the segments in the shard, in the order to return.

    Returns
    -------
    ndarray
        (rows of all of them, dim).

    Raises
    ------
    InputError
        The bytes of a segment have changed since they were written.
    """
    _, total, dim = shard.shape
    if not total or not len(segments):
        return np.empty((0, dim), dtype=shard.dtype)
    begin = shard.start + position * total * dim * shard.dtype.itemsize
    mapped = np.memmap(shard.path, shard.dtype, mode="r", offset=begin, shape=(total, dim))
    sizes = np.diff(shard.offset)[segments]
    ends = np.cumsum(sizes)
    # one gather for all segments: row j of the result is row j + shift[j] of the shard
    shift = np.repeat(shard.offset[segments] - (ends - sizes), sizes)
    rows = np.asarray(mapped[np.arange(ends[-1]) + shift])
    _check_crc32(shard, position, segments, rows, ends)
    return rows


def _check_crc32(
    shard: Shard, position: int, segments: np.ndarray, rows: np.ndarray, ends: np.ndarray
) -> None:
    expected = shard.crc32[segments, position].tolist()
    first = 0
    for place, stop in enumerate(ends.tolist()):
        if zlib.crc32(rows[first:stop].data) != expected[place]:
            segment_id = str(shard.columns["segment_id"][segments[place]])
            raise damaged_error(
                shard.path, f"other bytes for {segment_id!r}, layer place {position}"
            )
        first = stop


def _check_trailer(path: Path) -> tuple[int, int]:
    """Return the features' offset and size in bytes, after verifying all other bytes."""
    try:
        file = path.open("rb")
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); make it readable") from None
    with file:
        end = os.fstat(file.fileno()).st_size - TRAILER.size
        file.seek(max(end, 0))
        last = file.read()
        if end < 0 or not last.startswith(MARK):
            raise damaged_error(
                path, f"{counted(end + TRAILER.size, 'byte')} without the mark of a complete file"
            )
        _, start, size, expected = TRAILER.unpack(last)
        if start + size > end:
            raise damaged_error(path, f"{counted(end, 'byte')}, fewer than its features need")
        file.seek(0)
        digest = hashlib.sha256(file.read(start))
        file.seek(start + size)
        digest.update(file.read()[:-32])
    if digest.digest() != expected:
        raise damaged_error(path, "a content that does not match its SHA-256")
    return start, size
