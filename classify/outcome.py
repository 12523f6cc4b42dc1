"""A whole experiment: chosen on validation, fitted on train, scored on test once, and put in words.

Over the corpus a classifier is also rewarded for knowing the room. So two numbers stand beside its
accuracy: the accuracy after folding the labels of one person in a series into one, and how well
the meeting alone is recognised from the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..extract.store import FeatureStore
from ..manifests.aishell4 import series_speaker
from ..manifests.table import SPLITS, InputError
from ..manifests.tasks import Task, check_splits, make_tasks
from .cells import Cells, fingerprint_of
from .conclude import baselines, conclude, curve_facts, fold_facts, left_out, mix_facts
from .data import Teller, match, open_store
from .folds import add_folds, join_tuning
from .model import KNOWS_THE_ROOM, Model, fit, predict
from .score import score
from .sweep import TUNING, Settings, Trial, choose, classifier_names, sweep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave.

    Attributes
    ----------
    trials : list of Trial
        Validation only.
    predictions, measures : DataFrame
        Of the chosen trial, on test.
    baselines : {"chance", "majority": accuracy 0..1 on validation}
    facts : tuple of str
        Sentences to show with the table: what was left out, which encoder and split, notes.
    """

    settings: Settings
    split: str
    trials: Sequence[Trial]
    chosen: Trial
    model: Model
    predictions: pd.DataFrame
    measures: pd.DataFrame
    baselines: Mapping[str, float]
    skipped: Mapping[str, str]
    facts: tuple[str, ...]
    conclusion: str


def evaluate(
    table: pd.DataFrame,
    store: str | Path,
    settings: Settings | None = None,
    *,
    split: str = "unknown",
    tell: Teller = lambda text: None,
    keep: Path | None = None,
) -> Outcome:
    """Sweep, choose on validation, fit on train, predict and score test once.

    With folds, train and valid are cross-validated and the chosen one is fitted on both.

    Parameters
    ----------
    table : segment table with a split
    store : path of the store
    split : str
        How the table was split (`data.split_method`); named in the outcome.
    tell : function of one str
        Receives what is worth knowing while it runs.
    keep : path, optional
        A file for finished trials; what it holds of the same sweep is not tried again.

    Raises
    ------
    InputError
        Segments have no features, a split is missing, or a setting is unknown.
    """
    settings = settings or Settings()
    opened = open_store(store)
    known, rejected, tasks, skipped = prepare(table, opened, settings, SPLITS)
    cells = Cells(keep, fingerprint_of(known, opened, tasks, settings)) if keep else None
    trials = sweep(known, opened, tasks, settings, tell=tell, cells=cells)
    chosen = choose(trials)
    model = fit(known, opened, tasks, chosen, settings, split=split)
    tested = known.iloc[_rows(tasks, "test")].reset_index(drop=True)
    predictions, _ = predict(model, tested, opened)
    facts = [
        f"encoder: {encoder_text(model)}",
        f"split: {split}",
        *mix_facts(chosen),
        *fold_facts(tasks, settings),
    ]
    facts += [*curve_facts(tasks, settings), *left_out(rejected, skipped, tasks, tested=True)]
    facts += sorted({note for trial in trials for note in trial.notes})
    measures = score(predictions, known, seed=settings.seed)
    conclusion = conclude(known, tasks, trials, predictions, measures)
    if settings.within == "corpus":
        conclusion += " " + beside_corpus(known, opened, chosen, settings, predictions)
    return Outcome(
        settings=settings,
        split=split,
        trials=trials,
        chosen=chosen,
        model=model,
        predictions=predictions,
        measures=measures,
        baselines=baselines(tasks, "valid"),
        skipped=skipped,
        facts=tuple(facts),
        conclusion=conclusion,
    )


def choose_and_fit(
    table: pd.DataFrame,
    store: str | Path,
    settings: Settings | None = None,
    *,
    split: str = "unknown",
    tell: Teller = lambda text: None,
) -> tuple[Model, list[str]]:
    """Return the model that validation chooses, fitted on train, and what was left out.

    Test rows are not read. Parameters and Raises as in `evaluate`.
    """
    settings = settings or Settings()
    opened = open_store(store)
    known, rejected, tasks, skipped = prepare(table, opened, settings, TUNING)
    chosen = choose(sweep(known, opened, tasks, settings, tell=tell))
    model = fit(known, opened, tasks, chosen, settings, split=split)
    facts = [
        f"encoder: {encoder_text(model)}",
        f"split: {split}",
        *mix_facts(chosen),
        *fold_facts(tasks, settings),
    ]
    facts += [*curve_facts(tasks, settings), *left_out(rejected, skipped, tasks)]
    facts += [*chosen.notes, _chosen_on(model, chosen)]
    if settings.within == "corpus":
        facts.append(KNOWS_THE_ROOM)
    return model, facts


