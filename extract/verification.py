"""Measure the cost of batching and of number formats (`--verify`) on segments of the user's table.

Each segment is encoded alone in float32 and in a batch as configured. For number formats other than
float32, a ridge classifier is fitted on both: within each session, segments in order of time are
cut into `BLOCKS` equal blocks, and each block is predicted by a classifier fitted on the others.
Segments, folds and penalty are the same for both formats, so only the difference of their
accuracies is meaningful. Training rows that overlap a held-out block in time are left out, and rows
of the split ``test`` are never used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ..common.counts import counted
from ..common.errors import InputError
from .audio import Audio, Segment
from .options import ExtractOptions
from .pipeline.batching import make_batches, read_batches
from .pipeline.runner import read_options

if TYPE_CHECKING:
    import pandas as pd

    from .encoder.encoder import Encoder


BATCH_TOLERANCE = 1e-5  # relative, in float32


def verify_batches(
    encoder: Encoder,
    segments: Sequence[Segment],
    layers: Sequence[int],
    options: ExtractOptions,
    log: Callable[[str], object] = lambda line: None,
    *,
    names: dict[str, tuple[str, str]] | None = None,
) -> float:
    """Compare random segments encoded in a batch with the same segments encoded alone.

    Parameters
    ----------
    encoder
        If it computes in a format other than float32, single segments are encoded by a float32
        copy, so that the difference is the cost of the format.
    options
        `verify` is the number of segments; they are not sorted by length, so they have more padding
        than in a run. For accuracies they are drawn session by session, so that few suffice.
    log
        Receives the cost of a format other than float32, a line per layer.
    names
        segment_id -> (session, speaker) of the segments to compare accuracies on.

    Returns
    -------
    float
        The largest difference of a layer's vector (mean and std), relative to its norm; inf where
        one is not finite.

    Raises
    ------
    InputError
        The difference is above `BATCH_TOLERANCE` in float32, or no segment is usable.
    """
    exact = encoder.provenance()["compute_dtype"] == "float32"
    alone = encoder if exact else _in_float32(options, encoder.device)
    picked = sample_segments(segments, options.verify, None if exact else names)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    used: list[Segment] = []
    batches = make_batches(picked, options.batch_seconds or encoder.batch_seconds)
    for read in read_batches(batches, read_options(encoder, options), workers=0):
        waveforms = [audio.samples for _, audio in read if isinstance(audio, Audio)]
        used += [segment for segment, audio in read if isinstance(audio, Audio)]
        if waveforms:
            together = _vectors(encoder, waveforms, layers, options)
            single = [_vectors(alone, [waveform], layers, options)[0] for waveform in waveforms]
            pairs.append((together, np.stack(single)))
    if picked and not pairs:
        raise InputError(
            f"--verify: none of the {counted(len(picked), 'segment')} drawn can be used, expected "
            "one at least; pass a larger number"
        )
    if not pairs:
        return 0.0
    features, expected = (np.concatenate(side) for side in zip(*pairs, strict=True))
    largest = relative_difference(features, expected)
    if not exact:
        naming = None if names is None else PrecisionProbe(used, names)
        dtype = encoder.provenance()["compute_dtype"]
        for place, layer in enumerate(layers):
            log(f"layer {layer}: {_cost(features[:, place], expected[:, place], dtype, naming)}")
        if naming:
            log(naming.summary)
    if exact and largest > BATCH_TOLERANCE:
        raise InputError(
            f"--verify: features differ by {largest:.1e} between in a batch and alone, expected at "
            f"most {BATCH_TOLERANCE:.0e}; pass --batch-seconds 0.1, which encodes each alone"
        )
    return largest


def _cost(
    features: np.ndarray, expected: np.ndarray, dtype: str, naming: PrecisionProbe | None
) -> str:
    """Describe how a layer's vectors (n, dim) in a narrow format differ from those in float32."""
    broken = int((~(np.isfinite(features) & np.isfinite(expected)).all(axis=1)).sum())
    if broken:
        wider = "float32" if dtype == "bfloat16" else "bfloat16 (or float32)"
        return (
            f"{counted(broken, 'segment', 'is', of=len(features))} not finite in {dtype}, "
            f"expected numbers; pass --dtype {wider}"
        )
    errors = [relative_difference(a, b) for a, b in zip(features, expected, strict=True)]
    named = f"; {naming.compare(features, expected)}" if naming and naming.enough else ""
    return (
        f"relative error {np.median(errors):.1e} (median), {max(errors):.1e} (largest); "
        f"cosine {cosines(features, expected).min():.6f} (smallest){named}"
    )


def _in_float32(options: ExtractOptions, device: object) -> Encoder:
    from .encoder.encoder import load_encoder

    return load_encoder(
        options.encoder,
        revision=options.revision,
        normalize=options.normalize,
        device=str(device),
        dtype="float32",
    )


def _vectors(
    encoder: Encoder,
    waveforms: Sequence[np.ndarray],
    layers: Sequence[int],
    options: ExtractOptions,
) -> np.ndarray:
    return encoder.encode(waveforms, layers=layers, max_seconds=options.max_seconds)[0]


