import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from spk.classify.evaluation.score import COLUMNS, score
from spk.common.errors import InputError

EXACT = 1e-9  # the same sums in another order
FEW = 20  # resamples, where only the value is looked at


def make_predictions(rows):
    """Return a predictions table from (session, truth, {label: probability}) per segment."""
    lines = []
    for number, (session, truth, scores) in enumerate(rows):
        best = max(scores, key=scores.get)
        line = (f"s{number}", session, truth, best, scores[best], "test", "toy", json.dumps(scores))
        lines.append(line)
    names = ["segment_id", "session", "speaker", "predicted", "score", "split", "model", "scores"]
    return pd.DataFrame(lines, columns=names)


@pytest.fixture
def small():
    """Return eight segments of two meetings: 3 of 4 right in A, 2 of 4 in B."""
    sure, unsure = {"a1": 0.9, "a2": 0.1}, {"a1": 0.6, "a2": 0.4}
    b1, b2, b3 = ({f"b{i}": 0.8 if i == k else 0.1 for i in (1, 2, 3)} for k in (1, 2, 3))
    return make_predictions(
        [
            ("A", "a1", sure),
            ("A", "a1", unsure),
            ("A", "a1", sure),
            ("A", "a2", unsure),
            ("B", "b1", b1),
            ("B", "b2", b2),
            ("B", "b3", b1),
            ("B", "b1", b3),
        ]
    )


@pytest.fixture
def small_table():
    """Return the segments' times: 0.5, 1, 2, 5, 6, 0.5, 3, 2 s; in train a2 and b3 lead."""
    lengths = [0.5, 1.0, 2.0, 5.0, 6.0, 0.5, 3.0, 2.0]
    overlap = [0.0, 0.1, 0.2, 0.5, 0.6, 0.0, 0.0, 0.3]
    tested = pd.DataFrame(
        {
            "segment_id": [f"s{number}" for number in range(8)],
            "start": 0.0,
            "end": lengths,
            "overlap": overlap,
            "speaker": ["a1", "a1", "a1", "a2", "b1", "b2", "b3", "b1"],
            "session": list("AAAABBBB"),
            "split": "test",
        }
    )
    train = tested.iloc[[3, 3, 0, 6, 6, 4]].assign(
        split="train", segment_id=[f"t{k}" for k in range(6)]
    )
    return pd.concat([train, tested], ignore_index=True).assign(audio="a.wav")


def value(measures, measure, stratum="all", group=""):
    rows = measures[(measures["stratum"] == stratum) & (measures["group"] == group)]
    return rows.set_index("measure")["value"][measure]


def test_measures_by_hand(small, small_table):
    found = score(small, small_table, resamples=FEW)
    assert list(found.columns) == list(COLUMNS)
    assert value(found, "accuracy") == 5 / 8
    assert value(found, "accuracy_meetings") == (3 / 4 + 2 / 4) / 2
    # right: .5 + 1 + 2 + 6 + .5 of 20 s
    assert value(found, "accuracy_time") == pytest.approx(10 / 20, abs=EXACT)
    # recalls a1 3/3, a2 0, b1 1/2, b2 1, b3 0
    assert value(found, "balanced_accuracy") == pytest.approx(2.5 / 5, abs=EXACT)
    assert value(found, "top3") == 1
    assert value(found, "chance") == pytest.approx((4 / 2 + 4 / 3) / 8, abs=EXACT)
    assert value(found, "majority") == 2 / 8  # a2 once in A, b3 once in B


def test_the_majority_without_a_table_is_the_scored_ones(small):
    found = score(small, resamples=FEW)
    assert value(found, "majority_scored") == (3 + 2) / 8  # a1 and b1
    assert "majority" not in set(found["measure"])
    assert "accuracy_time" not in set(found["measure"])


def test_the_majority_of_a_person_in_several_meetings_is_each_meetings_own():
    both = {"x": 0.5, "y": 0.5}
    predictions = make_predictions([("A", "x", both), ("B", "y", both)])
    train = [("A", "x")] * 3 + [("A", "y")] + [("B", "x")] + [("B", "y")] * 5  # y leads in all
    table = pd.DataFrame([("A", "x"), ("B", "y"), *train], columns=["session", "speaker"])
    ids = [*predictions["segment_id"], *(f"t{k}" for k in range(len(train)))]
    split = ["test"] * 2 + ["train"] * len(train)
    table = table.assign(segment_id=ids, audio="a.wav", start=0.0, end=1.0, split=split)
    assert value(score(predictions, table, resamples=FEW), "majority") == 1