def prepare(
    table: pd.DataFrame, store: FeatureStore, settings: Settings, needed: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[Task], dict[str, str]]:
    """Return the rows with features, the rejected ones, the tasks, and {session left out: why}.

    `needed` are the splits that must have rows. With folds, validation rows are named train, and
    nobody needs any.
    """
    classifier_names(settings)
    if settings.folds:
        needed = [name for name in needed if name != "valid"]
    check_splits(table, needed)
    known, rejected = match(table, store)
    if settings.folds:
        known = join_tuning(known)
    tasks, skipped = make_tasks(known, settings.within, needed=needed)
    if settings.folds:
        tasks, unfolded = add_folds(tasks, known, settings.folds, gap=settings.gap)
        skipped |= unfolded
    return known, rejected, tasks, skipped


def _chosen_on(model: Model, chosen: Trial) -> str:
    low, high = chosen.interval
    accuracy = f"{chosen.accuracy:.1%} ({low:.1%} to {high:.1%})"
    return f"chosen on validation: {model.name}, penalty {chosen.penalty}, accuracy {accuracy}"


def _rows(tasks: Sequence[Task], split: str) -> np.ndarray:
    return np.sort(np.concatenate([task.rows[split] for task in tasks]))


def encoder_text(model: Model) -> str:
    """Return the encoder's name and revision, and whether it is untrained."""
    revision = f" at {model.config.get('revision')}" if model.config.get("revision") else ""
    untrained = " (untrained encoder)" if model.config.get("untrained") else ""
    return f"{model.config.get('encoder')}{revision}{untrained}"


def beside_corpus(
    table: pd.DataFrame,
    store: FeatureStore,
    chosen: Trial,
    settings: Settings,
    predictions: pd.DataFrame,
) -> str:
    """Return the two sentences that must stand beside an accuracy over all labels."""
    folded = folded_accuracy(table, predictions)
    shown = "not available, the names tell no series" if folded is None else f"{folded:.1%}"
    count, accuracy = meeting_accuracy(table, store, chosen, settings)
    if count:
        meeting = f"is recognised in {accuracy:.1%} of {count} test segments from the same features"
    else:
        meeting = "cannot be recognised: no test segment is of a meeting in train"
    return (
        f"Accuracy after folding labels to the same person in a series: {shown}. "
        f"The meeting alone {meeting}."
    )


def folded_accuracy(table: pd.DataFrame, predictions: pd.DataFrame) -> float | None:
    """Return the accuracy with labels folded to persons in series; None where names do not tell.

    Source of the persons: same date, room and number are one person (almost always; see
    `manifests.aishell4`).
    """
    pairs = zip(table["session"], table["speaker"], strict=True)
    try:
        persons: dict[str, set[str]] = {}
        for session, speaker in sorted(set(pairs)):
            persons.setdefault(speaker, set()).add(series_speaker(session, speaker))
    except InputError:
        return None
    if any(len(found) > 1 for found in persons.values()):
        return None
    truth, predicted = (predictions[name] for name in ("speaker", "predicted"))
    return float(np.mean([persons[a] == persons[b] for a, b in zip(truth, predicted, strict=True)]))


def meeting_accuracy(
    table: pd.DataFrame, store: FeatureStore, chosen: Trial, settings: Settings
) -> tuple[int, float]:
    """Return how many test segments are of meetings in train, and how often these are recognised.

    The chosen layers and classifier learn sessions instead of speakers, with a penalty of their
    own from validation. One meeting only: always recognised. None of these segments: NaN.
    """
    meetings = set(table["session"][table["split"] == "train"])
    tested = table[(table["split"] == "test") & table["session"].isin(meetings)]
    if not len(tested) or len(meetings) < 2:
        return len(tested), 1.0 if len(tested) else float("nan")
    needed = ("train", "test") if settings.folds else SPLITS
    tasks, _ = make_tasks(table, "corpus", needed=needed, target="session")
    if settings.folds:
        tasks, _ = add_folds(tasks, table, settings.folds, gap=settings.gap)
    layers = ",".join(map(str, chosen.layers.layers))
    way = chosen.layers.standardise
    same = replace(settings, layers=layers, classifiers=chosen.classifier, standardise=way, jobs=1)
    trial = choose(sweep(table, store, tasks, same))
    model = fit(table, store, tasks, trial, same)
    named, _ = predict(model, tested.reset_index(drop=True), store)
    return len(named), float((named["predicted"] == named["session"]).mean())