def relative_difference(features: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of vectors (..., dim), relative to the norm of the expected one.

    It is inf where either has a number that is not finite.
    """
    if not (np.isfinite(features).all() and np.isfinite(expected).all()):
        return math.inf
    wide = expected.astype(np.float64)
    distance = np.linalg.norm(features - wide, axis=-1)
    length = np.maximum(np.linalg.norm(wide, axis=-1), np.finfo(float).tiny)
    return float((distance / length).max())


def cosines(features: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the cosine similarity (n,) of pairs of vectors (n, dim)."""
    a, b = features.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.maximum(lengths, np.finfo(float).tiny)


BLOCKS = 3
FEWEST = 30  # predicted segments; with fewer, no accuracy is reported
NORMAL = 1.959964  # quantile of the normal distribution for a 95 % interval


def sample_segments(
    segments: Sequence[Segment], count: int, names: dict[str, tuple[str, str]] | None
) -> list[Segment]:
    """Return `count` random segments; with `names`, session by session for `PrecisionProbe`."""
    drawn = random.Random(0).sample(list(segments), len(segments))  # noqa: S311
    if names is None:
        return drawn[:count]
    by_session: dict[str, list[Segment]] = {}
    for segment in drawn:
        if segment.segment_id in names:
            by_session.setdefault(names[segment.segment_id][0], []).append(segment)
    others = [segment for segment in drawn if segment.segment_id not in names]
    return [*chain(*by_session.values()), *others][:count]


class PrecisionProbe:
    """Speaker classification of segments, to compare features in two number formats.

    Parameters
    ----------
    segments
        The segments with features, in the order of the rows.
    names
        segment_id -> (session, speaker); segments not in it are not used.

    Attributes
    ----------
    enough : bool
        Whether at least `FEWEST` segments can be predicted.
    summary : str
        One line on what is predicted, or why there is too little.
    """

    def __init__(self, segments: Sequence[Segment], names: dict[str, tuple[str, str]]) -> None:
        self._speakers = np.array([names.get(s.segment_id, ("", ""))[1] for s in segments])
        by_session: dict[str, list[int]] = {}
        for place, segment in enumerate(segments):
            if segment.segment_id in names:
                by_session.setdefault(names[segment.segment_id][0], []).append(place)
        table = _times(segments)
        self._folds = [
            fold
            for _, places in sorted(by_session.items())
            for fold in _folds(table, np.array(places), self._speakers)
        ]
        count = sum(len(test) for _, test in self._folds)
        self.enough = count >= FEWEST
        self.summary = (
            f"accuracy: {counted(count, 'segment', of=len(segments))} named by ridge within their "
            f"session, in {BLOCKS} blocks of time, without the split test; only the difference "
            "counts; intervals of 95 % take segments as independent"
        )
        if not self.enough:
            self.summary = (
                f"accuracy: {counted(count, 'segment', of=len(segments))} can be named, too few "
                f"to compare, expected at least {FEWEST} (outside the split test, in sessions "
                "with speakers in several blocks of time); pass a larger --verify"
            )

    def right(self, rows: np.ndarray) -> np.ndarray:
        """Return whether features (n, dim) predict each segment correctly, by fold: (m,) bool."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        correct = []
        for train, test in self._folds:
            model = make_pipeline(StandardScaler(), RidgeClassifier())
            model.fit(rows[train], self._speakers[train])
            correct.append(model.predict(rows[test]) == self._speakers[test])
        return np.concatenate(correct)

    def compare(self, features: np.ndarray, exact: np.ndarray) -> str:
        """Return in words the accuracies of a layer's features (n, dim) in two formats."""
        narrow, wide = self.right(features), self.right(exact)
        gap, low, high = paired_interval(narrow, wide)
        return (
            f"accuracy {narrow.mean():.3f}, in float32 {wide.mean():.3f} (difference {gap:+.3f}, "
            f"{low:+.3f} to {high:+.3f})"
        )


def paired_interval(first: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two paired proportions (n,) bool, and its 95 % interval.

    Source: Agresti and Min (2005), the Wald interval with half a pair added to each of four cells;
    it has a width even if no pair differs.
    """
    gains, losses = int((first & ~other).sum()) + 0.5, int((other & ~first).sum()) + 0.5
    count = len(first) + 2
    middle = (gains - losses) / count
    half = NORMAL * np.sqrt(gains + losses - (gains - losses) ** 2 / count) / count
    return float(first.mean() - other.mean()), middle - half, middle + half


def _times(segments: Sequence[Segment]) -> pd.DataFrame:
    """Return the columns `audio`, `start`, `end` (s) of the segments."""
    import pandas as pd

    return pd.DataFrame(
        [(segment.path, segment.start, segment.end) for segment in segments],
        columns=["audio", "start", "end"],
    )


def _folds(
    table: pd.DataFrame, places: np.ndarray, speakers: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows (train, test) of a session's blocks; speakers absent from train are not tested."""
    from ..manifests.splits.overlap import RECORDING, count_neighbours

    starts = table["start"].to_numpy()
    blocks = np.array_split(places[np.argsort(starts[places], kind="stable")], BLOCKS)
    for number, block in enumerate(blocks):
        tested, learnt = np.zeros((2, len(table)), dtype=bool)
        tested[block] = True
        learnt[np.concatenate(blocks[:number] + blocks[number + 1 :])] = True
        overlapping = count_neighbours(table, learnt, tested, by=RECORDING) > 0
        learnt[np.flatnonzero(learnt)[overlapping]] = False
        train = np.flatnonzero(learnt)
        test = block[np.isin(speakers[block], speakers[train])]
        if len(test) and len(set(speakers[train])) > 1:
            yield train, test
