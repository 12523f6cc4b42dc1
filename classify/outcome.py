"""A whole experiment: chosen on validation, fitted on train, scored on test once, and put in words.

Over the corpus a classifier is also rewarded for knowing the room, so `control` stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.errors import InputError
from ..extract.store import FeatureStore
from ..manifests.table import SPLITS
from ..manifests.tasks import Task, check_splits, make_tasks
from .cells import Cells, fingerprint_of
from .conclude import (
    baselines,
    conclude,
    conclude_control,
    curve_facts,
    fold_facts,
    left_out,
    mix_facts,
)
from .control import control, persons_of
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
    control : DataFrame or None
        As `control.control` returns it; None within sessions.
    identity : str or None
        The file that told it who is who.
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
    control: pd.DataFrame | None = None
    identity: str | None = None


def evaluate(  # noqa: PLR0913  (the options of the command)
    table: pd.DataFrame,
    store: str | Path,
    settings: Settings | None = None,
    *,
    split: str = "unknown",
    tell: Teller = lambda text: None,
    keep: Path | None = None,
    anew: bool = True,
    identity: str | Path | None = None,
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
    anew : bool
        Whether that file is begun anew where it is another sweep's; otherwise it is refused.
    identity : path, optional
        Who is who, for the control of a task over all labels (`control.control`).

    Raises
    ------
    InputError
        Segments have no features, a split is missing, a setting is unknown, or the identity file
        does not fit.
    """
    settings = settings or Settings()
    if identity is not None:
        _check_identity(table, identity, settings)
    opened = open_store(store)
    known, rejected, tasks, skipped = prepare(table, opened, settings, SPLITS)
    cells = Cells(keep, fingerprint_of(known, opened, tasks, settings), anew=anew)
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
    beside = None
    if settings.within == "corpus":
        beside = control(known, opened, chosen, settings, predictions, identity=identity)
        conclusion += f"\n{conclude_control(beside)}"
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
        control=beside,
        identity=None if identity is None else str(identity),
    )


def _check_identity(table: pd.DataFrame, identity: str | Path, settings: Settings) -> None:
    """Find a bad identity file before anything is swept."""
    if settings.within != "corpus":
        raise InputError(
            f"identity: {identity} is given with within {settings.within!r}, where no labels are "
            "folded, expected 'corpus'; pass --within corpus, or leave --identity out"
        )
    persons_of(table, identity)


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
