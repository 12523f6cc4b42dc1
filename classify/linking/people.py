"""Find who is who across sessions: the whole flow of ``spk-classify link``.

Average the speech of each label, score labels of different sessions against each other, calibrate
the scores, group labels into persons, and leave out the unsure ones. If the encoder cannot tell
people apart, only known people are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import log as log_info
from ...extract.store.reader import FeatureStore
from ...manifests.formats.build import read_identity
from ...manifests.text_files.delimited import read_delimited
from ..features import Log, encoder_kind, open_store
from ..naming.decision import rounded_down
from ..options import LinkOptions
from .basis import Basis, basis_of
from .calibration import CERTAIN, PairCalibration, calibrate_pairs
from .clustering import confidence, pair_matrix, partition
from .labels import Label, Labels, read_labels, usable_rows
from .pairs import (
    SAME,
    UNKNOWN,
    Pairs,
    Separation,
    check_one_label_each,
    make_pairs,
    measure_separation,
)
from .series import disputed_ids

if TYPE_CHECKING:
    import pandas as pd

PEOPLE = ("session", "speaker", "person", "confidence")
UNSURE = (*PEOPLE, "seconds", "reason")
LINKS = (
    *("session_a", "speaker_a", "session_b", "speaker_b"),
    *("score", "probability", "linked", "known"),
)
SHORT, DOUBTFUL = "short", "doubtful"
DIGITS = 4  # decimals of probabilities


@dataclass(frozen=True, eq=False)
class Links:
    """Which labels are one person.

    Attributes
    ----------
    people : DataFrame
        Columns `PEOPLE`: a row for each label that is known or sure.
    unsure : DataFrame
        Columns `UNSURE`: the labels left out, each with the best guess and the reason.
    pairs : DataFrame
        Columns `LINKS`: every pair that was scored.
    series : DataFrame
        Columns `series.COLUMNS`: ids that are not one person in all sessions of a series.
    facts : dict
        Settings, encoder, and the basis of the confidence.
    """

    people: pd.DataFrame
    unsure: pd.DataFrame
    pairs: pd.DataFrame
    series: pd.DataFrame
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return how much was linked, in one line."""
        people = counted(self.people["person"].nunique(), "person")
        return (
            f"<Links {counted(len(self.people), 'label')} of {people}, {len(self.unsure)} unsure, "
            f"{counted(len(self.pairs), 'pair')} scored>"
        )


def link(
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    *,
    identity: str | Path | None = None,
    log: Log = log_info,
    **options: Any,
) -> pd.DataFrame:
    """Return which labels are one person across the sessions of a table; see `link_labels`.

    Returns
    -------
    DataFrame
        `session`, `speaker`, `person` and `confidence`, the input of ``--identity``. Unsure labels
        have no row.

    Examples
    --------
    >>> link("table.csv", "features")  # doctest: +SKIP
           session speaker    person  confidence
    0  L_R001S01C01   001-M  person_1      0.9991
    1  L_R001S02C01   001-M  person_1      0.9991
    """
    return link_labels(table, store, identity=identity, log=log, **options).people


def link_labels(
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    *,
    identity: str | Path | None = None,
    log: Log = log_info,
    **options: Any,
) -> Links:
    """Find which labels of different sessions are one person.

    Parameters
    ----------
    table
        Segment table, or its file, with at least two sessions.
    store
        Pooled features of its segments.
    identity
        CSV `session,speaker,person` of known people, who keep their names.
    log
        Receives lines on what was left out, and on the basis of the result.
    options
        `layer`, `min_seconds`, `same_id` and `min_confidence`, as `LinkOptions` has them.

    Raises
    ------
    InputError
        There is only one session, the store lacks segments or the layer, or one person is known as
        two labels of a session.
    """
    settings, store = LinkOptions(**options), open_store(store)
    layers = _layers(store, settings.layer)
    speech = usable_rows(table, store, log)
    persons = _known_people(identity, speech.seconds, log)
    heard = [pair for pair, seconds in speech.seconds.items() if seconds >= settings.min_seconds]
    _check_heard(heard, settings)
    readings = [_Reading(speech.rows, store, n, {*heard}, persons, settings) for n in layers]
    best = max(readings, key=lambda reading: np.nan_to_num(reading.separation.d_prime))
    if len(readings) > 1:
        parts = ", ".join(f"{r.layer} {r.separation.d_prime:.2f}" for r in readings)
        log(f"layer {best.layer} is chosen by d' on {best.separation.of or 'nothing'}: {parts}")
    return _links(best, speech.seconds, persons, settings, store.config, log)


