"""Does a segment's batch, or the number format, change its features? Measured on own segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..common.errors import InputError
from .accuracy import Naming, draw
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
        Where accuracy is compared they are drawn session after session, so that few are enough.
    tell
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
    picked = draw(segments, options.verify, None if exact else names)
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
        naming = None if names is None else Naming(used, names)
        dtype = encoder.provenance()["compute_dtype"]
        for place, layer in enumerate(layers):
            tell(f"layer {layer}: {_cost(found[:, place], expected[:, place], dtype, naming)}")
        if naming:
            tell(naming.told)
    if exact and largest > BATCH_TOLERANCE:
        raise InputError(
            f"--verify: features differ by {largest:.1e} between in a batch and alone, expected at "
            f"most {BATCH_TOLERANCE:.0e}; pass --batch-seconds 0.1, which encodes each alone"
        )
    return largest


def _cost(found: np.ndarray, expected: np.ndarray, dtype: str, naming: Naming | None) -> str:
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


def _in_float32(options: Options, device: object) -> Encoder:
    from .encoder import load_encoder

    return load_encoder(
        options.encoder,
        revision=options.revision,
        normalize=options.normalize,
        device=str(device),
        dtype="float32",
    )


def _vectors(
    encoder: Encoder, waveforms: Sequence[np.ndarray], layers: Sequence[int], options: Options
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
