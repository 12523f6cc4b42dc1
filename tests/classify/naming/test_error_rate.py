import numpy as np
import pandas as pd
import pytest

from spk.classify.naming.error_rate import (
    PARTS,
    count_errors,
    error_seconds,
    error_table,
    labelled,
)
from spk.common.errors import InputError

KNOWN = {"Ann", "Bo"}


def rows(*turns):
    table = pd.DataFrame(turns, columns=["cluster", "start", "end"])
    return labelled(table, KNOWN)


def test_each_part_of_the_error_by_hand():
    truth = rows(("Ann", 0, 10), ("Bo", 10, 20), ("Zoe", 20, 30), ("Yan", 30, 40), ("Ann", 40, 50))
    named = rows(
        ("Ann", 0, 8),  # 2 s missed
        ("Ann", 10, 14),  # wrong name
        ("unknown_1", 14, 20),  # known missed
        ("unknown_2", 20, 30),  # right
        ("Bo", 30, 33),  # stranger named
        ("unknown_1", 33, 40),  # right, whichever stranger
        ("Ann", 40, 55),  # 5 s false alarm
    )
    assert error_seconds(truth, named) == {
        "known_missed": 6,
        "wrong_name": 4,
        "stranger_named": 3,
        "missed_speech": 2,
        "false_alarm": 5,
        "speech": 50,
    }


def test_only_what_the_uem_names_is_scored():
    truth, named = rows(("Ann", 0, 10)), rows(("Bo", 0, 12))
    assert error_seconds(truth, named, [(2.0, 4.0), (9.0, 11.0)]) == {
        **dict.fromkeys(PARTS, 0.0),
        "wrong_name": 3.0,
        "false_alarm": 1.0,
        "speech": 3.0,
    }


def test_two_who_speak_at_once_are_both_speech():
    truth = rows(("Ann", 0, 10), ("Zoe", 0, 10))
    assert error_seconds(truth, rows(("Ann", 0, 10)))["missed_speech"] == 10
    assert count_errors({"Ann": 1, "Bo": 1}, {"unknown": 2})["known_missed"] == 2
    assert count_errors({"unknown": 2}, {"Ann": 1, "unknown": 1})["stranger_named"] == 1


def random_rows(rng, names):
    turns = []
    for _ in range(25):
        start = rng.integers(0, 1000) / 10
        turns.append((str(rng.choice(names)), start, start + rng.integers(1, 60) / 10))
    return rows(*turns)


@pytest.mark.parametrize("with_uem", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_the_sum_of_the_parts_is_the_identification_error_rate_of_pyannote(seed, with_uem):
    why = "pip install pyannote.metrics"
    core = pytest.importorskip("pyannote.core", reason=why)
    module = pytest.importorskip("pyannote.metrics.identification", reason=why)
    rng = np.random.default_rng(seed)
    truth = random_rows(rng, ["Ann", "Bo", "Zoe", "Yan"])
    named = random_rows(rng, ["Ann", "Bo", "unknown_1", "unknown_2"])
    spans = [(10.0, 40.0), (55.0, 90.0)] if with_uem else [(0.0, 200.0)]

    def annotation(parts):
        made = core.Annotation()
        for track, (_, label, start, end) in enumerate(parts):
            made[core.Segment(start, end), track] = label
        return made

    uem = core.Timeline([core.Segment(*span) for span in spans])
    detail = module.IdentificationErrorRate()(
        annotation(truth), annotation(named), uem=uem, detailed=True
    )
    ours = error_seconds(truth, named, spans)
    confusion = ours["known_missed"] + ours["wrong_name"] + ours["stranger_named"]
    assert confusion == pytest.approx(detail["confusion"])
    assert ours["missed_speech"] == pytest.approx(detail["missed detection"])
    assert ours["false_alarm"] == pytest.approx(detail["false alarm"])
    assert ours["speech"] == pytest.approx(detail["total"])
    error = sum(ours[part] for part in PARTS) / ours["speech"]
    assert error == pytest.approx(detail["identification error rate"])


def test_names_that_are_not_enrolled_are_unknown_and_touching_turns_are_one():
    found = rows(("Ann", 0, 1), ("Ann", 1, 2), ("Zoe", 3, 4), ("unknown_7", 5, 6))
    assert found == [
        ("Ann", "Ann", 0.0, 2.0),
        ("Zoe", "unknown", 3.0, 4.0),
        ("unknown_7", "unknown", 5.0, 6.0),
    ]


def test_the_table_pools_sessions_by_seconds_and_its_interval_holds_the_error():
    one = dict.fromkeys(PARTS, 0.0) | {"wrong_name": 10.0, "speech": 100.0}
    two = dict.fromkeys(PARTS, 0.0) | {"missed_speech": 5.0, "speech": 10.0}
    table = error_table({"a": one, "b": two})
    assert table["error"].tolist() == pytest.approx([0.1, 0.5, 15 / 110])
    whole = table.iloc[-1]
    assert whole["session"] == "all"
    assert 0.1 <= whole["low"] <= whole["error"] <= whole["high"] <= 0.5
    assert np.isnan(error_table({"a": one}).iloc[-1]["low"])
    with pytest.raises(InputError, match="holds 0 s of speech"):
        error_table({"a": dict.fromkeys((*PARTS, "speech"), 0.0)})
