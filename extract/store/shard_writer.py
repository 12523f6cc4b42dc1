"""Rows become shards: they wait in one buffer that is used again and again, checked and summed.

A shard is written under a temporary name, and is on disk when `publish` is called with it: only
the process that holds the store's lock gives it its own name (`writer`). So a process whose parent
was killed can write what it likes: no reader and no other writer will ever take it for a shard.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import InputError
from ...common.files import WRITING, synced_file
from .layout import fingerprint, normalize_config
from .shard import COLUMNS, DTYPES, checksums, shard_parts

FLOAT16_MAX = 65504
COMMIT_BYTES = 1 << 28  # a commit is built in memory, and rows of frames are large
ROOM = 257  # rows of the buffer at first; odd, or all layers would share a few lines of the cache

# Copies the second array into the first, of another format; returns the largest magnitude
Convert = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class UnnamedShard:
    """A shard that is on disk but has no name yet."""

    temporary: str  # name in the folder of shards
    ending: str  # of its name, after the number: FINGERPRINT8-SHA256.h5
    segment_ids: tuple[str, ...]  # that have features in it
    rejections: dict[str, dict[str, str]]  # segment_id -> segment_id, code, message

    @property
    def rejected(self) -> dict[str, str]:
        """Id -> code of the segments that it rejects."""
        return {segment_id: row["code"] for segment_id, row in self.rejections.items()}


@dataclass(frozen=True)
class _Row:
    """One segment that waits for the next commit."""

    stop: int  # end of its rows in the buffer
    columns: tuple[float, ...]  # in the order of COLUMNS
    crc32: list[int]  # of each layer


@dataclass
class _Pending:
    """What waits for the next commit; replaced as a whole, so that no interrupt comes between."""

    rows: dict[str, _Row] = field(default_factory=dict)
    rejections: dict[str, dict[str, str]] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.rows) + len(self.rejections)

    @property
    def used(self) -> int:
        """Rows of the buffer that are in use."""
        return next(reversed(self.rows.values())).stop if self.rows else 0


def assign(target: np.ndarray, values: np.ndarray) -> float:
    """Copy an array into one of another number format; return the largest magnitude, or NaN."""
    np.copyto(target, values, casting="unsafe")
    return max(float(values.max()), -float(values.min()))  # both are NaN where one number is


class ShardWriter:
    """Collects rows and rejections and writes them as shards.

    Rows wait in memory until `commit_rows` rows (segments) or `commit_seconds` have come, or 256
    MB; then they become one shard. Rows added within `one_commit` come into the same one.

    Parameters
    ----------
    publish
        Takes each shard when it is on disk.
    convert
        Copies float32 features into an array of the stored format.

    Attributes
    ----------
    done
        Ids whose features were published.
    rejections
        Id -> `segment_id`, `code`, `message` of published rejections without features.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        publish: Callable[[UnnamedShard], None],
        *,
        versions: Mapping[str, Any] | None = None,
        commit_rows: int = 256,
        commit_seconds: float = 60.0,
        convert: Convert = assign,
    ) -> None:
        self.path = Path(path)
        self.config = normalize_config(config, str(path))
        self.versions = dict(versions or {})
        self.done: set[str] = set()
        self.rejections: dict[str, dict[str, str]] = {}
        self._publish, self._convert = publish, convert
        self._commit_rows, self._commit_seconds = commit_rows, commit_seconds
        self._dtype = DTYPES[self.config["dtype"]]
        self._buffer = np.empty(self._shape(0), self._dtype)
        self._pending = _Pending()
        self._together = False

    @property
    def rejected(self) -> dict[str, str]:
        """Id -> code of published rejections without features."""
        return {segment_id: row["code"] for segment_id, row in self.rejections.items()}

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
        self._check_new(segment_id)
        stored = self._to_stored_dtype(segment_id, np.asarray(features))
        self._start_clock()
        stop = self._pending.used + stored.shape[1]
        columns = (duration, frames, audio_bytes, audio_crc32)
        self._pending.rows[segment_id] = _Row(stop, columns, checksums(stored))
        self._pending.rejections.pop(segment_id, None)
        self._commit_if_due()

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """Let no commit come between the rows added while this is open, such as a batch's."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
        self._commit_if_due()

    def reject(self, segment_id: str, code: str, message: str) -> None:
        """Record that a segment has no features and why; features that come later supersede it."""
        self._check_new(segment_id)
        self._start_clock()
        row = {"segment_id": segment_id, "code": code, "message": message}
        self._pending.rejections[segment_id] = row
        self._commit_if_due()

    def commit(self) -> None:
        """Write what waits as one shard; it is on disk when this returns. No-op when nothing waits.

        Raises
        ------
        InputError
            The disk is full; what waits is kept, and `commit` may be called again.
        """
        if not self._pending:
            return
        temporary = self.path / "shards" / f"{WRITING}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            shard = self._written(temporary)
            self._publish(shard)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # in this order Ctrl-C between any two lines costs no row and doubles none: the same rows
        # with the same number give the same name and bytes
        self._note(shard)
        self._clear()

    def _note(self, shard: UnnamedShard) -> None:
        self.done.update(shard.segment_ids)
        self.rejections.update(shard.rejections)
        for segment_id in shard.segment_ids:
            self.rejections.pop(segment_id, None)

    def _clear(self) -> None:
        self._pending = _Pending()

    def _written(self, temporary: Path) -> UnnamedShard:
        """Write what waits; the SHA-256 is computed while the disk is at work."""
        parts = self._parts()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="sha256") as pool,
            synced_file(temporary, sum(map(len, parts))) as file,
        ):
            digest = pool.submit(_sha256, parts)
            file.writelines(parts)
        return UnnamedShard(
            temporary.name,
            f"{fingerprint(self.config)[:8]}-{digest.result()}.h5",
            tuple(self._pending.rows),
            dict(self._pending.rejections),
        )

    def _parts(self) -> list[memoryview | bytes]:
        pending = self._pending
        rows = pending.rows.values()
        columns: dict[str, Any] = {
            name: [row.columns[place] for row in rows] for place, name in enumerate(COLUMNS)
        }
        return shard_parts(
            self._buffer[:, : pending.used],
            np.array([0, *(row.stop for row in rows)]),
            {"segment_id": list(pending.rows), **columns},
            list(pending.rejections.values()),
            {
                "fingerprint": fingerprint(self.config),
                "configuration": self.config,
                "versions": self.versions,
            },
            np.array([row.crc32 for row in rows], "<u4").reshape(-1, len(self.config["layers"])),
        )

    def _to_stored_dtype(self, segment_id: str, features: np.ndarray) -> np.ndarray:
        """Return checked features as they stand in the buffer: (layers, rows, dim)."""
        self._check_shape(segment_id, features)
        pooled = self.config["kind"] == "pooled"
        by_layer = features[:, None] if pooled else features.swapaxes(0, 1)
        first = self._pending.used
        stop = first + by_layer.shape[1]
        if stop > self._buffer.shape[1]:
            larger = np.empty(self._shape(max(ROOM, 2 * stop + 1)), self._dtype)
            larger[:, :first] = self._buffer[:, :first]
            self._buffer = larger
        stored = self._buffer[:, first:stop]
        with np.errstate(over="ignore"):  # it is refused below
            largest = self._convert(stored, by_layer)
        self._check_size(segment_id, features, largest)
        return stored

    def _shape(self, rows: int) -> tuple[int, int, int]:
        return len(self.config["layers"]), rows, self.config["dim"]

    def _check_shape(self, segment_id: str, features: np.ndarray) -> None:
        pooled = self.config["kind"] == "pooled"
        shape = (len(self.config["layers"]), self.config["dim"])
        if (features.shape if pooled else features.shape[1:]) != shape or not features.size:
            expected = shape if pooled else ("frames", *shape)
            raise InputError(
                f"{self._where(segment_id)} have shape {features.shape}, expected {expected}; "
                "correct it"
            )

    def _check_size(self, segment_id: str, features: np.ndarray, largest: float) -> None:
        if not np.isfinite(largest):
            wrong = int((~np.isfinite(features)).sum())
            exact = self.config.get("compute_dtype", "float32") == "float32"
            other = "" if exact else "pass --dtype float32 and name another store, or "
            raise InputError(
                f"{self._where(segment_id)} hold {wrong} values that are not finite, expected "
                f"numbers; {other}take the segment out of the table"
            )
        if self.config["dtype"] == "float16" and largest > FLOAT16_MAX:
            raise InputError(
                f"{self._where(segment_id)} reach {largest:g}, expected at most {FLOAT16_MAX} in "
                "float16; pass --store-dtype float32 and name another store"
            )

    def _where(self, segment_id: str) -> str:
        return f"{self.path}: features of {segment_id!r}"

    def _check_new(self, segment_id: str) -> None:
        if not segment_id or "\0" in segment_id:
            raise InputError(
                f"{self.path}: segment_id is {segment_id!r}, expected text; correct it"
            )
        if segment_id in self.done or segment_id in self._pending.rows:
            raise self._doubled(segment_id)

    def _doubled(self, segment_id: str) -> InputError:
        return InputError(
            f"{self.path}: {segment_id!r} has features already, expected a new segment_id; "
            "leave it out"
        )

    def _start_clock(self) -> None:
        if not self._pending:
            self._pending = _Pending()

    def _commit_if_due(self) -> None:
        if self._together:
            return
        pending = self._pending
        late = time.monotonic() - pending.since >= self._commit_seconds
        size = pending.used * int(np.prod(self._shape(1))) * self._dtype.itemsize
        if late or len(pending) >= self._commit_rows or size >= COMMIT_BYTES:
            self.commit()


def _sha256(parts: Sequence[memoryview | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
