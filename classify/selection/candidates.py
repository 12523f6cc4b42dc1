"""Trials with their validation results, and the choice among them.

Within sessions, all meetings share one penalty and one temperature: a meeting has about thirty
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

WIDE = 0.2  # width of a 95 % interval: most combinations differ by less


@dataclass(frozen=True, eq=False)
class Candidate:
    """One layer set and classifier at its best penalty, with its validation results.

    `correct` (n,) bool covers all tasks' validation segments, in order of task and table.
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
        """Return the entry of a model column, such as ``ridge, layer 5``."""
        return f"{self.classifier}, {self.layers.description}"


@dataclass(frozen=True, eq=False)
class ValidationScores:
    """Validation scores (n, classes) of one task and classifier, one block per penalty."""

    scores: Sequence[np.ndarray]
    notes: Sequence[str]


def choose(trials: Sequence[Candidate]) -> Candidate:
    """Return the trial with the highest validation accuracy; ties go to the lowest log-loss.

    If validation is too small to choose by (`too_small`), ties are common; they go to the simplest
    classifier, in the order of `PENALTIES`, and then to the lowest log-loss.
    """
    best = min(trials, key=lambda trial: (-trial.accuracy, trial.log_loss))
    if not too_small(best):
        return best
    equals = [trial for trial in trials if trial.accuracy == best.accuracy]
    order = list(PENALTIES)
    return min(equals, key=lambda trial: (order.index(trial.classifier), trial.log_loss))


def too_small(trial: Candidate) -> bool:
    """Return whether the interval of a trial's validation accuracy is wider than `WIDE`."""
    low, high = wider_interval(trial)
    return high - low > WIDE


def wider_interval(trial: Candidate) -> tuple[float, float]:
    """Return the wider of a trial's interval and Wilson's, which has a width even at accuracy 1."""
    own, other = trial.interval, wilson(int(trial.correct.sum()), len(trial.correct))
    return max(own, other, key=lambda ends: ends[1] - ends[0])


def classifier_names(settings: SweepSettings) -> list[str]:
    """Return the classifiers to try; raises `InputError` for bad names, penalty or folds.

    With folds, ``all`` leaves out LightGBM, which needs validation rows for early stopping.
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
    """Return the trial at the penalty of highest accuracy over all tasks, then lowest log-loss.

    Parameters
    ----------
    outcomes : one per task
    codes : (n,) int
        True classes of all tasks' validation rows; -1 if unknown.
    meetings : (n,)
        Each row's meeting, or other group that `metrics.interval_groups` resamples.
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
    """Return the codes, with -1 also where the row's fold lacks the class (score -inf)."""
    true_scores = scores[np.arange(len(codes)), np.maximum(codes, 0)]
    return np.where(np.isneginf(true_scores), -1, codes)


def _loss(scores: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Return the calibrated log-loss over rows of known label, and its temperature.

    The log-loss is NaN if no label is known.
    """
    labelled, temperature = codes >= 0, shared_temperature(scores, codes)
    if not labelled.any():
        return float("nan"), temperature
    chances = probabilities(scores[labelled], temperature)
    return log_loss(chances[np.arange(len(chances)), codes[labelled]]), temperature
