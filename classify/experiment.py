"""A whole experiment: chosen on validation, fitted on train, scored on test once, and put in words.

Over the corpus a classifier is also rewarded for knowing the room, so `control` stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InputError
from ..manifests.splits.tasks import Task
from ..manifests.table import SPLITS
from .evaluation.confounds import confound_table, person_of_label
from .evaluation.score import score
from .evaluation.wording import (
    baselines,
    conclude_control,
    curve_facts,
    describe_sweep,
    fold_facts,
    mix_facts,
    unknown_facts,
    validation_facts,
)
from .features import Log, open_store
from .selection.candidates import Candidate, SweepSettings, choose
from .selection.prepare import LEFT_OUT_FILE, Prepared, layers_of, left_out_lines, prepare_tasks
from .selection.run_inputs import Inputs, begin_run, inputs_of
from .selection.sweep import TUNING, sweep
from .selection.sweep_cache import SweepCache, fingerprint_of
from .speaker_model import KNOWS_THE_ROOM, Model, fit, foretell, predict
from .validity import learnt_from, learnt_note, learnt_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """What an experiment gave.

    Attributes
    ----------
    trials : list of Candidate
        Validation only.
    predictions, measures : DataFrame
        Of the chosen trial, on test.
    baselines : {"chance", "majority": accuracy 0..1 on validation}
    facts : tuple of str
        Sentences to show with the table: what was left out, which encoder and split, notes.
    skipped : {session: why it was left out}
    left_out : DataFrame
        The rows that could not be used: `segment_id, session, reason`.
    control : DataFrame or None
        As `confounds.confound_table` returns it; None within sessions.
    identity : str or None
        The file that told it who is who.
    """

    settings: SweepSettings
    split: str
    trials: Sequence[Candidate]
    chosen: Candidate
    model: Model
    predictions: pd.DataFrame
    measures: pd.DataFrame
    baselines: Mapping[str, float]
    skipped: Mapping[str, str]
    left_out: pd.DataFrame
    inputs: Inputs
    facts: tuple[str, ...]
    conclusion: str
    control: pd.DataFrame | None = None
    identity: str | None = None


def run_experiment(  # noqa: PLR0913  (the options of the command)
    table: pd.DataFrame,
    store: str | Path,
    settings: SweepSettings | None = None,
    *,
    split: str = "unknown",
    tell: Log = lambda text: None,
    keep: Path | None = None,
    anew: bool = True,
    identity: str | Path | None = None,
) -> ExperimentResult:
    """Sweep, choose on validation, fit on train, predict and score test once.

    With folds, train and valid are cross-validated and the chosen one is fitted on both.

    Parameters
    ----------
    table : segment table with a split
    store : path of the store
    split : str
        How the table was split (`tasks.split_method`); named in the outcome.
    tell : function of one str
        Receives what is worth knowing while it runs.
    keep : path, optional
        A file for finished trials; what it holds of the same sweep is not tried again. Its folder
        is the run's, which is refused where it holds a run of another table or store.
    anew : bool
        Whether such a folder, or a file of another sweep, is begun anew instead.
    identity : path, optional
        Who is who, for the control of a task over all labels (`confounds.confound_table`).

    Raises
    ------
    InputError
        Segments have no features, a split is missing, a setting is unknown, or the identity file
        does not fit.
    """
    settings = settings or SweepSettings()
    if identity is not None:
        _check_identity(table, identity, settings)
    opened = open_store(store)
    ready = prepare_tasks(table, opened, settings, SPLITS)
    known, tasks = ready.table, ready.tasks
    if keep is not None:
        begin_run(keep.parent, table, opened, layers_of(settings, opened), anew=anew)
    cells = SweepCache(keep, fingerprint_of(known, opened, tasks, settings), anew=anew)
    trials = sweep(known, opened, tasks, settings, tell=tell, cells=cells)
    chosen = choose(trials)
    model = fit(known, opened, tasks, chosen, settings, split=split)
    tested = known.iloc[_rows(tasks, "test")].reset_index(drop=True)
    predictions, _ = predict(model, tested, opened)
    facts = _facts(model, ready, chosen, settings, tested=True)
    facts += sorted({note for trial in trials for note in trial.notes})
    facts += learnt_note(learnt_from(tested, learnt_rows(known, tasks)), tested["segment_id"])
    measures = score(predictions, table, seed=settings.seed)
    conclusion = describe_sweep(known, tasks, trials, predictions, measures)
    beside = None
    if settings.within == "corpus":
        beside = confound_table(ready, opened, chosen, settings, predictions, identity=identity)
        conclusion += f"\n{conclude_control(beside)}"
    return ExperimentResult(
        settings=settings,
        split=split,
        trials=trials,
        chosen=chosen,
        model=model,
        predictions=predictions,
        measures=measures,
        baselines=baselines(tasks, "valid"),
        skipped=ready.skipped,
        left_out=ready.left_out,
        inputs=inputs_of(table, opened, layers_of(settings, opened)),
        facts=tuple(facts),
        conclusion=conclusion,
        control=beside,
        identity=None if identity is None else str(identity),
    )


def _check_identity(table: pd.DataFrame, identity: str | Path, settings: SweepSettings) -> None:
    """Find a bad identity file before anything is swept."""
    if settings.within != "corpus":
        raise InputError(
            f"identity: {identity} is given with within {settings.within!r}, where no labels are "
            "folded, expected 'corpus'; pass --within corpus, or leave --identity out"
        )
    person_of_label(table, identity)


def fit_best(
    table: pd.DataFrame,
    store: str | Path,
    settings: SweepSettings | None = None,
    *,
    split: str = "unknown",
    tell: Log = lambda text: None,
    before: Callable[[Mapping[str, Any]], None] = lambda foretold: None,
) -> tuple[Model, list[str], pd.DataFrame]:
    """Return the model that validation chooses, what is worth telling, and what is left out.

    It is fitted on train; left out are rows that could not be used, `segment_id, session, reason`.
    Test rows are not read. Parameters and Raises as in `run_experiment`; `before` is given what
    `speaker_model.foretell` returns, before anything is tried.
    """
    settings = settings or SweepSettings()
    opened = open_store(store)
    ready = prepare_tasks(table, opened, settings, TUNING)
    before(foretell(ready.table, opened, ready.tasks, settings, split=split))
    chosen = choose(sweep(ready.table, opened, ready.tasks, settings, tell=tell))
    model = fit(ready.table, opened, ready.tasks, chosen, settings, split=split)
    facts = _facts(model, ready, chosen, settings)
    facts += [*chosen.notes, _chosen_on(model, chosen)]
    if settings.within == "corpus":
        facts.append(KNOWS_THE_ROOM)
    return model, facts, ready.left_out


def _facts(
    model: Model,
    ready: Prepared,
    chosen: Candidate,
    settings: SweepSettings,
    *,
    tested: bool = False,
) -> list[str]:
    """Return the sentences that stand above a result; `tested`: of test, too."""
    splits = ("valid", "test") if tested else ("valid",)
    return [
        f"encoder: {encoder_text(model)}",
        f"split: {model.origin['split']}",
        *mix_facts(chosen),
        *fold_facts(ready.tasks, settings),
        *curve_facts(ready.tasks, settings),
        *left_out_lines(ready.rejected, ready.skipped, LEFT_OUT_FILE),
        *unknown_facts(ready.table, ready.tasks, splits),
        *validation_facts(ready.table, ready.tasks),
    ]


def _chosen_on(model: Model, chosen: Candidate) -> str:
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
