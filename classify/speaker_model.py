"""The chosen classifier fitted on train, and its predictions for any table and store.

Within sessions a model holds one closed-set classifier per meeting; segments of other meetings are
left out and reported. A model accepts features of its own encoder and configuration only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.counts import counted
from ..common.errors import InputError
from ..common.extras import installed_versions
from ..common.log import warn
from ..extract.store.reader import FeatureStore
from ..manifests.predictions import make_predictions, scores_text, unnamed_lines, with_unknown
from ..manifests.splits.tasks import WITHIN_CORPUS, Task, rows_of_split
from ..manifests.table import as_table
from .classifiers.boosted_trees import count_rounds
from .classifiers.calibration import calibrated
from .classifiers.fitted import FittedClassifier, to_feature_space
from .classifiers.fold_sums import GramSums
from .classifiers.registry import fit_path
from .classifiers.temperatures import task_temperatures
from .features import (
    LayerSet,
    Log,
    encoder_kind,
    layer_sets,
    open_store,
    read_features,
    rows_with_features,
)
from .options import SweepSettings
from .selection.candidates import Candidate, learnt_codes
from .selection.run_inputs import check_same_store
from .selection.sweep import TUNING, make_fold, one_thread, validate
from .selection.without_validation import NOT_CALIBRATED, NOTHING
from .validity import (
    UNKNOWN_ORIGIN,
    learnt_from,
    learnt_note,
    learnt_rows,
    marked,
    unknown_note,
    within_corpus,
)

if TYPE_CHECKING:
    import pandas as pd


NEW_MEETING = (
    "for meetings that nobody fitted, run spk-classify fit with --within corpus on the table of "
    "the known meetings, and predict with that model"
)
ENROLMENTS = ("enrol", "roll-call")  # splits that allow training on their training rows only
KNOWS_THE_ROOM = "this also rewards recognising the room: spk-classify sweep says how much"


@dataclass(frozen=True, eq=False)
class SpeakerModel:
    """Fitted classifiers and their provenance.

    Attributes
    ----------
    fitted : {session, or "corpus": FittedClassifier}
    temperature : float
        Divides the scores before the softmax; fitted on validation of all tasks.
    temperatures : {session, or "corpus": float}
        Each task's own; empty in folders of earlier versions.
    config : dict
        The store's configuration: encoder, revision, hash of the weights, pooling, channel ...
    origin : dict
        Split method, seed, numbers of segments, versions.
    knots : {session, or "corpus": (m, 3) float64}
        Isotonic curves of an older folder, for `calibration.calibrated`; otherwise empty.
    learnt : DataFrame or None
        The rows it was trained and chosen on, from `validity.learnt_rows`; None in folders of
        earlier versions.
    """

    classifier: str
    penalty: float | None
    layers: LayerSet
    part: str
    within: str
    temperature: float
    fitted: Mapping[str, FittedClassifier] = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)
    knots: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    learnt: pd.DataFrame | None = field(default=None, repr=False)
    temperatures: Mapping[str, float] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Return the entry of the predictions' model column; it marks doubtful scores."""
        corpus = WITHIN_CORPUS if self.within == "corpus" else ""
        untrained = encoder_kind(self.config, ", {}")
        leaky = f", split {self.origin['split']}" if "leaky" in self.origin.get("split", "") else ""
        sure = "" if self.calibrated else ", uncalibrated"
        return f"{self.classifier}, {self.layers.description}{corpus}{untrained}{leaky}{sure}"

    @property
    def calibrated(self) -> bool:
        """Whether its probabilities were calibrated on validation rows or folds."""
        return self.origin.get("chosen_and_calibrated_on") != NOTHING


def fit_model(
    table: pd.DataFrame,
    store: FeatureStore,
    tasks: Sequence[Task],
    trial: Candidate,
    settings: SweepSettings,
    *,
    split: str = "unknown",
) -> SpeakerModel:
    """Fit the chosen trial, one classifier per task, with temperatures from validation.

    Temperatures are fitted on scores of validation rows (or held-out folds) by a classifier of
    train; the classifier is then fitted again on train and validation where `refits` says so.

    Parameters
    ----------
    table : segment table
        Rows with features, as `features.rows_with_features` returns them; `tasks` hold its row
        numbers.
    split : str
        How the table was split; recorded in the model's origin.
    """
    rows = np.unique(np.concatenate([task.rows[s] for task in tasks for s in TUNING]))
    ids = table["segment_id"].to_numpy(str)[rows]
    X = read_features(store, ids, trial.layers, settings.pooling_part)
    with one_thread([trial.classifier]):
        blocks = [_validation_scores(task, X, rows, trial, settings) for task in tasks]
        codes = [learnt_codes(t.codes["valid"], s) for t, s in zip(tasks, blocks, strict=True)]
        names = [task.name for task in tasks]
        warmth = dict(zip(names, task_temperatures(blocks, codes), strict=True))
        both = refits(settings, split)
        fitted = {t.name: _fit_task(t, X, rows, trial, settings, both=both) for t in tasks}
    return SpeakerModel(
        classifier=trial.classifier,
        penalty=trial.penalty,
        layers=trial.layers,
        part=settings.pooling_part,
        within=settings.within,
        temperature=trial.temperature,
        fitted=fitted,
        config=dict(store.config),
        origin=_origin(tasks, settings, split),
        learnt=learnt_rows(table, tasks),
        temperatures=warmth,
    )