class _Reading:
    """Result at one layer: labels, their pairs, and how well these are told apart."""

    def __init__(
        self,
        rows: pd.DataFrame,
        store: FeatureStore,
        layer: int,
        heard: set[Label],
        persons: Mapping[Label, str],
        settings: LinkOptions,
    ) -> None:
        labels = read_labels(rows, store, layer)
        self.layer = layer
        self.labels: Labels = labels.of(np.array([pair in heard for pair in labels.pairs]))
        self.pairs: Pairs = make_pairs(self.labels, persons)
        self.separation: Separation = measure_separation(self.labels, self.pairs, settings.same_id)


def _layers(store: FeatureStore, layer: int | None) -> list[int]:
    if layer is None:
        return list(store.layers)
    if layer not in store.layers:
        raise InputError(
            f"--layer: {layer} is not in {store.path}, expected one of {list(store.layers)}; "
            "correct it, or extract that layer"
        )
    return [layer]


def _known_people(
    identity: str | Path | None, labels: Mapping[Label, float], log: Log
) -> dict[Label, str]:
    """Return the known persons among the table's labels."""
    if identity is None:
        return {}
    named = read_identity(identity)
    persons = {pair: name for pair, name in named.items() if pair in labels}
    if named and not persons:
        raise InputError(
            f"{identity}: names nobody of the table, found session and speaker {min(named)}, "
            f"expected such as {min(labels)}; correct them, or leave --identity out"
        )
    check_one_label_each(persons, str(identity))
    log(f"{counted(len(persons), 'label', 'is', of=len(labels))} known from {identity}")
    guessed = _guessed(identity)
    if guessed:
        log(
            f"{identity}: {counted(guessed, 'row', 'has')} a confidence below 1, as guesses from "
            "link have; they are treated as known, so the measure of the encoder proves nothing; "
            "keep only people whom somebody has checked"
        )
    return persons


def _guessed(identity: str | Path) -> int:
    """Return how many rows of an identity file have a confidence below 1."""
    import pandas as pd

    rows = read_delimited(identity, PEOPLE, "correct the path").rows
    if "confidence" not in rows:
        return 0
    return int((pd.to_numeric(rows["confidence"], errors="coerce") < 1).sum())


def _check_heard(heard: list[Label], settings: LinkOptions) -> None:
    sessions = len({session for session, _ in heard})
    if sessions < 2:
        raise InputError(
            f"table: {counted(sessions, 'session', 'has')} a label with at least "
            f"{settings.min_seconds:g} s of usable speech, expected 2 or more; lower --min-seconds "
            "or name a table with more"
        )


def _links(
    reading: _Reading,
    seconds: Mapping[Label, float],
    persons: Mapping[Label, str],
    settings: LinkOptions,
    config: Mapping[str, Any],
    log: Log,
) -> Links:
    labels, pairs = reading.labels, reading.pairs
    learnt = calibrate_pairs(labels, pairs, settings.same_id)
    odds = pair_matrix(pairs.first, pairs.second, learnt.log_odds, len(labels))
    basis = basis_of(reading.separation, pairs, learnt, settings.same_id)
    for line in basis.lines():
        log(line)
    is_weak = bool(basis.weakness)
    names = np.array([persons.get(pair, "") for pair in labels.pairs], dtype=object)
    clusters = partition(odds, labels.sessions, names.astype(str))
    cautious = pair_matrix(pairs.first, pairs.second, learnt.cautious, len(labels))
    sure = np.minimum(confidence(odds, clusters), confidence(cautious, clusters))
    rows = _rows(labels, clusters, sure, seconds, persons, settings, basis.reason)
    people = rows[rows["reason"] == ""]
    claimed = not is_weak and settings.same_id > 0
    certain = _with_certainty(pairs, learnt.log_odds if claimed else np.inf)
    disputes = pair_matrix(pairs.first, pairs.second, certain, len(labels))
    return Links(
        people[list(PEOPLE)].reset_index(drop=True),
        rows.loc[rows["reason"] != "", list(UNSURE)].reset_index(drop=True),
        _pairs_table(labels, pairs, learnt, clusters, is_weak),
        disputed_ids(labels, disputes, clusters, rows, settings.min_confidence),
        _facts(reading, learnt, settings, config, basis),
    )


