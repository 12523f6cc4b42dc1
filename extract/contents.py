"""What a shard's HDF5 part may hold, and the refusal of everything else.

Whoever wrote a file may have meant harm: nothing in it is followed, and no type with a meaning of
its own (references, objects, variable length) is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..common.errors import InputError

DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
COLUMNS: dict[str, np.dtype] = {  # beside segment_id: fixed width, as the longest needs
    "duration": np.dtype("<f8"),
    "frames": np.dtype("<i8"),
    "audio_bytes": np.dtype("<i8"),
    "audio_crc32": np.dtype("<u4"),
}
KINDS = {  # dataset -> numpy kind: no object, reference or variable-length type gets through
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


def refuse_strange(path: Path, file: h5py.File) -> None:
    """Refuse all that a writer of ours never makes, before any of it is followed or read."""
    if set(file) != set(KINDS) or set(file.attrs) != set(ATTRIBUTES):
        raise damaged(path, f"datasets {sorted(file)} and attributes {sorted(file.attrs)}")
    for name in ATTRIBUTES:
        if file.attrs.get_id(name).dtype.kind != "S":
            raise damaged(path, f"attribute {name!r} of a type that is not text")
    for name, kind in KINDS.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise damaged(path, f"a link out of the file at {name!r}")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != kind:
            raise damaged(path, f"another type at {name!r}")
        if dataset.is_virtual or dataset.external or dataset.chunks:
            raise damaged(path, f"virtual, external or chunked storage at {name!r}")
        if (
            dataset.id.get_storage_size() != dataset.nbytes
            or dataset.nbytes > file.id.get_filesize()
        ):
            raise damaged(path, f"storage that is not allocated at {name!r}")


def refuse_shapes(path: Path, shape: tuple[int, ...], small: Mapping[str, np.ndarray]) -> None:
    """Refuse datasets of other lengths than the number of segments asks for."""
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
        raise damaged(path, "datasets whose shapes do not fit each other")


def mapping(described: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an entry that is a JSON object, or raise `TypeError`: whoever wrote it may lie."""
    if not isinstance(described[key], dict):
        raise TypeError(f"{key} is no JSON object")
    return described[key]


def text_of(value: object) -> str:
    """Return a text that can be written again, or raise `TypeError` or `ValueError`."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    value.encode()  # a lone surrogate, which JSON can spell, cannot be written again
    return value


def damaged(path: Path, found: str) -> InputError:
    """Return what a user is told of a shard, or a packed store, that is not as it was written."""
    if path.parent.name == "shards":
        return InputError(f"{path}: the file holds {found}, expected a shard as written; {REPAIR}")
    return InputError(
        f"{path}: the file holds {found}, expected a packed store as written; name the folder of "
        "the store, or pack it again with spk-store pack"
    )