def refits(settings: SweepSettings, split: str) -> bool:
    """Return whether the chosen classifier is fitted again on train and validation.

    With folds it is fitted on both anyway; after an enrolment split, on the enrolment alone.
    """
    return settings.refit and not settings.folds and split not in ENROLMENTS


def with_validation(task: Task) -> Task:
    """Return the task with its validation rows of known label added to the training rows."""
    labelled = task.codes["valid"] >= 0
    rows = np.concatenate([task.rows["train"], task.rows["valid"][labelled]])
    codes = np.concatenate([task.codes["train"], task.codes["valid"][labelled]])
    order = np.argsort(rows)
    return replace(
        task,
        rows={**task.rows, "train": rows[order]},
        codes={**task.codes, "train": codes[order]},
    )


def foretell(
    table: pd.DataFrame,
    store: FeatureStore,
    tasks: Sequence[Task],
    settings: SweepSettings,
    *,
    split: str = "unknown",
) -> dict[str, Any]:
    """Return the attributes that `fit`'s model will have, whatever validation chooses.

    Layers are those to choose from.
    """
    return {
        "part": settings.pooling_part,
        "within": settings.within,
        "config": dict(store.config),
        "origin": _origin(tasks, settings, split),
        "learnt": learnt_rows(table, tasks),
        "layers": layer_sets(settings.layers, settings.combine, store),
    }


def _fit_task(
    task: Task,
    X: np.ndarray,
    rows: np.ndarray,
    trial: Candidate,
    settings: SweepSettings,
    *,
    both: bool,
) -> FittedClassifier:
    """Fit on train, or with `both` on train and validation."""
    rounds = 0
    if both and trial.classifier == "lightgbm":  # only validation can decide when to stop
        before = _fit_task(task, X, rows, trial, settings, both=False)
        rounds = count_rounds(before.booster, len(task.labels))
    task = with_validation(task) if both else task
    train, valid = (X[np.searchsorted(rows, task.rows[s])] for s in TUNING)
    fold = make_fold(task, train, valid, settings.seed, rounds=rounds)
    head = fit_path(trial.classifier, fold, [trial.penalty])[0]
    return to_feature_space(head, fold.rotation, task.labels)


def _validation_scores(
    task: Task, X: np.ndarray, rows: np.ndarray, trial: Candidate, settings: SweepSettings
) -> np.ndarray:
    """Return scores (n, classes) of the validation rows by classifiers not trained on them."""
    train, valid = (X[np.searchsorted(rows, task.rows[s])] for s in TUNING)
    path = {trial.classifier: (trial.penalty,)}
    summed = GramSums(train, task.codes["train"], len(task.labels), task.cuts)
    validated = validate(task, summed, valid, path, settings.seed)
    return validated[trial.classifier].scores[0]


