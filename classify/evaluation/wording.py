"""Sentences on the results of a sweep; they claim only differences that an interval shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...manifests.splits.tasks import Task
from ..classifiers.temperatures import ENOUGH
from ..metrics import interval_groups, mean_interval
from ..options import SweepSettings
from ..selection.candidates import Candidate, choose, too_small, wider_interval
from ..selection.sweep import validation_groups
from ..validity import learnt_from, learnt_note, learnt_rows, unknown_text, within_corpus
from .score import drawn_first

if TYPE_CHECKING:
    import pandas as pd


VALUE = ("value", "low", "high")
ACCURACY = ("accuracy", "low", "high")  # columns of a share and its interval
# what a control over all labels recognises (`confounds.COLUMNS`)
LABEL, MEETING, ROOM = "label", "meeting", "room (series)"
SERIES, IDENTITY = "person (series)", "person (identity)"  # sources of persons


def places(rows: pd.DataFrame) -> str:
    """Return the number of meetings in predictions, and what their interval is over.

    With several models, the first decides whether there is a single task over all labels.
    """
    sessions, speakers = (rows[name].to_numpy(str) for name in ("session", "speaker"))
    one_task = "model" in rows and within_corpus(str(rows["model"].iloc[0]))
    count, people = len(set(sessions)), len(set(speakers))
    drawn = interval_groups(sessions, speakers, one_task=one_task)[1]
    over = {
        "meetings": "meetings and segments",
        "speakers": f"{counted(people, 'speaker')} and their segments",
        "segments": "one speaker's segments",
    }[drawn]
    return f"{counted(count, 'meeting')} (interval over {over})"


def baselines(tasks: Sequence[Task], split: str) -> dict[str, float]:
    """Return the accuracy of guessing and of always naming each task's majority label in train."""
    sizes = np.array([len(task.rows[split]) for task in tasks])
    chance = np.array([1 / len(task.labels) for task in tasks])
    hits = sum(int(np.sum(task.codes[split] == task.majority_code)) for task in tasks)
    return {"chance": float(sizes @ chance / sizes.sum()), "majority": float(hits / sizes.sum())}


def describe_sweep(
    table: pd.DataFrame,
    tasks: Sequence[Task],
    trials: Sequence[Candidate],
    predictions: pd.DataFrame,
    measures: pd.DataFrame,
    settings: SweepSettings,
) -> str:
    """Return the conclusion of a sweep, claiming only differences that a paired interval shows."""
    accuracy = measures.query("stratum == 'all' and measure == 'accuracy'").iloc[0]
    return (
        f"{accuracy['model']}: chosen on validation ({choose(trials).accuracy:.1%}), it names "
        f"{accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%}) of "
        f"{counted(len(predictions), 'test segment')} in {places(predictions)}; "
        f"{_against_majority(table, tasks, predictions)}. "
        f"{_rivals(tasks, table, trials, settings)}"
    )


def _against_majority(table: pd.DataFrame, tasks: Sequence[Task], predictions: pd.DataFrame) -> str:
    rows = np.concatenate([task.rows["test"] for task in tasks])
    hits = np.concatenate([task.codes["test"] == task.majority_code for task in tasks])
    usual = hits[np.argsort(rows)]
    correct = (predictions["speaker"] == predictions["predicted"]).to_numpy()
    gain = correct.astype(int) - usual.astype(int)
    low, _ = mean_interval(gain, drawn_first(predictions)[0])
    verb = "above" if low > 0 else "not shown to be above"
    return f"{verb} the majority class ({usual.mean():.1%}); chance {_chance(tasks):.1%}"


def _chance(tasks: Sequence[Task]) -> float:
    return baselines(tasks, "test")["chance"]


def _rivals(
    tasks: Sequence[Task],
    table: pd.DataFrame,
    trials: Sequence[Candidate],
    settings: SweepSettings,
) -> str:
    """Return a sentence on how many combinations are not shown to be worse than the chosen one."""
    if len(trials) == 1:
        return "Nothing else was tried."
    chosen = choose(trials)
    groups = validation_groups(table, tasks, settings)
    equal = 0
    for trial in trials:
        gain = chosen.correct.astype(int) - trial.correct.astype(int)
        equal += trial is not chosen and mean_interval(gain, groups)[0] <= 0
    return (
        f"Of {counted(len(trials) - 1, 'other combination')} of layers and classifier, {equal} "
        "are not shown to be worse on validation (95 % interval of the paired difference)."
    )


