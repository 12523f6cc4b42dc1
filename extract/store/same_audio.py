"""Find stored features by their audio samples, whatever their segment is called.

If a speaker is renamed, the segment gets another id; two labels on one span have two ids. The
samples, and so the features, are the same. Samples are the same if their number, CRC-32 and digest
are equal: file and speaker names do not count, so audio that changed under its old name is not
found, and neither is a span shifted by one sample.

Rows from before digests were recorded are found only if the span at the end of their `segment_id`
(`manifests.table.segment_id`) is also the same. Imported vectors, whose samples are unknown, are
not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...manifests.table import id_names
from .reader import FeatureStore

if TYPE_CHECKING:
    from ..audio import Audio


class AudioIndex:
    """The rows of an open store, indexed by their segments' samples."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        rows = store.rows()
        self._ids, self._frames = rows["segment_id"], rows["frames"]
        self._samples = rows["audio_bytes"], rows["audio_crc32"]
        self._order = np.argsort(rows["audio_digest"], kind="stable")
        self._digests = rows["audio_digest"][self._order]
        self._by_span: dict[tuple[int, int, str], int] = {}
        for place in np.flatnonzero((rows["audio_digest"] == 0) & (rows["audio_bytes"] > 0)):
            if span := _span_of(str(self._ids[place])):
                key = int(self._samples[0][place]), int(self._samples[1][place]), span
                self._by_span.setdefault(key, int(place))

    def find(self, segment_id: str, audio: Audio) -> int | None:
        """Return the index of a row with features of the segment's samples, or None."""
        digest, (sizes, sums) = np.uint64(audio.digest), self._samples
        first, stop = (np.searchsorted(self._digests, digest, side) for side in ("left", "right"))
        for place in self._order[first:stop]:
            if (sizes[place], sums[place]) == (audio.nbytes, audio.crc32):
                return int(place)
        return self._by_span.get((audio.nbytes, audio.crc32, _span_of(segment_id)))

    def read(self, places: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Return the features and frames of rows, as `StoreWriter.add` takes them, checked."""
        ids = self._ids[list(places)].tolist()
        frames = self._frames[list(places)].tolist()
        if self._store.kind == "pooled":
            return list(zip(self._store.read(ids), frames, strict=True))
        layers = self._store.layers
        features = [np.stack([self._store.read_frames(i, n) for n in layers], axis=1) for i in ids]
        return list(zip(features, frames, strict=True))


def _span_of(segment_id: str) -> str:
    """Return the part of a `manifests.table.segment_id` that names no speaker, or ""."""
    names = id_names(segment_id)
    return segment_id.removeprefix(names) if names else ""