def test_measures_are_scikit_learns(small):
    found = score(small, resamples=FEW)
    truth, predicted = small["speaker"], small["predicted"]
    expected = metrics.f1_score(truth, predicted, average="macro")
    assert value(found, "macro_f1") == pytest.approx(expected, abs=EXACT)
    expected = metrics.balanced_accuracy_score(truth, predicted)
    assert value(found, "balanced_accuracy") == pytest.approx(expected, abs=EXACT)
    labels = ["a1", "a2", "b1", "b2", "b3"]
    scores = [json.loads(text) for text in small["scores"]]
    chances = np.array([[row.get(label, 0.0) for label in labels] for row in scores])
    expected = metrics.log_loss(truth, chances, labels=labels)
    assert value(found, "log_loss") == pytest.approx(expected, abs=EXACT)


def test_top_three_is_scikit_learns():
    rng = np.random.default_rng(0)
    chances, truth = rng.dirichlet(np.ones(6), size=40), rng.integers(0, 6, size=40)
    rows = [
        ("A", str(code), {str(k): float(p) for k, p in enumerate(row)})
        for code, row in zip(truth, chances, strict=True)
    ]
    expected = metrics.top_k_accuracy_score(truth, chances, k=3, labels=range(6))
    found = score(make_predictions(rows), resamples=FEW)
    assert value(found, "top3") == pytest.approx(expected, abs=EXACT)


def test_strata_by_hand(small, small_table):
    found = score(small, small_table, resamples=FEW)
    assert value(found, "accuracy", "session", "A") == 3 / 4
    assert value(found, "accuracy", "speaker", "b1") == 1 / 2
    durations = found[found["stratum"] == "duration"].set_index("group")
    assert durations["value"].to_dict() == {"<1 s": 1, "1-2 s": 1, "2-5 s": 1 / 4, ">5 s": 1}
    assert durations["segments"].to_dict() == {"<1 s": 2, "1-2 s": 1, "2-5 s": 4, ">5 s": 1}
    overlaps = found[found["stratum"] == "overlap"].set_index("group")
    assert overlaps["value"].to_dict() == {"0": 2 / 3, "<20 %": 1, "20-50 %": 1 / 3, ">50 %": 1}
    assert overlaps["segments"].to_dict() == {"0": 3, "<20 %": 1, "20-50 %": 3, ">50 %": 1}


