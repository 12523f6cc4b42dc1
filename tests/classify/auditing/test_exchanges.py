"""Two speakers whose labels are exchanged, for a stretch of time or a whole session."""

import numpy as np
import pandas as pd
import pytest

from spk.classify.auditing.exchanges import best_run, exchanged_sessions, exchanged_stretches
from spk.classify.auditing.held_out import Judged
from spk.classify.auditing.options import AuditOptions
from spk.classify.auditing.run import run_audit


def exchange(table, rows):
    """Exchange 001-M and 002-M in some rows."""
    other = {"001-M": "002-M", "002-M": "001-M"}
    names = table["speaker"].copy()
    names[rows] = [name[:-5] + other.get(name[-5:], name[-5:]) for name in names[rows]]
    return table.assign(speaker=names)


@pytest.mark.parametrize(
    ("gain", "run"),
    [([1, 1, 1], (0, 3)), ([-1, -1], (0, 0)), ([2, -3, 2, 2, -9, 3], (2, 4))],
)
def test_the_best_run_has_the_greatest_sum(gain, run):
    assert best_run(np.array(gain, float)) == run


def test_a_stretch_is_exchanged_only_where_both_fit_the_other():
    codes = np.array([0, 1] * 12)
    own = np.full(24, 0.95)
    own[8:16] = 0.05
    chances = np.stack([np.where(codes == 0, own, 1 - own), np.where(codes == 1, own, 1 - own)], 1)
    judged = Judged("S", ("a", "b"), np.arange(24), codes, chances, chances)
    assert np.flatnonzero(exchanged_stretches(judged, np.arange(24.0)) >= 0).tolist() == [
        *range(8, 16)
    ]
    own[codes == 1] = 0.95  # now only a's turns fit b
    chances = np.stack([np.where(codes == 0, own, 1 - own), np.where(codes == 1, own, 1 - own)], 1)
    judged = Judged("S", ("a", "b"), np.arange(24), codes, chances, chances)
    assert (exchanged_stretches(judged, np.arange(24.0)) == -1).all()


def test_labels_exchanged_for_a_stretch_are_found_as_such(table, store, learnt):
    session = table["session"].iloc[0]
    late = (table["session"] == session) & (table["start"] > 80)
    changed = exchange(table, late)
    turns = run_audit(changed, store, AuditOptions(**learnt)).turns.set_index("segment_id")
    wrong = changed["speaker"] != table["speaker"]
    truth = table[wrong].set_index("segment_id")["speaker"]
    found = turns[turns["kind"] == "exchange"]
    assert {*truth.index} & {*found.index} == {*truth.index}
    assert len(found) <= len(truth) + 2  # a turn at an end of the stretch
    assert found["suggested"].loc[truth.index].equals(truth)
    assert found["proposed"].all()


@pytest.fixture(scope="module")
def related(table):
    """Vectors of a voice per person of the series, and {label: person}."""
    person = {label: label[:15] + label[-5:] for label in sorted({*table["speaker"]})}
    rng = np.random.default_rng(3)
    voices = {name: rng.normal(size=16) for name in sorted({*person.values()})}
    rooms = {name: rng.normal(size=16) * 3 for name in sorted({*table["session"]})}
    pairs = zip(table["speaker"], table["session"], strict=True)
    clean = np.stack([voices[person[label]] + rooms[session] for label, session in pairs])
    return clean + rng.normal(size=clean.shape), person


def test_labels_exchanged_throughout_a_session_are_found_by_the_others(table, related):
    X, person = related
    session = table["session"].iloc[0]
    assert exchanged_sessions(table, X, person) == {}
    changed = exchange(table, table["session"] == session)
    a, b = f"{session}_001-M", f"{session}_002-M"
    pairs = exchanged_sessions(changed, X, person)
    # with two sessions nobody can say in which of them the labels are wrong
    assert (pairs[session, a], pairs[session, b]) == ((b, False), (a, False))
    assert {name for name, _ in pairs} == {session, table["session"].unique()[1]}


def test_the_session_that_two_others_contradict_is_the_one(toy_table):
    sessions = [f"20990101_S_R001S0{k}C01" for k in (1, 2, 3)]
    table = toy_table(sessions, repeats=1)
    person = {label: label[-5:] for label in {*table["speaker"]}}
    rng = np.random.default_rng(3)
    voices = {name: rng.normal(size=16) for name in sorted({*person.values()})}
    X = np.stack([voices[person[label]] for label in table["speaker"]])
    X += rng.normal(size=X.shape)
    changed = exchange(table, table["session"] == sessions[1])
    pairs = exchanged_sessions(changed, X, person)
    a, b = f"{sessions[1]}_001-M", f"{sessions[1]}_002-M"
    assert pairs == {(sessions[1], a): (b, True), (sessions[1], b): (a, True)}


@pytest.mark.parametrize("seed", range(20))
def test_of_two_sessions_neither_is_called_wrong_even_where_only_one_looks_so(seed):
    """Voices differ from session to session, so that one may look exchanged and not the other."""
    rng = np.random.default_rng(seed)
    voices = rng.normal(size=(4, 16))
    rows, vectors = [], []
    for session in ("S1", "S2"):
        today = voices + 1.2 * rng.normal(size=voices.shape)
        for speaker in range(4):
            label = {0: 1, 1: 0}.get(speaker, speaker) if session == "S1" else speaker
            rows += [(session, f"{session}_{label}")] * 12
            vectors.append(today[speaker] + rng.normal(size=(12, 16)))
    table = pd.DataFrame(rows, columns=["session", "speaker"])
    person = {label: label[-1] for label in table["speaker"]}
    pairs = exchanged_sessions(table, np.concatenate(vectors), person)
    assert not any(certain for _, certain in pairs.values())


def test_sessions_that_share_nobody_tell_nothing(table, related):
    X, _ = related
    alone = {label: label for label in {*table["speaker"]}}
    changed = exchange(table, table["session"] == table["session"].iloc[0])
    assert exchanged_sessions(changed, X, alone) == {}
