"""Collect rows in a reusable buffer, check them, and write them as shards.

A shard is written under a temporary name, and is on disk when `publish` is called with it; only the
process that holds the store's lock gives it its final name (`writer`). A worker whose parent was
killed can therefore do no harm: no reader or other writer takes its files for shards.
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

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import WRITING, synced_file
from .layout import fingerprint, normalize_config
from .shard import COLUMNS, DTYPES, checksums, shard_parts

FLOAT16_MAX = 65504
COMMIT_BYTES = 1 << 28  # a commit is built in memory, and frame-level rows are large
ROOM = 257  # initial rows of the buffer; odd, so that layers do not compete for cache lines

# Copies the second array into the first, of another dtype; returns the largest magnitude
Convert = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class UnnamedShard:
    """A shard that is on disk but does not have its final name yet."""

    temporary: str  # name in the folder of shards
    ending: str  # its final name after the sequence number: FINGERPRINT8-SHA256.h5
    segment_ids: tuple[str, ...]  # segments with features in it
    rejections: dict[str, dict[str, str]]  # segment_id -> segment_id, code, message

    @property
    def rejected(self) -> dict[str, str]:
        """Id -> code of the segments that it rejects."""
        return {segment_id: row["code"] for segment_id, row in self.rejections.items()}


@dataclass(frozen=True)
class _Row:
    """A segment waiting for the next commit."""

    stop: int  # end of its rows in the buffer
    columns: tuple[float, ...]  # in the order of COLUMNS
    crc32: list[int]  # of each layer


@dataclass
class _Pending:
    """Rows waiting for the next commit; replaced in one step, so that interrupts do no harm."""

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
    """Copy an array into one of another dtype; return the largest magnitude, or NaN."""
    np.copyto(target, values, casting="unsafe")
    return max(float(values.max()), -float(values.min()))  # NaN if any value is


class ShardWriter:
    """Collects rows and rejections and writes them as shards.

    Rows wait in memory until there are `commit_rows` segments or 256 MB of them, or
    `commit_seconds` have passed; then they become one shard. Rows added within `one_commit` end up
    in the same shard.

    Parameters
    ----------
    publish
        Called with each shard once it is on disk.
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
        audio_digest: int = 0,
    ) -> None:
        """Add the features of one segment; commits when enough are waiting.

        Parameters
        ----------
        features
            (layers, dim) when pooled, (frames, layers, dim) when not; finite.
        duration
            Length of the segment in s.
        frames
            Number of frames that were pooled, or of frames given.
        audio_bytes, audio_crc32, audio_digest
            Identity of the decoded samples, before normalisation: `nbytes`, `crc32` and `digest` of
            `audio.Audio`. With a digest of 0, unknown, no other segment shares the features.

        Raises
        ------
        InputError
            The id already has features, or the features have the wrong shape, are not finite, or
            overflow.
        """
        self._check_new(segment_id)
        stored = self._to_stored_dtype(segment_id, np.asarray(features))
        self._start_clock()
        stop = self._pending.used + stored.shape[1]
        columns = (duration, frames, audio_bytes, audio_crc32, audio_digest)
        self._pending.rows[segment_id] = _Row(stop, columns, checksums(stored))
        self._pending.rejections.pop(segment_id, None)
        self._commit_if_due()

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """Put all rows added within this context, such as a batch's, into the same commit."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
        self._commit_if_due()

    def reject(self, segment_id: str, code: str, message: str) -> None:
        """Record why a segment has no features; features added later supersede this."""
        self._check_new(segment_id)
        self._start_clock()
        row = {"segment_id": segment_id, "code": code, "message": message}
        self._pending.rejections[segment_id] = row
        self._commit_if_due()

    def commit(self) -> None:
        """Write waiting rows as one shard, on disk when this returns. No-op if there are none.

        Raises
        ------
        InputError
            The disk is full; the rows are kept, and `commit` may be called again.
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
        # In this order, Ctrl-C between any two lines neither loses nor duplicates a row: the same
        # rows with the same number yield the same name and bytes.
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
        """Write waiting rows, computing the SHA-256 while the disk is busy."""
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
        """Copy checked features into the buffer; return that part of it, (layers, rows, dim)."""
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
        with np.errstate(over="ignore"):  # overflow is refused below
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
                f"{self._where(segment_id)} hold {counted(wrong, 'value')} not finite, expected "
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
