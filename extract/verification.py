"""What batches and number formats cost: `--verify`, on segments of the user's own table.

Each segment is encoded alone in float32 and in a batch as asked. For another number format than
float32 a ridge classifier is fitted on both: within each session, segments in the order of time
are cut into `BLOCKS` equal runs, and each is predicted by a classifier fitted on the others. Only
the difference of the two formats is of interest: the same segments, folds and penalty serve both.
Training rows that overlap a held-out run in time are left out, and no row of the split ``test``
is looked at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

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
    """Compare random segments in a batch with the same ones alone.

    Parameters
    ----------
    encoder
        In another number format than float32 the ones alone are computed by a float32 copy, so
        that the difference is what the format costs.
    options
        `verify` says how many; they are not sorted, so their padding is longer than in a run.
        Where accuracy is compared they are drawn session after session, so that few are enough.
    log
        Is given what another format than float32 costs, a line for each layer.
    names
        segment_id -> (session, speaker) of those whose accuracy is to be compared too.

    Returns
    -------
    float
        The largest difference of a layer's vector (mean and std), relative to its length; inf
        where one is not finite.

    Raises
    ------
    InputError
        More than `BATCH_TOLERANCE` in float32, or none of the segments can be used.
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
            f"--verify: none of the {len(picked)} segments drawn can be used, expected one at "
            "least; pass a larger number"
        )
    if not pairs:
        return 0.0
    found, expected = (np.concatenate(side) for side in zip(*pairs, strict=True))
    largest = relative_difference(found, expected)
    if not exact:
        naming = None if names is None else PrecisionProbe(used, names)
        dtype = encoder.provenance()["compute_dtype"]
        for place, layer in enumerate(layers):
            log(f"layer {layer}: {_cost(found[:, place], expected[:, place], dtype, naming)}")
        if naming:
            log(naming.told)
    if exact and largest > BATCH_TOLERANCE:
        raise InputError(
            f"--verify: features differ by {largest:.1e} between in a batch and alone, expected at "
            f"most {BATCH_TOLERANCE:.0e}; pass --batch-seconds 0.1, which encodes each alone"
        )
    return largest


def _cost(
    found: np.ndarray, expected: np.ndarray, dtype: str, naming: PrecisionProbe | None
) -> str:
    """Return what a narrow format's vectors (n, dim) of a layer are beside float32's."""
    broken = int((~(np.isfinite(found) & np.isfinite(expected)).all(axis=1)).sum())
    if broken:
        wider = "float32" if dtype == "bfloat16" else "bfloat16 (or float32)"
        return (
            f"{broken} of {len(found)} segments are not finite in {dtype}, expected numbers; "
            f"pass --dtype {wider}"
        )
    errors = [relative_difference(a, b) for a, b in zip(found, expected, strict=True)]
    named = f"; {naming.compare(found, expected)}" if naming and naming.enough else ""
    return (
        f"relative error {np.median(errors):.1e} (median), {max(errors):.1e} (largest); "
        f"cosine {cosines(found, expected).min():.6f} (smallest){named}"
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


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of vectors (..., dim), relative to the expected one's length.

    It is inf where a number of either is not finite.
    """
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf
    wide = expected.astype(np.float64)
    distance = np.linalg.norm(found - wide, axis=-1)
    length = np.maximum(np.linalg.norm(wide, axis=-1), np.finfo(float).tiny)
    return float((distance / length).max())


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between vectors (n, dim), pair by pair: (n,)."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.maximum(lengths, np.finfo(float).tiny)


BLOCKS = 3
FEWEST = 30  # segments named, below which nothing is told
NORMAL = 1.959964  # quantile of the normal distribution for an interval of 95 %


def sample_segments(
    segments: Sequence[Segment], count: int, names: dict[str, tuple[str, str]] | None
) -> list[Segment]:
    """Return so many random segments; with `names` session after session, for `PrecisionProbe`."""
    drawn = random.Random(0).sample(list(segments), len(segments))  # noqa: S311
    if names is None:
        return drawn[:count]
    by_session: dict[str, list[Segment]] = {}
    for one in drawn:
        if one.segment_id in names:
            by_session.setdefault(names[one.segment_id][0], []).append(one)
    others = [one for one in drawn if one.segment_id not in names]
    return [*chain(*by_session.values()), *others][:count]


class PrecisionProbe:
    """Segments with their sessions and speakers, ready to be named from features.

    Parameters
    ----------
    segments
        Those that have features, in the order of the rows.
    names
        segment_id -> (session, speaker); a segment that is not there is not named.

    Attributes
    ----------
    told
        What was named, or why too little can be, in one line.
    """

    def __init__(self, segments: Sequence[Segment], names: dict[str, tuple[str, str]]) -> None:
        self._speakers = np.array([names.get(one.segment_id, ("", ""))[1] for one in segments])
        by_session: dict[str, list[int]] = {}
        for place, one in enumerate(segments):
            if one.segment_id in names:
                by_session.setdefault(names[one.segment_id][0], []).append(place)
        table = _times(segments)
        self._folds = [
            fold
            for _, places in sorted(by_session.items())
            for fold in _folds(table, np.array(places), self._speakers)
        ]
        count = sum(len(test) for _, test in self._folds)
        self.enough = count >= FEWEST
        self.told = (
            f"accuracy: {count} of {len(segments)} segments named by ridge within their session, "
            f"in {BLOCKS} blocks of time, without the split test; only the difference counts; "
            "intervals of 95 % take segments as independent"
        )
        if not self.enough:
            self.told = (
                f"accuracy: {count} of {len(segments)} segments can be named, too few to compare, "
                f"expected at least {FEWEST} (outside the split test, in sessions with speakers in "
                "several blocks of time); "
                "pass a larger --verify"
            )

    def right(self, rows: np.ndarray) -> np.ndarray:
        """Return which segments features (n, dim) name rightly, fold by fold: (named,) bool."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        found = []
        for train, test in self._folds:
            model = make_pipeline(StandardScaler(), RidgeClassifier())
            model.fit(rows[train], self._speakers[train])
            found.append(model.predict(rows[test]) == self._speakers[test])
        return np.concatenate(found)

    def compare(self, found: np.ndarray, exact: np.ndarray) -> str:
        """Return the accuracies of one layer's features (n, dim) in two formats, and their gap."""
        narrow, wide = self.right(found), self.right(exact)
        gap, low, high = paired_interval(narrow, wide)
        return (
            f"accuracy {narrow.mean():.3f}, in float32 {wide.mean():.3f} (difference {gap:+.3f}, "
            f"{low:+.3f} to {high:+.3f})"
        )


def paired_interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two paired shares (n,) bool, and its interval of 95 %.

    Source: Agresti and Min 2005, the Wald interval with half a pair added to each of four cells;
    it has a width also where no pair differs.
    """
    gains, losses = int((one & ~other).sum()) + 0.5, int((other & ~one).sum()) + 0.5
    count = len(one) + 2
    middle = (gains - losses) / count
    half = NORMAL * np.sqrt(gains + losses - (gains - losses) ** 2 / count) / count
    return float(one.mean() - other.mean()), middle - half, middle + half


def _times(segments: Sequence[Segment]) -> pd.DataFrame:
    """Return where each segment lies: `audio`, `start`, `end` (s)."""
    import pandas as pd

    return pd.DataFrame(
        [(segment.path, segment.start, segment.end) for segment in segments],
        columns=["audio", "start", "end"],
    )


def _folds(
    table: pd.DataFrame, places: np.ndarray, speakers: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places (train, test) of a session's blocks; who is not in train is not tested."""
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
