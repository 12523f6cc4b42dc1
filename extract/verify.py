"""Does a segment's batch, or the number format, change its features? Measured on own segments."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..manifests.table import InputError
from .accuracy import Naming
from .audio import Audio, Segment
from .batches import make_batches, read_batches
from .job import reading_of
from .options import Options

if TYPE_CHECKING:
    from .encoder import Encoder

BATCH_TOLERANCE = 1e-5  # relative, in float32


def verify_batches(
    encoder: Encoder,
    segments: Sequence[Segment],
    layers: Sequence[int],
    options: Options,
    tell: Callable[[str], None] = lambda line: None,
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
    tell
        Is given what another format than float32 costs, a line for each layer.
    names
        segment_id -> (session, speaker), where accuracy is to be compared too.

    Returns
    -------
    float
        The largest difference of a layer's vector (mean and std), relative to its length.

    Raises
    ------
    InputError
        More than `BATCH_TOLERANCE` in float32, or none of the segments can be used.
    """
    exact = encoder.provenance()["compute_dtype"] == "float32"
    alone = encoder if exact else _in_float32(options, encoder.device)
    picked = random.Random(0).sample(list(segments), min(options.verify, len(segments)))  # noqa: S311
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    used: list[Segment] = []
    batches = make_batches(picked, options.batch_seconds or encoder.batch_seconds)
    for read in read_batches(batches, reading_of(encoder, options), workers=0):
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
        _tell_cost(layers, found, expected, tell, Naming(used, names) if names else None)
    if exact and largest > BATCH_TOLERANCE:
        raise InputError(
            f"--verify: features differ by {largest:.1e} between in a batch and alone, expected at "
            f"most {BATCH_TOLERANCE:.0e}; pass --batch-seconds 0.1, which encodes each alone"
        )
    return largest


def _tell_cost(
    layers: Sequence[int],
    found: np.ndarray,
    expected: np.ndarray,
    tell: Callable[[str], None],
    naming: Naming | None,
) -> None:
    """Tell layer by layer what (n, layers, dim) of a narrow format cost beside float32's."""
    for place, layer in enumerate(layers):
        pair = found[:, place], expected[:, place]
        named = f"; {naming.compare(*pair)}" if naming and naming.enough else ""
        tell(_cost(layer, *pair) + named)
    if naming:
        tell(naming.told)


def _cost(layer: int, found: np.ndarray, expected: np.ndarray) -> str:
    """Return a line on one layer's vectors (n, dim) in a narrow format beside float32's."""
    errors = [relative_difference(a, b) for a, b in zip(found, expected, strict=True)]
    return (
        f"layer {layer}: relative error {np.median(errors):.1e} (median), {max(errors):.1e} "
        f"(largest); cosine {cosines(found, expected).min():.6f} (smallest)"
    )


def _in_float32(options: Options, device: object) -> Encoder:
    from .encoder import load_encoder

    return load_encoder(
        options.encoder, revision=options.revision, device=str(device), dtype="float32"
    )


def _vectors(
    encoder: Encoder, waveforms: Sequence[np.ndarray], layers: Sequence[int], options: Options
) -> np.ndarray:
    return encoder.encode(waveforms, layers=layers, max_seconds=options.max_seconds)[0]


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of vectors (..., dim), relative to the expected one's length."""
    wide = expected.astype(np.float64)
    distance = np.linalg.norm(found - wide, axis=-1)
    length = np.maximum(np.linalg.norm(wide, axis=-1), np.finfo(float).tiny)
    return float((distance / length).max())


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between vectors (n, dim), pair by pair: (n,)."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / np.maximum(lengths, np.finfo(float).tiny)