def fold_facts(tasks: Sequence[Task], settings: SweepSettings) -> list[str]:
    """Return a line on the folds, and on the segments left out for being too near."""
    if not settings.folds:
        return []
    held_out = sum(len(task.rows["valid"]) for task in tasks)
    near = [len(t.rows["train"]) - len(a) - len(b) for t in tasks for a, b in t.cuts]
    return [
        f"folds: {counted(settings.folds, 'block')} of time per speaker, "
        f"{counted(held_out, 'segment')} of train and valid held out in turn; {sum(near)} times a "
        f"segment within {settings.gap:g} s was not learnt"
    ]


def calibration_facts(tasks: Sequence[Task], settings: SweepSettings) -> list[str]:
    """Return a warning if validation is too small to calibrate probabilities."""
    count = sum(int(np.sum(task.codes["valid"] >= 0)) for task in tasks)
    if count >= ENOUGH:
        return []
    held_out = "held-out" if settings.folds else "validation"
    repair = "select more segments" if settings.folds else "pass --folds 5, or select more segments"
    return [
        f"calibration: {counted(count, f'{held_out} segment')} of known speakers, fewer than "
        f"{ENOUGH}: probabilities are rough, and nearly even if the evidence is weak; {repair}"
    ]


def choice_facts(
    trials: Sequence[Candidate], tasks: Sequence[Task], settings: SweepSettings
) -> list[str]:
    """Return a warning if validation is too small to choose by."""
    chosen = choose(trials)
    if len(trials) == 1 or not too_small(chosen):
        return []
    low, high = wider_interval(chosen)
    count = sum(len(task.rows["valid"]) for task in tasks)
    equals = sum(trial.accuracy == chosen.accuracy for trial in trials)
    repair = (
        "select more segments"
        if settings.folds
        else "pass --folds 5, which holds out train and valid in turn"
    )
    return [
        f"valid: {counted(count, 'segment', 'is')} too few to choose by: the chosen accuracy is "
        f"{with_interval({'value': chosen.accuracy, 'low': low, 'high': high}, *VALUE)}, and "
        f"{counted(equals, 'combination', 'has', of=len(trials))} it, of which the simplest "
        f"classifier is taken; {repair}"
    ]


def refit_facts(
    tasks: Sequence[Task], settings: SweepSettings, origin: Mapping[str, Any]
) -> list[str]:
    """Return a line on the rows the chosen classifier was fitted on, if that is a choice."""
    if settings.folds:
        return []
    if origin["fitted_on"] == "train":
        why = "--no-refit" if not settings.refit else f"split {origin['split']} learns no more"
        return [f"learnt: train alone ({why}); validation only chose and calibrated"]
    valid = sum(int(np.sum(task.codes["valid"] >= 0)) for task in tasks)
    train = sum(len(task.rows["train"]) for task in tasks)
    return [
        f"learnt: train and valid ({train} and {counted(valid, 'segment')}), on which the chosen "
        "one is fitted again, with the temperature from before; --no-refit leaves it at train"
    ]


def unknown_facts(table: pd.DataFrame, tasks: Sequence[Task], splits: Sequence[str]) -> list[str]:
    """Return a line per split on segments whose speakers are absent from train."""
    facts = []
    for split in splits:
        rows = np.concatenate([task.rows[split][task.codes[split] < 0] for task in tasks])
        if len(rows):
            whole = sum(len(task.rows[split]) for task in tasks)
            first = str(table["speaker"].iloc[rows[0]])
            facts.append(f"{split}: {unknown_text(len(rows), whole, first)}")
    return facts