def _rows(
    labels: Labels,
    clusters: np.ndarray,
    sure: np.ndarray,
    seconds: Mapping[Label, float],
    persons: Mapping[Label, str],
    settings: LinkOptions,
    unclaimed: str,
) -> pd.DataFrame:
    """Return a row for each label of the table: person, confidence, seconds, and why unsure.

    `unclaimed` is the reason why only known people are named, if there is one.
    """
    import pandas as pd

    number = {pair: k for k, pair in enumerate(labels.pairs)}
    names = _names(labels, clusters, sure >= settings.min_confidence, persons)
    rows = []
    for pair, heard in sorted(seconds.items()):
        person, chance, reason = persons.get(pair, ""), 1.0, ""
        if not person and pair not in number:
            chance, reason = np.nan, SHORT
        elif not person and unclaimed:
            chance, reason = np.nan, unclaimed
        elif not person:
            label = number[pair]
            person, chance = names[clusters[label]], rounded_down(float(sure[label]), DIGITS)
            reason = "" if chance >= settings.min_confidence else DOUBTFUL
        rows.append((*pair, person, chance, round(heard, 3), reason))
    return pd.DataFrame(rows, columns=list(UNSURE))


def _names(
    labels: Labels, clusters: np.ndarray, is_sure: np.ndarray, persons: Mapping[Label, str]
) -> dict[int, str]:
    """Return {cluster: the known name, or person_1 ...}, those with a sure label first."""
    named = {
        int(cluster): persons[pair]
        for pair, cluster in zip(labels.pairs, clusters, strict=True)
        if pair in persons
    }
    order = [*dict.fromkeys([*clusters[is_sure].tolist(), *clusters.tolist()])]
    free = (f"person_{k}" for k in range(1, len(order) + len(persons) + 1))
    unused = (name for name in free if name not in persons.values())
    return named | {cluster: next(unused) for cluster in order if cluster not in named}


def _pairs_table(
    labels: Labels,
    pairs: Pairs,
    learnt: PairCalibration,
    clusters: np.ndarray,
    is_weak: bool,
) -> pd.DataFrame:
    import pandas as pd
    from scipy.special import expit

    chances = np.full(len(pairs.scores), np.nan) if is_weak else expit(learnt.log_odds)
    linked = clusters[pairs.first] == clusters[pairs.second]
    columns = (
        *(labels.sessions[pairs.first], labels.speakers[pairs.first]),
        *(labels.sessions[pairs.second], labels.speakers[pairs.second]),
        *(pairs.scores.round(DIGITS), chances.round(DIGITS)),
        np.where(linked & (not is_weak), "yes", ""),
        np.array(["different", "same", ""])[pairs.truth],
    )
    return pd.DataFrame(dict(zip(LINKS, columns, strict=True)))


def _with_certainty(pairs: Pairs, log_odds: np.ndarray | float) -> np.ndarray:
    """Return log-odds (m,), with those of known people set to certainty."""
    known_odds = np.where(pairs.truth == SAME, CERTAIN, -CERTAIN)
    return np.where(pairs.truth == UNKNOWN, log_odds, known_odds)


def _facts(
    reading: _Reading,
    learnt: PairCalibration,
    settings: LinkOptions,
    config: Mapping[str, Any],
    basis: Basis,
) -> dict[str, Any]:
    """Return the content of ``link.json``."""
    pairs, separation = reading.pairs, asdict(reading.separation)
    for name in ("eer", "d_prime"):
        separation[name] = None if np.isnan(separation[name]) else round(separation[name], DIGITS)
    return {
        "encoder": config["encoder"],
        "encoder_kind": encoder_kind(config),
        "layer": reading.layer,
        "options": asdict(settings),
        "pairs": {
            "scored": len(pairs.scores),
            "same": int((pairs.truth == 1).sum()),
            "different": int((pairs.truth == 0).sum()),
            "same_id": int(pairs.same_id.sum()),
        },
        "separation": separation,
        "calibrated_on": basis.calibrated_on,
        "weakness": basis.weakness,
        "calibration": {name: round(value, 6) for name, value in asdict(learnt.model).items()},
        "room_taken_out": round(float(reading.labels.rooms.mean()), DIGITS),
        "version": version("spk-toolkit"),
    }
