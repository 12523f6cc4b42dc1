"""Turn speech of known people into voices, from a segment table and its store.

Segments of at least `LEAST` s are used. For each person and session, only those in which others
speak for at most `MIXED` of the time are used, unless there are none. Speech that is already
enrolled is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import log as log_info
from ...extract.store.reader import FeatureStore
from ...manifests.formats.aishell4 import local_speaker
from ...manifests.formats.build import read_identity
from ...manifests.splits.overlap import has_common_clock, overlap_timeline
from ...manifests.table import as_table
from ..features import open_store, rows_with_features
from .calibration import calibrate, halves
from .stretches import Stretches, make_stretches
from .voices import Sample, Voices, check_person, check_same_encoder

if TYPE_CHECKING:
    import pandas as pd

Log = Callable[[str], object]
LEAST = 0.8  # s; shorter segments say little about a voice
MIXED = 0.2  # share of a segment in which others speak
SAMPLES, SAMPLE = 3, 6.0  # clips per person to listen to, and their sufficient length in s


def enrol(
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    *,
    voices: Voices | None = None,
    identity: str | Path | None = None,
    layer: int | None = None,
    audio_root: str | Path | None = None,
    log: Log = log_info,
) -> Voices:
    """Enrol the speakers of a table, under their labels or the names of an identity file.

    Parameters
    ----------
    table
        Segment table, or its file; all of its rows are used, whatever their split.
    store
        Pooled features of its segments.
    voices
        Existing voices to add to; if not given, new ones are made.
    identity
        CSV `session,speaker,person`; speakers that it does not name are left out.
    layer
        One of the store's layers. None: for existing voices their layer, for new ones the layer
        that identifies left-out speech best.
    audio_root
        Base of the table's relative paths, so that a review page can play samples.
    log
        Receives lines on what was left out or skipped.

    Returns
    -------
    Voices
        The old voices and the new ones, recalibrated.

    Raises
    ------
    InputError
        The store is of another encoder than `voices`, lacks the layer or some segments, speech is
        already enrolled under another name, or there is none to enrol.

    Examples
    --------
    >>> voices = enrol("table.csv", "features", identity="people.csv")  # doctest: +SKIP
    >>> voices.names  # doctest: +SKIP
    ['Ann', 'Bo', 'Cem', 'Di']
    """
    store = open_store(store)
    if voices is not None:
        check_same_encoder(voices, store.config, store.path)
    layers = _layers(store, voices, layer)
    rows, rejected = rows_with_features(as_table(table), store)
    if len(rejected):
        log(f"left out: {counted(len(rejected), 'segment')} that extraction rejected")
    rows = usable_speech(_named(rows, identity, log), log)
    rows = _new_speech(rows, store, voices, log)
    if not len(rows):
        if voices is None:
            raise InputError(
                f"table: 0 segments of at least {LEAST:g} s can be enrolled, expected some; name "
                "a table of longer segments"
            )
        return voices
    return _added(rows, store, voices, layers, audio_root, log)


def _named(rows: pd.DataFrame, identity: str | Path | None, log: Log) -> pd.DataFrame:
    """Return the rows with the column `person`, without speakers that the file does not name."""
    if identity is None:
        persons = rows["speaker"].to_numpy(str)
    else:
        identities = read_identity(identity)
        pairs = zip(rows["session"], rows["speaker"], strict=True)
        persons = np.array([_person(*pair, identities) for pair in pairs], dtype=str)
        unnamed = {*rows["speaker"][persons == ""]}
        if unnamed:
            log(f"left out: {counted(len(unnamed), 'speaker')} without a person in {identity}")
    rows = rows.assign(person=persons)
    rows = rows[rows["person"] != ""]
    for name in sorted({*rows["person"]}):
        check_person(name, str(identity or "table"))
    return rows


def _person(session: str, label: str, identities: Mapping[tuple[str, str], str]) -> str:
    """Return who a label is in a session; "" if the identity file does not say."""
    local = local_speaker(session, label)
    if (session, local) in identities:
        return identities[session, local]
    return label if label in identities.values() else ""


def usable_speech(rows: pd.DataFrame, log: Log) -> pd.DataFrame:
    """Return the rows that are long enough; of each `person` and session, the least overlapped.

    The rows are sorted by session and time.
    """
    long = rows[rows["end"] - rows["start"] >= LEAST - 1e-6]
    if "overlap" not in long and len(long) and has_common_clock(long):
        share = overlap_timeline(rows).within(2) / (rows["end"] - rows["start"]).to_numpy()
        long = rows.assign(overlap=share).loc[long.index]
    if "overlap" not in long:
        long = long.assign(overlap=0.0)
    clean = long["overlap"] <= MIXED
    any_clean = clean.groupby([long["session"], long["person"]]).transform("any")
    usable = long[clean | ~any_clean]
    if len(usable) < len(rows):
        log(
            f"left out: {counted(len(rows) - len(long), 'segment')} shorter than {LEAST:g} s, "
            f"{len(long) - len(usable)} in which others speak for more than {100 * MIXED:.0f} %"
        )
    return usable.sort_values(["session", "start", "end"], kind="stable")


class _Speech(NamedTuple):
    """The hash of a segment's samples, and its length (s)."""

    key: str
    seconds: float


