"""Units of an extraction: the share of work that one process does, and its name.

For several machines, units are cut from neighbouring recordings and batched separately, so that
features depend neither on what else runs nor on where. They are cut from the whole table, whatever
the store has, so that a resumed run has the units of the run before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ...common.counts import counted
from ...common.engine.work import Unit, unit_key
from ..audio import Segment
from .batching import sort_segments

Batches = list[list[Segment]]


def cut_units(segments: Iterable[Segment], minutes: float) -> list[list[Segment]]:
    """Cut segments into units of up to `minutes` of audio, each sorted for batching.

    Recordings stay together if they fit; a longer segment is a unit of its own.

    Examples
    --------
    >>> parts = [Segment(f"s{i}", "a.wav", 60.0 * i, 60.0 * i + 30) for i in range(5)]
    >>> [[s.segment_id for s in unit] for unit in cut_units(parts, 1.0)]
    [['s0', 's1'], ['s2', 's3'], ['s4']]
    """
    units: list[list[Segment]] = []
    seconds = 0.0
    for segment in sorted(segments, key=lambda s: (s.path, s.start, s.segment_id)):
        if not units or seconds + segment.duration > 60 * minutes:
            units.append([])
            seconds = 0.0
        units[-1].append(segment)
        seconds += segment.duration
    return [sort_segments(unit) for unit in units]


def extraction_unit(batches: Batches, fingerprint: str) -> Unit:
    """Return the unit of batches still to be encoded, in a store with that fingerprint."""
    segments = [segment for batch in batches for segment in batch]
    inputs = [[s.segment_id, s.path, s.start, s.end, s.channel] for s in segments]
    return Unit(unit_key(fingerprint, inputs), unit_name(batches), batches)


def unit_name(batches: Batches) -> str:
    """Return a unit's name in messages."""
    segments = [segment for batch in batches for segment in batch]
    recordings = sorted({segment.path for segment in segments})
    count = len(segments) + sum(len(segment.same_span) for segment in segments)
    return f"{counted(count, 'segment')} of {_names(recordings)}"


def unit_mark(batches: Batches) -> str:
    """Return what tells a unit from the others of its job: no two share a segment."""
    return unit_key(batches[0][0].segment_id)


def _names(paths: Sequence[str]) -> str:
    first, last = os.path.basename(paths[0]), os.path.basename(paths[-1])
    return first if first == last else f"{counted(len(paths), 'recording')}, {first} to {last}"