def test_intervals_hold_their_value_and_repeat_with_the_seed(small, small_table):
    first, again, other = (score(small, small_table, resamples=200, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    sure = first[~first["measure"].isin(["macro_f1", "calibration_error"])]
    assert first.loc[first["measure"] == "calibration_error", ["low", "high"]].isna().all(axis=None)
    assert ((sure["low"] <= sure["value"]) & (sure["value"] <= sure["high"])).all()


def test_a_truth_that_was_no_candidate_counts_against_the_model():
    rows = [("A", "x", {"a": 0.7, "b": 0.3}), ("A", "a", {"a": 0.7, "b": 0.3})]
    found = score(make_predictions(rows), resamples=FEW)
    assert value(found, "accuracy") == 1 / 2
    assert value(found, "top3") == 1 / 2
    assert value(found, "log_loss") == pytest.approx((15 * np.log(10) - np.log(0.7)) / 2)


def test_each_model_is_scored_by_itself(small):
    wrong = small.assign(model="wrong", predicted="nobody")
    found = score(pd.concat([small, wrong], ignore_index=True), resamples=FEW)
    accuracy = found[(found["stratum"] == "all") & (found["measure"] == "accuracy")]
    assert accuracy.set_index("model")["value"].to_dict() == {"toy": 5 / 8, "wrong": 0}


def test_predictions_without_scores_have_no_probability_measures(small):
    found = score(small.drop(columns="scores"), resamples=FEW)
    assert {"top3", "log_loss", "eer", "min_dcf"}.isdisjoint(found["measure"])
    assert value(found, "chance") == pytest.approx((4 / 2 + 4 / 3) / 8, abs=EXACT)


def test_only_the_asked_split_is_scored(small):
    mixed = small.assign(split=["train"] * 4 + ["test"] * 4)
    assert value(score(mixed, resamples=FEW), "accuracy") == 2 / 4
    assert value(score(mixed, split="all", resamples=FEW), "accuracy") == 5 / 8
    with pytest.raises(InputError, match="0 of 8 rows have split 'valid'"):
        score(mixed, split="valid")


def test_a_table_that_lacks_a_segment_is_refused(small, small_table):
    with pytest.raises(InputError, match="1 of 8 predicted segments is missing, first 's7'"):
        score(small, small_table[:-1])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a": 2}', '{"a": null}', '{"a": NaN}'])
def test_scores_that_cannot_be_read_are_refused(small, text):
    with pytest.raises(InputError, match="expected a JSON object"):
        score(small.assign(scores=text))


def test_no_resamples_are_refused(small):
    with pytest.raises(InputError, match="0 is given, expected 1 or more"):
        score(small, resamples=0)


def test_equal_scores_do_not_all_come_first():
    alike = dict.fromkeys("abcde", 0.2)
    found = score(make_predictions([("A", label, alike) for label in "abcde"]), resamples=FEW)
    assert value(found, "top3") == pytest.approx(3 / 5, abs=EXACT)


@pytest.fixture
def with_nobody(small):
    """Return the eight segments, of which three have nobody: two had been named rightly."""
    nobody = [True, False, False, True, False, True, False, False]
    predicted = small["predicted"].mask(nobody, "unknown")
    return small.assign(predicted=predicted, best=small["predicted"])


def test_nobody_is_neither_right_nor_a_candidate(small, with_nobody):
    before, after = (
        score(rows, resamples=FEW, log=lambda line: None) for rows in (small, with_nobody)
    )
    values = [
        found[found["stratum"] == "all"].set_index("measure")["value"] for found in (before, after)
    ]
    assert values[0]["accuracy"] == 5 / 8
    assert values[1]["accuracy"] == 3 / 8
    truth, named = with_nobody["speaker"], with_nobody["predicted"]
    labels = sorted(set(truth))
    f1 = metrics.f1_score(truth, named, labels=labels, average="macro", zero_division=0)
    assert values[1]["macro_f1"] == pytest.approx(f1, abs=EXACT)
    recall = metrics.recall_score(truth, named, labels=labels, average="macro")
    assert values[1]["balanced_accuracy"] == pytest.approx(recall, abs=EXACT)
    same = ["top3", "log_loss", "calibration_error", "eer", "min_dcf", "chance"]
    assert values[1][same].tolist() == values[0][same].tolist()


def test_how_many_have_nobody_is_told(with_nobody):
    lines = []
    strange = with_nobody.assign(speaker=["x", *with_nobody["speaker"][1:]])
    score(strange, resamples=FEW, log=lines.append)
    assert lines[-1] == (
        "3 of 8 segments are named 'unknown', 1 of them of speakers that the model does not know: "
        "that counts as wrong; of the other 5, 60.0% are named rightly"
    )
    lines.clear()
    score(with_nobody.drop(columns="best"), resamples=FEW, log=lines.append)
    assert lines == []  # somebody of that name, as in tables of other programs


def test_the_name_of_a_speaker_does_not_change_a_measure(small):
    names = {"a1": "unknown"}  # who is also named where a2 speaks
    called_so = small.replace({"speaker": names, "predicted": names})
    called_so["scores"] = small["scores"].str.replace('"a1"', '"unknown"')
    before, after = (
        score(rows, resamples=FEW, log=lambda line: None).query("stratum == 'all'")["value"]
        for rows in (small, called_so)
    )
    assert after.tolist() == pytest.approx(before.tolist(), abs=EXACT)


def test_nobody_is_right_only_where_the_table_calls_the_speaker_so(with_nobody):
    strange = with_nobody.assign(speaker=["unknown", *with_nobody["speaker"][1:]])
    lines = []
    found = score(strange, resamples=FEW, log=lines.append)
    assert found["value"][0] == 4 / 8
    assert "counts as wrong, but for 1 whose speaker the table calls so; of the" in lines[-1]
