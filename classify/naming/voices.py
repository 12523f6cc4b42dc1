"""Voices: enrolled persons, as sums of their speech, and what is learnt from them.

Persons and sessions can be added and removed; everything learnt (centre, whitening, calibration) is
then learnt again from the remaining sums. The same speech, identified by the hash of its samples,
counts once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.counts import counted
from ...common.errors import InputError
from ...extract.store.layout import differing_keys, fingerprint, setting_text
from ...manifests.formats.turns import check_name
from .calibration import Calibration, calibrate
from .scoring import FEW, Scorer, fit_scorer
from .stretches import Stretches

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"
RESERVED = re.compile(r"unknown([ _]\d+)?", re.IGNORECASE)
# keys that may differ between stores: layers present, storage format, channel read
FREE_KEYS = ("layers", "dtype", "schema", "channel", "max_seconds", "compute_dtype")


@dataclass(frozen=True)
class Sample:
    """A segment to listen to; `audio` is a path, times are seconds."""

    person: str
    session: str
    audio: str
    start: float
    end: float
    channel: str = ""


@dataclass(frozen=True, eq=False)
class Voices:
    """Enrolled persons.

    Attributes
    ----------
    config : dict
        Configuration of the store that the vectors came from.
    layer : int
        The layer of the vectors.
    chosen : str
        How the layer was chosen.
    stretches : Stretches
        The sums.
    speech : {hash: (person, session)}
        Every segment included in the sums.
    samples : tuple of Sample
    learnt : Calibration, optional
        Calibration read from a file of the same voices.
    """

    config: Mapping[str, Any]
    layer: int
    chosen: str
    stretches: Stretches
    speech: Mapping[str, tuple[str, str]]
    samples: Sequence[Sample] = ()
    learnt: Calibration | None = None

    @property
    def names(self) -> list[str]:
        """Return the persons, sorted."""
        return self.stretches.names

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the store's configuration."""
        return fingerprint(dict(self.config))

    @cached_property
    def calibration(self) -> Calibration:
        """Return the calibration, from the file if it has one, else learnt now."""
        return calibrate(self.stretches) if self.learnt is None else self.learnt

    @cached_property
    def scorer(self) -> Scorer:
        """Return the scorer of vectors against the persons."""
        return fit_scorer(self.stretches)

    def remove(self, name: str) -> Voices:
        """Return the voices without a person.

        Raises
        ------
        InputError
            The person is not enrolled, or nobody would be left.
        """
        check_enrolled([name], self.names, "NAME")
        if self.names == [name]:
            raise InputError(
                f"NAME: {name!r} is the only person enrolled, expected another beside; delete the "
                "file instead"
            )
        return replace(
            self,
            stretches=self.stretches.of(self.stretches.persons != name),
            speech={key: pair for key, pair in self.speech.items() if pair[0] != name},
            samples=tuple(sample for sample in self.samples if sample.person != name),
            learnt=None,
        )

    def table(self) -> pd.DataFrame:
        """Return a row for each person: `person`, `sessions`, `segments`, `seconds`."""
        import pandas as pd

        rows = []
        for name in self.names:
            mine = self.stretches.of(self.stretches.persons == name)
            segments = sum(person == name for person, _ in self.speech.values())
            rows.append((name, len({*mine.sessions}), segments, float(mine.seconds.sum())))
        return pd.DataFrame(rows, columns=["person", "sessions", "segments", "seconds"])

    def summary(self) -> list[str]:
        """Return lines on who is enrolled, how clusters are scored, and how calibrated."""
        return [self._enrolled_text(), f"score: {self.scorer.method}", self.calibration_text()]

    def __repr__(self) -> str:
        """Return who is enrolled, in one line."""
        return f"<Voices {self._enrolled_text()}>"

    def _enrolled_text(self) -> str:
        sums = self.stretches
        return (
            f"{counted(len(self.names), 'person')}, {counted(len({*sums.sessions}), 'session')}, "
            f"{sums.seconds.sum() / 60:.1f} min; encoder {self.config['encoder']}, layer "
            f"{self.layer} ({self.chosen})"
        )

    def calibration_text(self) -> str:
        """Return in words what probabilities were learnt from, or why there are none."""
        learnt = self.calibration
        if learnt.calibrator is None:
            return (
                "calibration: none, since the enrolment is too small to leave out both speech and "
                f"people (it takes {FEW + 1} persons, of whom some are in two sessions or "
                f"clips); a score of {learnt.threshold_score:.2f} names a cluster, or --threshold"
            )
        return (
            f"calibration: {counted(learnt.known_trials, 'trial')} of known persons, "
            f"{learnt.trials - learnt.known_trials} of strangers, left out in turn; "
            f"log-loss {learnt.loss:.3f}"
        )


def check_enrolled(names: Sequence[str], enrolled: Sequence[str], where: str) -> None:
    """Raise `InputError` unless all of `names` are enrolled."""
    missing = [name for name in names if name not in enrolled]
    if missing:
        raise InputError(
            f"{where}: {missing[0]!r} is not enrolled, expected some of "
            f"{', '.join(map(repr, enrolled))}; correct it, or enrol that person"
        )


def check_person(name: str, where: str) -> None:
    """Raise `InputError` for a name that cannot be written, or that is reserved for strangers."""
    check_name(name, what="person", place=where)
    if RESERVED.fullmatch(name):
        raise InputError(
            f"{where}: person is {name!r}, which is what a stranger is called, expected a name; "
            "correct it"
        )


def check_same_encoder(voices: Voices, config: Mapping[str, Any], where: str | Path) -> None:
    """Raise `InputError`, naming differing keys, unless vectors are of the voices' encoder."""
    differ = differing_keys(voices.config, config, free=FREE_KEYS)
    if differ:
        pairs = "; ".join(
            f"{key} {setting_text(config.get(key))}, not {setting_text(voices.config.get(key))}"
            for key in differ
        )
        raise InputError(
            f"{where}: made with another encoder than the voices ({pairs}), expected the same; "
            "extract with that encoder, or enrol the people again in another file"
        )