def validation_facts(table: pd.DataFrame, tasks: Sequence[Task]) -> list[str]:
    """Return a warning on validation segments that share audio with training segments."""
    learnt = learnt_rows(table, tasks)
    rows = learnt[learnt["split"] == "valid"]
    lines = learnt_note(learnt_from(rows, learnt[learnt["split"] == "train"]), rows["segment_id"])
    return [f"valid: {line}" for line in lines]


def conclude_score(measures: pd.DataFrame, predictions: pd.DataFrame) -> list[str]:
    """Return a line per model on its accuracy, the majority's and that of guessing."""
    sentences = []
    for model, rows in measures.groupby("model", sort=False):
        by_measure = {
            row["measure"]: row for row in rows[rows["stratum"] == "all"].to_dict("records")
        }
        accuracy, named = by_measure["accuracy"], predictions[predictions["model"] == model]
        value, name = usual(by_measure)
        sentences.append(
            f"{model}: names {with_interval(accuracy, 'value', 'low', 'high')} of "
            f"{counted(accuracy['segments'], 'segment')} in {places(named)}; always naming the "
            f"{name} gives {value:.1%}, guessing {by_measure['chance']['value']:.1%}."
        )
    return sentences


def usual(by_measure: Mapping[str, Any]) -> tuple[float, str]:
    """Return the majority's accuracy and what the majority is, from {measure: its row}."""
    if "majority" in by_measure:
        return float(by_measure["majority"]["value"]), "most frequent speaker"
    return float(by_measure["majority_scored"]["value"]), "most frequent of the scored speakers"


def conclude_control(control: pd.DataFrame) -> str:
    """Return sentences on a control; recognition of meetings is claimed only if shown."""
    rows = {str(row["of"]): row for row in control.to_dict("records")}
    person = next((row for of, row in rows.items() if of in (SERIES, IDENTITY)), None)
    words = [_of_persons(rows[LABEL], person)]
    if MEETING in rows:
        words.append(_of_rooms(rows[MEETING], rows.get(ROOM)))
    return " ".join(words)


def _of_persons(label: Mapping[str, float], person: Mapping[str, float] | None) -> str:
    if person is None:
        return "Who is who is not known: the meetings' names tell no series; pass --identity."
    if person["classes"] == label["classes"]:
        return (
            f"Each of the {counted(int(label['classes']), 'label')} is a person of its own: "
            "nothing is folded."
        )
    wrong = round((1 - label["accuracy"]) * label["segments"])
    saved = round((person["accuracy"] - label["accuracy"]) * label["segments"])
    return (
        f"Folded to {counted(int(person['classes']), 'person')}, the "
        f"{counted(int(label['classes']), 'label', 'gives')} {with_interval(person, *ACCURACY)}: "
        f"{counted(saved, 'wrong name', 'is', of=wrong)} the right person under another label."
    )


def _of_rooms(meeting: Mapping[str, float], room: Mapping[str, float] | None) -> str:
    if not meeting["segments"]:
        return "The meeting cannot be recognised: no test segment is of a meeting in train."
    if meeting["classes"] == 1:
        return "Train has one meeting, so there is no room to recognise."
    what = (
        "the meeting is recognised, by its room or by who is in it, and accuracy over labels "
        "rewards that too"
        if meeting["mean_low"] > meeting["mean_majority"]
        else "that the meeting is recognised is not shown"
    )
    beside = "" if room is None else f", its date and room in {with_interval(room, *ACCURACY)}"
    return (
        f"The same features recognise the meeting alone in {with_interval(meeting, *ACCURACY)} of "
        f"{counted(int(meeting['segments']), 'test segment')}{beside}. As mean over meetings that "
        f"is {with_interval(meeting, 'mean', 'mean_low', 'mean_high')}, where one name for all "
        f"gives {meeting['mean_majority']:.1%}: {what}."
    )


def with_interval(row: Mapping[Any, Any], value: str, low: str, high: str) -> str:
    """Return a share of a row with its interval.

    >>> with_interval({"accuracy": 0.5, "low": 0.25, "high": 1}, "accuracy", "low", "high")
    '50.0% (25.0% to 100.0%)'
    """
    return f"{row[value]:.1%} ({row[low]:.1%} to {row[high]:.1%})"
