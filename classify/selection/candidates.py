"""What is tried, what came of it on validation, and the choice among trials.

Within sessions one penalty and one temperature serve all meetings: a meeting has about thirty
validation segments, too few to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...common.errors import InputError
from ...common.extras import check_extra
from ..classifiers.calibration import pad, probabilities
from ..classifiers.registry import PENALTIES, penalty_path
from ..classifiers.temperatures import shared_temperature
from ..features import LayerSet
from ..metrics import log_loss, mean_interval, wilson
from ..options import SweepSettings
from .cross_validation import check_folds

WIDE = 0.2  # of a 95 % interval: combinations mostly differ by less


@dataclass(frozen=True, eq=False)
class Candidate:
    """One layer set and classifier at its best penalty, as validation saw it.

    `correct` (n,) bool runs over all tasks' validation segments, in order of task and table.
    """

    layers: LayerSet
    classifier: str
    penalty: float | None
    temperature: float
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    correct: np.ndarray
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Compare all fields, `correct` entry by entry."""
        if not isinstance(other, Candidate):
            return NotImplemented
        mine, theirs = vars(self), vars(other)
        rest = (mine[name] == theirs[name] for name in mine if name != "correct")
        return all(rest) and np.array_equal(self.correct, other.correct)

    __hash__ = None  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """Return what a model column says, as in ``ridge, layer 5``."""
        return f"{self.classifier}, {self.layers.description}"


@dataclass(frozen=True, eq=False)
class ValidationScores:
    """Validation scores (n, classes) of one task and classifier, one block per penalty."""

    scores: Sequence[np.ndarray]
    notes: Sequence[str]


def choose(trials: Sequence[Candidate]) -> Candidate:
    """Return the trial of highest validation accuracy; among equals, of lowest log-loss.

    Where validation is too small to choose by (`too_small`), equals are many: the simplest
    classifier of them, in the order of `PENALTIES`, and of its trials that of lowest log-loss.
    """
    best = min(trials, key=lambda trial: (-trial.accuracy, trial.log_loss))
    if not too_small(best):
        return best
    equals = [trial for trial in trials if trial.accuracy == best.accuracy]
    order = list(PENALTIES)
    return min(equals, key=lambda trial: (order.index(trial.classifier), trial.log_loss))


def too_small(trial: Candidate) -> bool:
    """Tell whether the interval of a trial's validation accuracy is wider than `WIDE`."""
    low, high = wider_interval(trial)
    return high - low > WIDE


def wider_interval(trial: Candidate) -> tuple[float, float]:
    """Return the wider of a trial's interval and Wilson's, which has a width where all is right."""
    own, other = trial.interval, wilson(int(trial.correct.sum()), len(trial.correct))
    return max(own, other, key=lambda ends: ends[1] - ends[0])


def classifier_names(settings: SweepSettings) -> list[str]:
    """Return the classifiers to try, checked with their penalty; ``all`` names every one.

    With folds, ``all`` leaves out LightGBM, which needs validation rows to stop by.
    """
    check_folds(settings.folds, settings.gap)
    text = settings.classifiers
    every = [name for name in PENALTIES if not (settings.folds and name == "lightgbm")]
    names = every if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        penalty_path(name, settings.penalty)
    if "lightgbm" in names:
        check_extra("trees", "--classifiers lightgbm")
    if len(set(names)) < len(names):
        raise InputError(f"classifiers: {text!r} names one twice, expected each once; correct it")
    return names


def make_trial(
    layer_set: LayerSet,
    name: str,
    outcomes: Sequence[ValidationScores],
    codes: np.ndarray,
    meetings: np.ndarray,
    settings: SweepSettings,
) -> Candidate:
    """Return the penalty of highest accuracy over all tasks; among equals, of lowest log-loss.

    Parameters
    ----------
    outcomes : one per task
    codes : (n,) int
        True classes of all tasks' validation rows; -1 where unknown.
    meetings : (n,)
        Each row's meeting, or what else `metrics.interval_groups` draws.
    """
    penalties = penalty_path(name, settings.penalty)
    blocks = [pad([outcome.scores[k] for outcome in outcomes]) for k in range(len(penalties))]
    codes = learnt_codes(codes, blocks[0])
    accuracies = [float(np.mean(block.argmax(axis=1) == codes)) for block in blocks]
    equals = [k for k, accuracy in enumerate(accuracies) if accuracy == max(accuracies)]
    losses = {k: _loss(blocks[k], codes) for k in equals}
    best = min(losses, key=lambda k: losses[k][0])
    correct = blocks[best].argmax(axis=1) == codes
    notes = sorted({outcome.notes[best] for outcome in outcomes} - {""})
    return Candidate(
        layers=layer_set,
        classifier=name,
        penalty=penalties[best],
        temperature=losses[best][1],
        accuracy=accuracies[best],
        interval=mean_interval(correct, meetings, seed=settings.seed),
        log_loss=losses[best][0],
        correct=correct,
        notes=tuple(f"{layer_set.description}: {note}" for note in notes),
    )


def learnt_codes(codes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the codes, -1 also where the row's fold has learnt no such class (score -inf)."""
    found = scores[np.arange(len(codes)), np.maximum(codes, 0)]
    return np.where(np.isneginf(found), -1, codes)


def _loss(scores: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Return the calibrated log-loss over rows of known label, and the temperature it needs.

    NaN where no row's label is known.
    """
    known, temperature = codes >= 0, shared_temperature(scores, codes)
    if not known.any():
        return float("nan"), temperature
    chances = probabilities(scores[known], temperature)
    return log_loss(chances[np.arange(len(chances)), codes[known]]), temperature