def _speech(store: FeatureStore) -> dict[str, _Speech]:
    columns = store.rows()
    names = ("segment_id", "audio_crc32", "audio_bytes", "duration")
    parts = (columns[name].tolist() for name in names)
    return {
        str(segment_id): _Speech(f"{crc:08x}-{count // 4}", seconds)
        for segment_id, crc, count, seconds in zip(*parts, strict=True)
    }


def _new_speech(
    rows: pd.DataFrame, store: FeatureStore, voices: Voices | None, log: Log
) -> pd.DataFrame:
    """Return the rows whose speech is not enrolled, with its hash (`key`) and `seconds`."""
    speech = _speech(store)
    enrolled = {} if voices is None else {key: pair[0] for key, pair in voices.speech.items()}
    names = map(str, rows["segment_id"])
    rows = rows.assign(key=[speech[name].key for name in names])
    rows["seconds"] = [speech[str(name)].seconds for name in rows["segment_id"]]
    new = []
    for key, person, name in zip(rows["key"], rows["person"], rows["segment_id"], strict=True):
        if enrolled.get(key, person) != person:
            raise InputError(
                f"table: speech of segment {name!r} is {person!r}'s, expected {enrolled[key]!r}'s, "
                "under whose name the same samples are enrolled; correct the name, or remove "
                f"{enrolled[key]!r} from the voices"
            )
        new.append(key not in enrolled)
        enrolled[key] = person
    if not all(new):
        log(f"passed over: {counted(len(new) - sum(new), 'segment')} enrolled already")
    return rows[np.array(new, dtype=bool)]


def _added(
    rows: pd.DataFrame,
    store: FeatureStore,
    voices: Voices | None,
    layers: list[int],
    audio_root: str | Path | None,
    log: Log,
) -> Voices:
    stretches = {layer: _stretches(rows, store, layer) for layer in layers}
    chosen, how = layers[0], "the only one" if len(store.layers) == 1 else "as asked"
    if len(layers) > 1:
        chosen, how = _choose_layer(stretches, log)
    pairs = zip(rows["key"], rows["person"], rows["session"], strict=True)
    speech = {key: (person, session) for key, person, session in pairs}
    samples = _samples(rows, audio_root)
    if voices is None:
        return Voices(dict(store.config), chosen, how, stretches[chosen], speech, samples)
    return replace(
        voices,
        stretches=voices.stretches.plus(stretches[chosen]),
        speech={**voices.speech, **speech},
        samples=(*voices.samples, *samples),
        learnt=None,
    )


def _layers(store: FeatureStore, voices: Voices | None, layer: int | None) -> list[int]:
    """Return the layers to choose from."""
    if voices is not None and layer not in (None, voices.layer):
        raise InputError(
            f"--layer: value is {layer}, expected {voices.layer}, the voices'; leave it out, or "
            "enrol everybody again in another file"
        )
    layer = layer if voices is None else voices.layer
    if layer is None:
        return list(store.layers)
    if layer not in store.layers:
        raise InputError(
            f"--layer: {layer} is not in {store.path}, expected one of {list(store.layers)}; "
            "correct it, or extract that layer"
        )
    return [layer]


def _stretches(rows: pd.DataFrame, store: FeatureStore, layer: int) -> Stretches:
    X = store.read(rows["segment_id"], layer)
    columns = (rows[name].to_numpy() for name in ("seconds", "person", "session"))
    seconds, persons, sessions = columns
    return make_stretches(X, seconds.astype(float), persons.astype(str), sessions.astype(str))


def _choose_layer(layers: Mapping[int, Stretches], log: Log) -> tuple[int, str]:
    """Return the layer that identifies left-out speech best, and how it was chosen."""
    losses = {layer: calibrate(stretches).loss for layer, stretches in layers.items()}
    if np.isfinite(min(losses.values())):
        best = min(losses, key=lambda layer: losses[layer])
        losses_text = ", ".join(f"{layer} {loss:.3f}" for layer, loss in losses.items())
        log(f"layer {best} is chosen by the log-loss of speech left out: {losses_text}")
        return best, "chosen by leaving sessions out"
    gaps = {layer: _gap(stretches) for layer, stretches in layers.items()}
    best = max(gaps, key=lambda layer: gaps[layer])
    log(f"layer {best} is chosen by every other stretch of speech, for want of sessions")
    return best, "chosen by leaving every other stretch out"


def _gap(stretches: Stretches) -> float:
    """Return how far persons' own scores exceed others', in deviations; 0 if not measurable."""
    own, other = halves(stretches)
    gap = own - other
    gap = gap[~np.isnan(gap)]
    return float(gap.mean() / (gap.std() + 1e-6)) if len(gap) else 0.0


def _samples(rows: pd.DataFrame, audio_root: str | Path | None) -> list[Sample]:
    """Return each person's clearest long segments, as many as `SAMPLES`."""
    if audio_root is None:
        return []
    root = Path(audio_root).absolute()
    ranked = rows.assign(long=rows["seconds"].clip(upper=SAMPLE)).sort_values(
        ["person", "overlap", "long", "segment_id"], ascending=[True, True, False, True]
    )
    best = ranked.groupby("person", sort=True).head(SAMPLES).to_dict("records")
    return [
        Sample(
            str(row["person"]),
            str(row["session"]),
            str(root / str(row["audio"])),
            float(row["start"]),
            float(row["end"]),
            str(row.get("channel", "")),
        )
        for row in best
    ]
