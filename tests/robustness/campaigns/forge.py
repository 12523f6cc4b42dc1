"""Forge files as an attacker would: everything that can be checked is right, except one thing."""

import hashlib
from pathlib import Path

import h5py

from spk.extract.store.shard import trailer


def seal(path: Path) -> Path:
    """Give an HDF5 file a shard's trailer, and the name that belongs to its content."""
    with h5py.File(path, "r") as file:
        features = file.get("features")
        start, size = features.id.get_offset() or 0, features.id.get_storage_size()
    content = path.read_bytes()
    rest = hashlib.sha256(content[:start] + content[start + size :])
    content += trailer(start, size, rest)
    first, mark, _ = path.name.split("-")
    path.unlink()
    named = path.with_name(f"{first}-{mark}-{hashlib.sha256(content).hexdigest()}.h5")
    named.write_bytes(content)
    return named
