"""A whole experiment: choose on validation, fit on train, score test once, describe the result.

Over the corpus a classifier is also rewarded for recognising the room; `control` measures that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.engine.options import check_may_join
from ..common.errors import InputError
from ..common.log import log, warn
from ..extract.store.reader import FeatureStore
from ..manifests.split_record import split_method
from ..manifests.splits.tasks import Task
from ..manifests.table import SPLITS, as_table
from .evaluation.confounds import confound_table, person_of_label
from .evaluation.score import measure
from .evaluation.wording import (
    baselines,
    calibration_facts,
    choice_facts,
    conclude_control,
    describe_sweep,
    fold_facts,
    refit_facts,
    unknown_facts,
    validation_facts,
)
from .features import Log, encoder_kind, open_store
from .options import SweepSettings
from .selection.candidates import Candidate, choose
from .selection.prepare import LEFT_OUT_FILE, Prepared, layers_of, left_out_lines, prepare_tasks
from .selection.run_inputs import Inputs, begin_run, inputs_of
from .selection.sweep import TUNING, sweep
from .selection.sweep_cache import SweepCache, fingerprint_of
from .selection.without_validation import (
    only_candidate,
    settings_without_choice,
    what_is_not_known,
)
from .speaker_model import (
    KNOWS_THE_ROOM,
    SpeakerModel,
    fit_model,
    foretell,
    name_segments,
)
from .validity import learnt_from, learnt_note, learnt_rows, split_doubts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """The results of an experiment.

    Attributes
    ----------
    trials : list of Candidate
        Results on validation.
    predictions, measures : DataFrame
        Of the chosen trial on test.
    baselines : {"chance", "majority": accuracy 0..1 on validation}
    facts : tuple of str
        Sentences to show with the measures: what was left out, encoder and split, notes.
    skipped : {session: why it was left out}
    left_out : DataFrame
        The rows that could not be used: `segment_id, session, reason`.
    control : DataFrame or None
        As returned by `confounds.confound_table`; None within sessions.
    identity : str or None
        The file that maps speakers to persons.
    """

    settings: SweepSettings
    split: str
    trials: Sequence[Candidate]
    chosen: Candidate
    model: SpeakerModel
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

    def __repr__(self) -> str:
        """Return one line, for notebooks: the models have thousands of numbers."""
        return f"<ExperimentResult {self.conclusion}>"


def run_experiment(  # noqa: PLR0913  (the options of the command)
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    settings: SweepSettings | None = None,
    *,
    split: str | None = None,
    log: Log = log,
    keep: Path | None = None,
    anew: bool = True,
    identity: str | Path | None = None,
    **changes: Any,
) -> ExperimentResult:
    """Sweep, choose on validation, fit on train, predict and score test once.

    With folds, train and valid are cross-validated and the chosen classifier is fitted on both.

    Parameters
    ----------
    table
        Segment table with a split, or its file.
    store
        Pooled features of its segments, or their folder.
    settings
        What to try, and how.
    split
        How the table was split; None: from its record (``table.attrs["split"]``). The result
        includes it; a leaky split also marks the names of the model and its predictions.
    log
        Receives lines of progress.
    keep : path, optional
        File for finished trials; those of the same sweep are not repeated. Its folder becomes the
        run's folder, which must not hold a run of another table or store.
    anew : bool
        Whether to replace such a run, or a file of another sweep, rather than raise `InputError`.
    identity : path, optional
        Maps speakers to persons, for the control over all labels (`confounds.confound_table`).
    changes
        Fields of `SweepSettings` that override those of `settings`.

    Raises
    ------
    InputError
        Segments have no features, a split is missing, a setting is unknown, or the identity file
        does not fit.
    UnitsFailedError
        Layers were given up because each killed its process; `keep` has the others.

    Examples
    --------
    >>> result = run_experiment("table.csv", "features", classifiers=["ridge"])  # doctest: +SKIP
    >>> print(result.conclusion)  # doctest: +SKIP
    """
    settings = replace(settings or SweepSettings(), **changes)
    check_may_join(settings.engine, settings.ray_address)
    table, opened = as_table(table), open_store(store)
    split = _recorded_split(table) if split is None else split
    _check_identity(table, identity, settings)
    ready = prepare_tasks(table, opened, settings, SPLITS)
    usable, tasks = ready.table, ready.tasks
    if keep is not None:
        begin_run(keep.parent, table, opened, layers_of(settings, opened), anew=anew)
    cells = SweepCache(keep, fingerprint_of(usable, opened, tasks, settings), anew=anew)
    trials = sweep(usable, opened, tasks, settings, log=log, cells=cells)
    chosen = choose(trials)
    model = fit_model(usable, opened, tasks, chosen, settings, split=split)
    tested = usable.iloc[_rows(tasks, "test")].reset_index(drop=True)
    predictions, _ = name_segments(model, tested, opened)
    facts = _facts(model, ready, trials, settings, tested=True)
    facts += sorted({note for trial in trials for note in trial.notes})
    facts += learnt_note(learnt_from(tested, learnt_rows(usable, tasks)), tested["segment_id"])
    measures = measure(predictions, table, seed=settings.seed)
    conclusion = describe_sweep(usable, tasks, trials, predictions, measures, settings)
    beside = None
    if settings.within == "corpus":
        beside = confound_table(ready, opened, chosen, settings, predictions, identity=identity)
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
        conclusion=conclusion if beside is None else f"{conclusion}\n{conclude_control(beside)}",
        control=beside,
        identity=None if identity is None else str(identity),
    )


def _recorded_split(table: pd.DataFrame) -> str:
    """Return how a table was split, with a warning if that makes scores doubtful."""
    method = split_method(table)
    for line in split_doubts(method):
        warn(line)
    return method


def _check_identity(
    table: pd.DataFrame, identity: str | Path | None, settings: SweepSettings
) -> None:
    """Check the identity file before the sweep."""
    if identity is None:
        return
    if settings.within != "corpus":
        raise InputError(
            f"identity: {identity} is given with within {settings.within!r}, which merges no "
            "labels, expected 'corpus'; pass --within corpus, or leave --identity out"
        )
    person_of_label(table, identity)


def fit(
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    settings: SweepSettings | None = None,
    *,
    log: Log = log,
    **changes: Any,
) -> SpeakerModel:
    """Choose on validation and fit on train; test rows are not read.

    Parameters
    ----------
    table, store, settings, changes
        As in `run_experiment`. With a single layer, classifier and penalty, nothing is chosen.
    log
        Receives lines on what was left out and chosen.

    Returns
    -------
    SpeakerModel
        For `predict` and `save_model`.

    Raises
    ------
    InputError
        As in `run_experiment`.

    Examples
    --------
    >>> model = fit("table.csv", "features", classifiers=["ridge"])  # doctest: +SKIP
    """
    rows, chosen = as_table(table), replace(settings or SweepSettings(), **changes)
    split = _recorded_split(rows)
    model, facts, _ = fit_best(rows, store, chosen, split=split, log=log)
    for line in facts:
        log(line)
    return model


def fit_best(
    table: pd.DataFrame,
    store: FeatureStore | str | Path,
    settings: SweepSettings | None = None,
    *,
    split: str = "unknown",
    log: Log = lambda text: None,
    before: Callable[[Mapping[str, Any]], None] = lambda foretold: None,
) -> tuple[SpeakerModel, list[str], pd.DataFrame]:
    """Return the model chosen on validation and fitted on train, its facts, and what is left out.

    The facts are sentences to show; left out are the rows that could not be used (`segment_id,
    session, reason`). Without validation rows nothing is chosen, and the model is uncalibrated,
    with a warning (`selection.without_validation`). Test rows are not read. Parameters and errors
    are those of `run_experiment`; `before` is called with the result of `speaker_model.foretell`
    before the sweep.
    """
    settings = settings or SweepSettings()
    opened = open_store(store)
    fixed = settings_without_choice(table, opened, settings)
    if fixed is not None:
        return _fit_fixed(table, opened, fixed, settings, split=split, before=before)
    ready = prepare_tasks(table, opened, settings, TUNING)
    before(foretell(ready.table, opened, ready.tasks, settings, split=split))
    trials = sweep(ready.table, opened, ready.tasks, settings, log=log)
    chosen = choose(trials)
    model = fit_model(ready.table, opened, ready.tasks, chosen, settings, split=split)
    facts = _facts(model, ready, trials, settings)
    facts += [*chosen.notes, _chosen_on(model, chosen)]
    if settings.within == "corpus":
        facts.append(KNOWS_THE_ROOM)
    return model, facts, ready.left_out


def _fit_fixed(
    table: pd.DataFrame,
    store: FeatureStore,
    settings: SweepSettings,
    tried: SweepSettings,
    *,
    split: str,
    before: Callable[[Mapping[str, Any]], None],
) -> tuple[SpeakerModel, list[str], pd.DataFrame]:
    """Fit the one candidate of `settings`, without validation rows; `tried` are those given."""
    ready = prepare_tasks(table, store, settings, TUNING[:1])
    before(foretell(ready.table, store, ready.tasks, settings, split=split))
    only = only_candidate(store, settings)
    model = fit_model(ready.table, store, ready.tasks, only, settings, split=split)
    for line in what_is_not_known(ready.table, ready.tasks, only, tried):
        warn(line)
    facts = [f"encoder: {encoder_text(model)}", f"split: {model.origin['split']}"]
    facts += left_out_lines(ready.rejected, ready.skipped, LEFT_OUT_FILE)
    return model, facts, ready.left_out


def _facts(
    model: SpeakerModel,
    ready: Prepared,
    trials: Sequence[Candidate],
    settings: SweepSettings,
    *,
    tested: bool = False,
) -> list[str]:
    """Return the sentences to show above a result; with `tested`, on test rows too."""
    splits = ("valid", "test") if tested else ("valid",)
    return [
        f"encoder: {encoder_text(model)}",
        f"split: {model.origin['split']}",
        *fold_facts(ready.tasks, settings),
        *left_out_lines(ready.rejected, ready.skipped, LEFT_OUT_FILE),
        *unknown_facts(ready.table, ready.tasks, splits),
        *validation_facts(ready.table, ready.tasks),
        *calibration_facts(ready.tasks, settings),
        *choice_facts(trials, ready.tasks, settings),
        *refit_facts(ready.tasks, settings, model.origin),
    ]


def _chosen_on(model: SpeakerModel, chosen: Candidate) -> str:
    low, high = chosen.interval
    accuracy = f"{chosen.accuracy:.1%} ({low:.1%} to {high:.1%})"
    penalty = "" if chosen.penalty is None else f", penalty {chosen.penalty:g}"
    return f"chosen on validation: {model.name}{penalty}, accuracy {accuracy}"


def _rows(tasks: Sequence[Task], split: str) -> np.ndarray:
    return np.sort(np.concatenate([task.rows[split] for task in tasks]))


def encoder_text(model: SpeakerModel) -> str:
    """Return the encoder's name and revision, and whether it is untrained or a baseline."""
    revision = f" at {model.config.get('revision')}" if model.config.get("revision") else ""
    return f"{model.config.get('encoder')}{revision}{encoder_kind(model.config, ' ({})')}"
