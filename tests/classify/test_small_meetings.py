"""Promises over random small meetings: 1 to 5 segments a speaker, far fewer than features.

Held-out log-loss of calibrated probabilities is not shown to be above that of even ones: below,
where voices differ, and never much above, where nothing tells them apart.
"""

import json

import numpy as np
import pandas as pd
import pytest

from spk.classify.classifiers.registry import PENALTIES
from spk.classify.evaluation.score import score
from spk.classify.experiment import fit_best, run_experiment
from spk.classify.options import SweepSettings
from spk.classify.speaker_model import name_segments
from spk.extract.store.reader import FeatureStore
from spk.manifests.table import segment_id

DIM = 200
ROWS_SUM = 2e-5  # of at most twelve probabilities to six digits
ROUNDING = 1e-5  # nat, what six digits leave of a loss that is that of even probabilities
BY_CHANCE = 2  # of the runs of a classifier, whose 95 % interval may lie above by chance alone
SEEDS = range(10)


def random_table(rng, meetings=3):
    """Return a table of small meetings: each speaker has 1 to 5 training segments, tests 8."""
    rows = []
    for meeting in range(meetings):
        for speaker in range(rng.integers(2, 13)):
            counts = {"train": rng.integers(1, 6), "valid": rng.integers(0, 3), "test": 8}
            for split, count in counts.items():
                rows += [(f"m{meeting}", f"m{meeting}_{speaker:03d}-M", split)] * int(count)
    table = pd.DataFrame(rows, columns=["session", "speaker", "split"])
    start = 4.0 * np.arange(len(table))
    ids = [segment_id(s, n, t, t + 1.5) for s, n, t in zip(*table.values.T[:2], start, strict=True)]
    return table.assign(segment_id=ids, start=start, end=start + 1.5, audio="a.wav", overlap=0.0)


def random_features(table, rng):
    """Return (n, 1, DIM) features: voices that differ by something between nothing and much."""
    distance = rng.choice([0.0, 0.1, 0.3, 1.0])
    speakers = sorted(set(table["speaker"]))
    voices = dict(zip(speakers, distance * rng.normal(size=(len(speakers), DIM)), strict=True))
    centre = np.stack([voices[name] for name in table["speaker"]])
    return (centre + rng.normal(size=(len(table), DIM)))[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, write_store):
    """Return (table, path of its store) once per seed."""
    made = []
    for seed in SEEDS:
        rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("small")
        table = random_table(rng)
        features = random_features(table, rng)
        write_store(folder / "store", list(table["segment_id"]), features, layers=[0], dim=DIM)
        made.append((table, folder / "store"))
    return made


def excess(named):
    """Return how far each row's loss (n,) is above that of even probabilities."""
    chances = [json.loads(text) for text in named["scores"]]
    for row in chances:
        assert sum(row.values()) == pytest.approx(1, abs=ROWS_SUM)
        assert np.isfinite(list(row.values())).all()
    true = np.array([row[name] for row, name in zip(chances, named["speaker"], strict=True)])
    return -np.log(np.maximum(true, 1e-15)) - np.log([len(row) for row in chances])


@pytest.mark.slow
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("classifier", PENALTIES)
def test_log_loss_is_not_shown_to_be_above_even_probabilities(classifier, refit, tasks):
    above = []
    for table, path in tasks:
        settings = SweepSettings(classifiers=classifier, jobs=1, refit=refit)
        model, _, _ = fit_best(table, path, settings)
        loss = excess(name_segments(model, table, FeatureStore.open(path))[0])
        low = loss.mean() - 1.96 * loss.std() / np.sqrt(len(loss))
        above.append(low)
    assert sum(low > ROUNDING for low in above) < BY_CHANCE, above
    assert max(above) < 0.05  # nat, where chance had its way


def test_lda_has_something_to_say_where_each_speaker_has_one_segment(write_store, tmp_path):
    """All its probabilities were 1 / speakers, and its scores of the order of 1e16."""
    rng = np.random.default_rng(7)
    table = random_table(rng, meetings=2)
    one = (table["split"] == "train") & table.duplicated(["speaker", "split"])
    table = table[~one].reset_index(drop=True)
    voices = {name: rng.normal(size=DIM) for name in sorted(set(table["speaker"]))}
    centre = np.stack([voices[name] for name in table["speaker"]])
    features = (centre + rng.normal(size=(len(table), DIM)))[:, None].astype(np.float32)
    write_store(tmp_path / "store", list(table["segment_id"]), features, layers=[0], dim=DIM)
    settings = SweepSettings(classifiers="lda", jobs=1, refit=False)
    outcome = run_experiment(table, tmp_path / "store", settings)
    found = outcome.measures.set_index(["stratum", "measure"])["value"]
    assert found["all", "accuracy"] > 0.9
    assert found["all", "log_loss"] < 0.5


def test_a_meeting_with_little_validation_is_told(tasks):
    table, path = tasks[0]
    few = table[(table["split"] != "valid") | ~table.duplicated(["session", "split"])]
    settings = SweepSettings(classifiers="ridge", jobs=1)
    _, facts, _ = fit_best(few.reset_index(drop=True), path, settings)
    assert any(line.startswith("calibration: 3 validation segments of known") for line in facts)
    model, facts, _ = fit_best(table, path, settings)
    known = model.origin["segments"]["valid"]
    assert any(line.startswith("calibration: ") for line in facts) == (known < 30)


def test_measures_of_small_meetings_are_finite(tasks):
    for table, path in tasks:
        model, _, _ = fit_best(table, path, SweepSettings(classifiers="lda", jobs=1))
        measures = score(
            name_segments(model, table, FeatureStore.open(path))[0], table, resamples=20
        )
        whole = measures[measures["stratum"] == "all"]
        assert np.isfinite(whole["value"]).all()
