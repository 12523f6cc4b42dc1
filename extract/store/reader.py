"""Read a store: a folder, even while it is being written, or a packed file.

A reader sees what was committed when the store was opened. Features are read without HDF5, so a
store keeps no file open, can be pickled, and can be read by several threads or processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from .layout import (
    check_same_config,
    check_store_file,
    fingerprint,
    normalize_config,
    read_description,
    shard_paths,
)
from .shard import COLUMNS, DTYPES, Shard, read_layer, read_shard


class FeatureStore:
    """A store opened for reading, as it was when opened.

    Attributes
    ----------
    config, fingerprint, versions
        As in ``store.json``.
    kind
        "pooled" (one vector per segment and layer) or "frames" (one per frame).
    layers
        Numbers of the layers, ascending.
    dim
        Length of a vector.
    shards
        The checked shards, in commit order.
    """

    def __repr__(self) -> str:
        """Return what the store is, in one line."""
        return (
            f"<FeatureStore {self.path}: {counted(len(self), 'segment')}, "
            f"{counted(len(self.layers), 'layer')}>"
        )

    def __init__(self, path: Path, described: Mapping[str, Any], shards: list[Shard]) -> None:
        self.path = path
        self.config = normalize_config(described["configuration"], str(path))
        self.fingerprint: str = described["fingerprint"]
        self.versions: dict[str, Any] = described["versions"]
        self.kind: str = self.config["kind"]
        self.layers: list[int] = self.config["layers"]
        self.dim: int = self.config["dim"]
        self.shards = shards
        for shard in shards:
            _check_shard(self, shard)
        self._starts = np.cumsum([0, *(len(shard.crc32) for shard in shards)])
        self._place = {str(name): place for place, name in enumerate(self.ids())}
        if len(self._place) != self._starts[-1]:
            raise InputError(_duplicates(self))

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a store folder, even while it is being written, or a packed file.

        Raises
        ------
        InputError
            There is no store, one of its files is damaged, or an id occurs twice.
        """
        path = Path(path)
        place = Path(os.path.abspath(path))  # valid in any working folder
        if path.is_file():
            check_store_file(path)
            shard = read_shard(place)
            return cls(path, shard.attributes, [shard])
        described = read_description(path)
        return cls(path, described, [read_shard(name) for name in shard_paths(place)])

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, segment_id: object) -> bool:
        return segment_id in self._place

    def ids(self) -> np.ndarray:
        """Return the ids (n,) of the segments with features, in commit order."""
        return self._column("segment_id")

    def rows(self) -> dict[str, np.ndarray]:
        """Return `segment_id` and `shard.COLUMNS` (`duration` in s), each (n,), in commit order."""
        return {name: self._column(name) for name in ("segment_id", *COLUMNS)}

    def rejected(self) -> list[dict[str, str]]:
        """Return `segment_id`, `code`, `message` of segments that were rejected and stayed so."""
        latest = {row["segment_id"]: row for shard in self.shards for row in shard.rejected}
        return [row for segment_id, row in latest.items() if segment_id not in self._place]

    def read(self, ids: Iterable[str], layer: int | None = None) -> np.ndarray:
        """Read pooled features of one layer or of all, in the order asked for, checked.

        Parameters
        ----------
        ids
            Segment ids, such as ``table["segment_id"]``.
        layer
            One of `layers`; None: all of them.

        Returns
        -------
        ndarray
            (n, dim) float32; of all layers (n, layers, dim).

        Raises
        ------
        InputError
            An id has no features, the layer is not stored, the store is frame-level, or bytes have
            changed.

        Examples
        --------
        >>> store = FeatureStore.open("features")  # doctest: +SKIP
        >>> store.read(store.ids()).shape  # doctest: +SKIP
        (9589, 25, 2048)
        """
        self._check_kind("pooled", "read_frames")
        places = self._places([str(segment_id) for segment_id in ids])
        if layer is not None:
            return self._read_into(places, self._position(layer))
        features = np.empty((len(places), len(self.layers), self.dim), dtype=np.float32)
        for position in range(len(self.layers)):
            self._read_into(places, position, features[:, position])
        return features

    def _read_into(
        self, places: np.ndarray, position: int, features: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a layer's features (n, dim) float32, in `features` if given."""
        if features is None:
            features = np.empty((len(places), self.dim), dtype=np.float32)
        owner = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            segments = places[mine] - self._starts[number]
            features[mine] = read_layer(self.shards[number], position, segments)
        return features

    def read_frames(self, segment_id: str, layer: int) -> np.ndarray:
        """Read the frames of one segment at one layer: (frames, dim) float32, checked."""
        self._check_kind("frames", "read")
        place = self._places([segment_id])[0]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        segment = np.array([place - self._starts[number]])
        return read_layer(self.shards[number], self._position(layer), segment).astype(np.float32)

    def _column(self, name: str) -> np.ndarray:
        parts = [shard.columns[name] for shard in self.shards]
        return np.concatenate(parts) if parts else np.empty(0, COLUMNS.get(name, np.dtype("U1")))

    def _places(self, ids: list[str]) -> np.ndarray:
        missing = [segment_id for segment_id in ids if segment_id not in self._place]
        if missing:
            raise InputError(
                f"{self.path}: {counted(len(missing), 'segment', 'has', of=len(ids))} no features, "
                f"first {missing[0]!r}, expected all; run spk-extract on the same table"
            )
        return np.array([self._place[segment_id] for segment_id in ids], dtype=np.int64)

    def _position(self, layer: int) -> int:
        if layer not in self.layers:
            raise InputError(
                f"{self.path}: layer is {layer!r}, expected one of {self.layers}; "
                "ask for one of them or extract again with it"
            )
        return self.layers.index(layer)

    def _check_kind(self, kind: str, other: str) -> None:
        if self.kind != kind:
            raise InputError(
                f"{self.path}: the store's kind is {self.kind!r}, expected {kind!r}; "
                f"use {other} or extract another store"
            )


def _check_shard(store: FeatureStore, shard: Shard) -> None:
    config, actual = shard.attributes["configuration"], shard.attributes["fingerprint"]
    check_same_config(config, store.config, str(shard.path), "move the file elsewhere")
    if actual != fingerprint(config):
        raise InputError(
            f"{shard.path}: fingerprint is {actual!r}, expected {fingerprint(config)!r}; "
            "delete the file and run spk-extract again"
        )
    expected = (len(store.layers), store.dim, DTYPES[store.config["dtype"]])
    actual = (shard.shape[0], shard.shape[2], shard.dtype)
    if actual != expected:
        raise InputError(
            f"{shard.path}: layers, dim and dtype are {actual}, expected {expected}; "
            "delete the file and run spk-extract again"
        )


def _duplicates(store: FeatureStore) -> str:
    ids, counts = np.unique(store.ids(), return_counts=True)
    twice = ids[counts > 1]
    names = [shard.path.name for shard in store.shards if twice[0] in shard.columns["segment_id"]]
    return (
        f"{store.path}: {counted(len(twice), 'segment', 'has')} features twice, first "
        f"{str(twice[0])!r} in {names}, expected each id once; delete one of the shards"
    )
