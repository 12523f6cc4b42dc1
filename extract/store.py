"""The cache of features: one writes, many read, and a kill at any moment loses no committed row.

The files are described in `layout` and `shard`. A commit is one rename; what was not committed is
extracted again. A packed store is one shard file with the rows of all; it is read like a folder and
cannot be written to.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..common.errors import InputError
from .durable import whole_file
from .layout import fingerprint, normal_config, sequence, take_folder
from .reader import FeatureStore
from .shard import COLUMNS, DTYPES, shard_parts

__all__ = ["FeatureStore", "StoreWriter"]

FLOAT16_MAX = 65504
COMMIT_BYTES = 1 << 28  # a commit is built in memory, and rows of frames are large


@dataclass(frozen=True)
class _Row:
    """One segment that waits for the next commit."""

    features: np.ndarray  # (layers, rows, dim), stored dtype
    columns: tuple[float, ...]  # in the order of COLUMNS


class StoreWriter:
    """The one writer of a store folder, a context manager.

    Rows wait in memory until `commit_rows` rows (segments) or `commit_seconds` have come, or 256
    MB; then they become one shard. Rows added `together` come into the same one. On leaving the
    context what waits is committed, also after an exception or Ctrl-C: each row was finished and
    checked when it was added.

    Attributes
    ----------
    done
        Ids with committed features.
    durations
        Id -> length (s) of the segments that had features when the writer opened the store.
    rejected
        Id -> code of committed rejections without features.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        versions: Mapping[str, Any] | None = None,
        commit_rows: int = 256,
        commit_seconds: float = 60.0,
    ) -> None:
        self.path = Path(path)
        self.config = normal_config(config, str(path))
        self.versions = dict(versions or {})
        self._commit_rows, self._commit_seconds = commit_rows, commit_seconds
        self._rows: dict[str, _Row] = {}
        self._rejections: dict[str, dict[str, str]] = {}
        self._bytes = 0
        self._since = 0.0
        self._together = False
        self._lock = take_folder(self.path, self.config, self.versions)
        try:
            store = FeatureStore.open(self.path)
        except BaseException:
            self._lock.release()
            raise
        self.config = store.config  # of the same features: names and records stay as they are
        rows = store.rows()
        self.durations = dict(
            zip(rows["segment_id"].tolist(), rows["duration"].tolist(), strict=True)
        )
        self.done: set[str] = set(self.durations)
        self.rejected = {row["segment_id"]: row["code"] for row in store.rejected()}
        self._sequence = max((sequence(shard.path.name) for shard in store.shards), default=-1) + 1

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(
        self,
        segment_id: str,
        features: np.ndarray,
        *,
        duration: float,
        frames: int,
        audio_bytes: int,
        audio_crc32: int,
    ) -> None:
        """Add the features of one segment; commits by itself when enough wait.

        Parameters
        ----------
        features
            (layers, dim) when pooled, (frames, layers, dim) when not; finite.
        duration
            Length of the segment in s.
        frames
            Number of frames that were pooled or are given.
        audio_bytes, audio_crc32
            Identity of the decoded samples, before normalisation: `size` and `crc32` of
            `audio.Audio`.

        Raises
        ------
        InputError
            The id has features, or the features have another shape, are not finite, or overflow.
        """
        self._refuse_known(segment_id)
        stored = self._stored(segment_id, np.asarray(features))
        row = _Row(stored, (duration, frames, audio_bytes, audio_crc32))
        self._start_clock()
        self._rows[segment_id] = row
        self._bytes += stored.nbytes
        self._rejections.pop(segment_id, None)
        self._commit_if_due()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let no commit come between the rows added while this is open, such as a batch's."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
        self._commit_if_due()

    def reject(self, segment_id: str, code: str, message: str) -> None:
        """Record that a segment has no features and why; features that come later supersede it."""
        self._refuse_known(segment_id)
        self._start_clock()
        row = {"segment_id": segment_id, "code": code, "message": message}
        self._rejections[segment_id] = row
        self._commit_if_due()

    def commit(self) -> None:
        """Write what waits as one shard; it is on disk when this returns. No-op when nothing waits.

        Raises
        ------
        InputError
            The disk is full; what waits is kept, and `commit` may be called again.
        """
        if not self._rows and not self._rejections:
            return
        parts = self._parts()
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        mark = fingerprint(self.config)[:8]
        name = f"{self._sequence:06d}-{mark}-{digest.hexdigest()}.h5"
        with whole_file(self.path / "shards" / name, sum(map(len, parts))) as file:
            file.writelines(parts)
        # in this order Ctrl-C between any two lines costs no row and doubles none: the same rows
        # with the same number give the same name and bytes
        self.done.update(self._rows)
        self.rejected.update({row["segment_id"]: row["code"] for row in self._rejections.values()})
        for segment_id in self._rows:
            self.rejected.pop(segment_id, None)
        self._rows = {}
        self._rejections = {}
        self._bytes = 0
        self._sequence += 1

    def close(self) -> None:
        """Commit what waits and let the next writer in; a second call does nothing."""
        try:
            self.commit()
        finally:
            self._rows, self._rejections = {}, {}
            self._lock.release()

    def _parts(self) -> tuple[memoryview, memoryview, bytes]:
        layers, dim = len(self.config["layers"]), self.config["dim"]
        parts = [row.features for row in self._rows.values()]
        empty = np.empty((layers, 0, dim), dtype=DTYPES[self.config["dtype"]])
        table = zip(*(row.columns for row in self._rows.values()), strict=True)
        columns = dict(zip(COLUMNS, table, strict=True)) if parts else dict.fromkeys(COLUMNS, ())
        return shard_parts(
            np.concatenate(parts, axis=1) if parts else empty,
            np.cumsum([0, *(part.shape[1] for part in parts)]),
            {"segment_id": list(self._rows), **columns},
            list(self._rejections.values()),
            {
                "fingerprint": fingerprint(self.config),
                "configuration": self.config,
                "versions": self.versions,
            },
        )

    def _stored(self, segment_id: str, features: np.ndarray) -> np.ndarray:
        """Return checked features as (layers, rows, dim) in the stored dtype."""
        pooled = self.config["kind"] == "pooled"
        shape = (len(self.config["layers"]), self.config["dim"])
        found = features.shape if pooled else features.shape[1:]
        where = f"{self.path}: features of {segment_id!r}"
        if found != shape or not features.size:
            expected = shape if pooled else ("frames", *shape)
            raise InputError(
                f"{where} have shape {features.shape}, expected {expected}; correct it"
            )
        largest = float(np.abs(features).max())
        if not np.isfinite(largest):
            wrong = int((~np.isfinite(features)).sum())
            exact = self.config.get("compute_dtype", "float32") == "float32"
            other = "" if exact else "pass --dtype float32 and name another store, or "
            raise InputError(
                f"{where} hold {wrong} values that are not finite, expected numbers; {other}take "
                "the segment out of the table"
            )
        if self.config["dtype"] == "float16" and largest > FLOAT16_MAX:
            raise InputError(
                f"{where} reach {largest:g}, expected at most {FLOAT16_MAX} in float16; "
                "pass --store-dtype float32 and name another store"
            )
        stored = features.astype(DTYPES[self.config["dtype"]])
        return np.ascontiguousarray(stored[:, None] if pooled else stored.swapaxes(0, 1))

    def _refuse_known(self, segment_id: str) -> None:
        if not self._lock.held:
            raise ValueError(f"{self.path}: the writer is closed")  # a bug of the caller
        if not segment_id or "\0" in segment_id:
            raise InputError(
                f"{self.path}: segment_id is {segment_id!r}, expected text; correct it"
            )
        if segment_id in self.done or segment_id in self._rows:
            raise InputError(
                f"{self.path}: {segment_id!r} has features already, expected a new segment_id; "
                "leave it out"
            )

    def _start_clock(self) -> None:
        if not self._rows and not self._rejections:
            self._since = time.monotonic()

    def _commit_if_due(self) -> None:
        if self._together:
            return
        waiting = len(self._rows) + len(self._rejections)
        late = time.monotonic() - self._since >= self._commit_seconds
        if late or waiting >= self._commit_rows or self._bytes >= COMMIT_BYTES:
            self.commit()
