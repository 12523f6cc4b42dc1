"""Write a feature store: one writer, many readers; a kill never loses a committed row.

The files are described in `layout` and `shard`. A commit is a single rename; rows that were not
committed are extracted again. A packed store is a single shard file with all rows; it is read like
a folder and is read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ...common.files import publish, remove_temporary_files
from .layout import open_for_writing, shard_number
from .reader import FeatureStore
from .shard_writer import Convert, ShardWriter, UnnamedShard, assign


class StoreWriter(ShardWriter):
    """The single writer of a store folder, a context manager.

    It alone gives shards their final names: its own shards, and those written by its worker
    processes (`publish`). Leaving the context commits waiting rows, even after an exception or
    Ctrl-C, since each row was complete and checked when added. Without `lock`, no other process may
    write there.

    Attributes
    ----------
    done
        Ids with committed features.
    durations
        Id -> length (s) of segments that already had features when the writer was opened.
    rejections
        Id -> `segment_id`, `code`, `message` of committed rejections without features.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        versions: Mapping[str, Any] | None = None,
        commit_rows: int = 256,
        commit_seconds: float = 60.0,
        convert: Convert = assign,
        lock: bool = True,
    ) -> None:
        super().__init__(
            path,
            config,
            self._give_name,
            versions=versions,
            commit_rows=commit_rows,
            commit_seconds=commit_seconds,
            convert=convert,
        )
        self._lock = open_for_writing(self.path, self.config, self.versions, lock=lock)
        try:
            store = FeatureStore.open(self.path)
        except BaseException:
            self._lock.release()
            raise
        self.config = store.config  # compatible, but recorded names stay as they were
        rows = store.rows()
        self.durations = dict(
            zip(rows["segment_id"].tolist(), rows["duration"].tolist(), strict=True)
        )
        self.done = set(self.durations)
        self.rejections = {row["segment_id"]: row for row in store.rejected()}
        self._sequence = (
            max((shard_number(shard.path.name) for shard in store.shards), default=-1) + 1
        )

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def publish(self, shard: UnnamedShard) -> None:
        """Commit a shard that a worker process of this run has written to disk.

        Raises
        ------
        InputError
            One of its segments already has features, or it cannot be renamed.
        """
        doubled = self.done.intersection(shard.segment_ids)
        if doubled:
            raise self._doubled(min(doubled))
        self._give_name(shard)
        self._note(shard)
        self._sequence += 1

    def close(self) -> None:
        """Commit waiting rows and release the lock; a second call does nothing."""
        try:
            self.commit()
        finally:
            super()._clear()
            if self._lock.held:  # otherwise they may be the next writer's
                with suppress(OSError):
                    remove_temporary_files(self.path / "shards")
            self._lock.release()

    def _give_name(self, shard: UnnamedShard) -> None:
        folder = self.path / "shards"
        publish(folder / shard.temporary, folder / f"{self._sequence:06d}-{shard.ending}")

    def _clear(self) -> None:
        super()._clear()
        self._sequence += 1

    def _check_new(self, segment_id: str) -> None:
        if not self._lock.held:
            raise ValueError(f"{self.path}: the writer is closed")  # a bug in the caller
        super()._check_new(segment_id)