def _origin(tasks: Sequence[Task], settings: SweepSettings, split: str) -> dict[str, Any]:
    segments = {s: int(sum(len(task.rows[s]) for task in tasks)) for s in TUNING}
    both = segments["valid"] and (settings.folds or refits(settings, split))
    on = counted(settings.folds, "fold") if settings.folds else "valid"
    return {
        "fitted_on": "train and valid" if both else "train",
        "chosen_and_calibrated_on": on if segments["valid"] else NOTHING,
        "split": split,
        "seed": settings.seed,
        "segments": segments,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    return installed_versions(("spk-toolkit", "numpy", "scipy", "scikit-learn", "lightgbm"))


def predict(
    model: SpeakerModel,
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    *,
    split: str = "test",
    unknown_below: float | None = None,
    log: Log = warn,
) -> pd.DataFrame:
    """Name the speaker of each segment of a split, in table order.

    Parameters
    ----------
    table, store
        Segment table and features of the model's encoder, or their file and folder.
    split
        "train", "valid", "test" or "all": the rows to name; "all" for a table without a split.
    unknown_below
        Probability, 0..1: a less probable speaker is ``unknown``, and `best` has the speaker.
    log
        Receives lines on segments left out and on doubtful results.

    Returns
    -------
    DataFrame
        A predictions table, with the probabilities of all candidates in `scores`.

    Raises
    ------
    InputError
        The store is of another encoder or configuration, lacks segments, or nothing is left.

    Examples
    --------
    >>> predictions = predict(load_model("model"), "table.csv", "features")  # doctest: +SKIP
    """
    rows = as_table(table)
    named, left_out = name_segments(model, rows, open_store(store), split=split)
    for what, why in left_out.items():
        log(f"left out: {what}, {why}")
    named = named if unknown_below is None else with_unknown(named, unknown_below)
    for line in [*doubts(model, named, rows), *unnamed_lines(named, unknown_below)]:
        log(line)
    return named


def name_segments(
    model: SpeakerModel, table: pd.DataFrame, store: FeatureStore, *, split: str = "test"
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Name the speaker of each segment of a split, in table order; report what is left out.

    Parameters
    ----------
    split : "train", "valid", "test" or "all"
        The rows to name; ``all`` for a table without a split.

    Returns
    -------
    predictions : DataFrame
        A predictions table with `scores`.
    left_out : {session or "rejected": reason}
        Sessions without a classifier, and rejected segments.

    Raises
    ------
    InputError
        The store is of another encoder or configuration, lacks segments, or nothing is left.
    """
    check_config(model, store)
    rows = rows_of_split(table, split)
    usable, rejected = rows_with_features(rows, store)
    without = f"{counted(len(rejected), 'segment')} without features"
    left_out = {"rejected": without} if len(rejected) else {}
    sessions = usable["session"].to_numpy(str)
    if model.within == "session":
        for name in sorted(set(sessions) - set(model.fitted)):
            segments = counted(int(np.sum(sessions == name)), "segment")
            left_out[name] = f"{segments}, no model of this session"
        usable = usable[np.isin(sessions, list(model.fitted))].reset_index(drop=True)
    if not len(usable):
        names = ", ".join(map(repr, list(model.fitted)[:3]))
        more = " ..." if len(model.fitted) > 3 else ""
        raise InputError(
            f"table: {counted(0, 'segment', 'is', of=len(rows))} of the sessions that the model "
            f"learnt ({names}{more}), expected at least 1; {NEW_MEETING}"
        )
    return _named(model, usable, store), left_out


def unnamed_rows(
    model: SpeakerModel, named: pd.DataFrame, table: pd.DataFrame, split: str
) -> pd.DataFrame:
    """Return the rows of a split that were not named: `segment_id, session, reason`."""
    rows = rows_of_split(table, split)
    rest = rows[~rows["segment_id"].isin(set(named["segment_id"]))]
    modelled = (model.within == "corpus") | rest["session"].isin(set(model.fitted))
    reason = np.where(modelled, "rejected at extraction", "no model of this session")
    return rest[["segment_id", "session"]].assign(reason=reason).reset_index(drop=True)


def doubts(model: SpeakerModel, named: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Return lines on segments that the model was trained on, and on speakers it cannot name."""
    lines = unknown_note(named, table, within_corpus(model.name))
    lines += [] if model.calibrated else [NOT_CALIBRATED]
    if model.learnt is None:
        return [UNKNOWN_ORIGIN, *lines]
    rows = table.set_index("segment_id").loc[named["segment_id"]].reset_index()
    return learnt_note(learnt_from(rows, model.learnt), rows["segment_id"]) + lines


def check_config(model: SpeakerModel, store: FeatureStore) -> None:
    """Raise `InputError`, naming the keys that differ, unless the store fits the model."""
    where = str(store.path)
    repair = "run spk-extract with the model's options, or fit a model on this store"
    check_same_store(model.config, store, whose="the model's store", repair=repair)
    missing = [layer for layer in model.layers.layers if layer not in store.layers]
    if missing:
        raise InputError(
            f"{where}: layers {missing} are missing, found {list(store.layers)}; "
            "run spk-extract with these layers"
        )


def _named(model: SpeakerModel, table: pd.DataFrame, store: FeatureStore) -> pd.DataFrame:
    ids, sessions = (table[name].to_numpy(str) for name in ("segment_id", "session"))
    X = read_features(store, ids, model.layers, model.part)
    predicted = np.empty(len(table), dtype=object)
    score = np.empty(len(table))
    scores = np.empty(len(table), dtype=object)
    for name, fitted in model.fitted.items():
        rows = np.flatnonzero(sessions == name) if model.within == "session" else np.arange(len(X))
        if not len(rows):
            continue
        class_scores = fitted.scores(X[rows])
        temperature = model.temperatures.get(name, model.temperature)
        chances = calibrated(class_scores, temperature, model.knots.get(name))
        best = class_scores.argmax(axis=1)  # of scores: a flat isotonic curve would tie speakers
        predicted[rows] = np.array(fitted.labels, dtype=object)[best]
        score[rows] = np.minimum(chances[np.arange(len(best)), best], 1.0)
        scores[rows] = [scores_text(fitted.labels, row) for row in chances]
    name = model.name
    if model.learnt is not None:
        name = marked(name, learnt_from(table, model.learnt))
    return make_predictions(table, name, predicted=predicted, score=score, scores=scores)
