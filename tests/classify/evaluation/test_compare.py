import json
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from spk.classify.cli import main
from spk.classify.evaluation.compare import COLUMNS, compare, conclude, holm
from spk.classify.metrics import mean_interval, percentiles, resample, session_mean
from spk.classify.output import OTHER_TASK, comparison_parts
from spk.classify.speaker_model import KNOWS_THE_ROOM
from spk.common.errors import InputError
from spk.common.terminal import plain
from spk.manifests.table import write_predictions

EXACT = 1e-12  # the same sums in another order
MEETINGS = {"M": "1110000011", "N": "1101"}  # where A is right
OTHERS = {"M": "1111111010", "N": "0110"}  # where B is right
MIRROR = {"accuracy_a": "accuracy_b", "only_a": "only_b", "unpaired_a": "unpaired_b"}


def make_predictions(right, model="toy"):
    """Return predictions that name the speaker where the meeting's text says 1."""
    lines = [
        (f"{session}{turn}", session, "anna", "anna" if hit == "1" else "bert", 0.5, "test", model)
        for session, hits in right.items()
        for turn, hit in enumerate(hits)
    ]
    names = ["segment_id", "session", "speaker", "predicted", "score", "split", "model"]
    return pd.DataFrame(lines, columns=names)


def make_drawn(seed, chance, meetings=6, turns=20):
    rng = np.random.default_rng(seed)
    hits = (rng.random((meetings, turns)) < chance).astype(int).astype(str)
    return make_predictions({f"M{k}": "".join(row) for k, row in enumerate(hits)})


@pytest.fixture
def a():
    return make_predictions(MEETINGS, "first")


@pytest.fixture
def b():
    return make_predictions(OTHERS, "second")


def row(found, stratum, group=""):
    rows = found.rows
    return rows[(rows["stratum"] == stratum) & (rows["group"] == group)].iloc[0]


def gains(a, b):
    right_a, right_b = (t["speaker"] == t["predicted"] for t in (a, b))
    return right_b.astype(int) - right_a.astype(int)


def test_counts_accuracies_and_differences_by_hand(a, b):
    found = compare(a, b)
    assert list(found.rows.columns) == list(COLUMNS)
    assert list(found.rows["stratum"]) == ["all", "mean", "session", "session"]
    one = row(found, "session", "M")  # A 5 of 10, B 8 of 10
    assert (one["segments"], one["accuracy_a"], one["accuracy_b"]) == (10, 0.5, 0.8)
    assert one["difference"] == pytest.approx(0.3, abs=EXACT)
    assert (one["only_a"], one["only_b"]) == (1, 4)
    two = row(found, "session", "N")  # A 3 of 4, B 2 of 4
    assert (two["difference"], two["only_a"], two["only_b"]) == (-0.25, 2, 1)
    whole = row(found, "all")
    assert (whole["accuracy_a"], whole["accuracy_b"]) == (8 / 14, 10 / 14)
    assert whole["difference"] == pytest.approx(2 / 14, abs=EXACT)
    assert (whole["segments"], whole["only_a"], whole["only_b"]) == (14, 3, 5)
    mean = row(found, "mean")
    assert (mean["accuracy_a"], mean["accuracy_b"]) == (0.625, 0.65)
    assert mean["difference"] == pytest.approx(0.025, abs=EXACT)
    assert (mean["segments"], mean["only_a"], mean["only_b"]) == (14, 3, 5)


def test_mcnemars_p_is_the_exact_binomial_one(a, b):
    found = compare(a, b)
    # 8 pairs, 3 or fewer on one side, twice
    by_hand = 2 * sum(comb(8, k) for k in range(4)) / 2**8
    assert row(found, "all")["p"] == pytest.approx(by_hand, abs=EXACT)
    assert row(found, "all")["p"] == pytest.approx(binomtest(5, 8).pvalue, abs=EXACT)
    assert row(found, "session", "M")["p"] == pytest.approx(12 / 32, abs=EXACT)
    assert row(found, "session", "N")["p"] == 1


def test_the_interval_of_the_mean_over_meetings_is_the_two_layer_bootstraps(a, b):
    found, gain, sessions = compare(a, b, seed=3), gains(a, b), a["session"].to_numpy(str)
    codes = (sessions == "N").astype(int)
    drawn = [session_mean(gain.to_numpy()[k], group) for k, group in resample(codes, seed=3)]
    mean = row(found, "mean")
    assert (mean["low"], mean["high"]) == pytest.approx(percentiles(np.array(drawn)), abs=EXACT)


def test_intervals_are_the_bootstraps_of_the_paired_differences_in_all_and_by_meeting():
    a, b = make_drawn(0, 0.4, 2, 80), make_drawn(1, 0.7, 2, 80)
    found, gain, sessions = compare(a, b, seed=3), gains(a, b), a["session"].to_numpy(str)
    whole = row(found, "all")
    assert (whole["low"], whole["high"]) == mean_interval(gain, sessions, seed=3)
    for name in ("M0", "M1"):
        one, own = row(found, "session", name), sessions == name
        assert (one["low"], one["high"]) == mean_interval(gain[own], sessions[own], seed=3)


def test_the_meetings_p_tries_all_ways_to_flip_their_signs():
    a, b = make_drawn(0, 0.5), make_drawn(1, 0.7)
    means = gains(a, b).groupby(a["session"]).mean().to_numpy()
    flipped = np.array(list(product([-1, 1], repeat=6))) @ means / 6
    expected = np.mean(np.abs(flipped) >= abs(means.mean()) - EXACT)
    assert 0 < expected < 1
    assert row(compare(a, b), "mean")["p"] == pytest.approx(expected, abs=EXACT)


def test_holms_correction_by_hand():
    # 4 * 0.01, 3 * 0.02, 2 * 0.03 and at least that for 0.04, in the order given
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.4, 0.9])).tolist() == [0.8, 0.9]
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]


def test_the_meetings_p_are_corrected_and_no_others(a, b):
    rows = compare(a, b).rows
    alone = rows["stratum"] == "session"
    assert rows.loc[alone, "p_holm"].tolist() == [0.75, 1]  # 2 * 0.375
    assert rows.loc[~alone, "p_holm"].isna().all()


@pytest.mark.parametrize("seed", range(4))
def test_a_and_b_swapped_give_the_mirror(seed):
    a, b = make_drawn(seed, 0.5), make_drawn(seed + 10, 0.65)
    there, back = compare(a, b).rows, compare(b, a).rows
    for left, right in MIRROR.items():
        np.testing.assert_array_equal(there[left], back[right])
        np.testing.assert_array_equal(there[right], back[left])
    np.testing.assert_allclose(there["difference"], -back["difference"], atol=EXACT)
    np.testing.assert_allclose(there["p"], back["p"], atol=EXACT)
    untied = there["difference"].abs() > EXACT  # a tie has no better one to draw for
    assert untied.sum() > 4
    np.testing.assert_allclose(there["low"][untied], -back["high"][untied], atol=EXACT)
    np.testing.assert_allclose(there["high"][untied], -back["low"][untied], atol=EXACT)


def test_the_order_of_rows_does_not_count(a, b):
    mixed = b.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(compare(a, mixed).rows, compare(a, b).rows)


def test_the_same_table_twice_shows_no_difference(a):
    found = compare(a, a)
    for _, line in found.rows.iterrows():
        assert (line["difference"], line["low"], line["high"], line["p"]) == (0, 0, 0, 1)
    assert found.conclusion == (
        "no difference is shown: B - A is 0.0 points (0.0 to 0.0), McNemar p 1, 14 segments in 2 "
        "meetings (interval over meetings and segments); meetings that differ when taken alone, "
        "after Holm's correction: none"
    )


def test_one_meeting_says_what_its_interval_is_over():
    found = compare(make_predictions({"M": "0" * 10}), make_predictions({"M": "1" * 10}))
    assert list(found.rows["stratum"]) == ["all", "session"]
    assert found.conclusion == (
        "B is better by 100.0 points (100.0 to 100.0), McNemar p 0.002, 10 segments in 1 meeting "
        "(interval over one speaker's segments)"
    )


def test_the_better_one_is_named_whichever_it_is():
    worse, better = make_drawn(0, 0.3), make_drawn(1, 0.9)
    there, back = compare(worse, better).conclusion, compare(better, worse).conclusion
    assert there.startswith("B is better by ")
    assert back == there.replace("B is", "A is").replace("(B ", "(A ")


def make_rows(low, high, p, alone=(1.0, 1.0)):
    """Return rows as `compare` makes them, of 50 segments and a difference of 10 points."""
    line = {"stratum": "all", "group": "", "difference": 0.1, "segments": 50}
    line |= {"low": low, "high": high, "p": p}
    meetings = [
        {**line, "stratum": "session", "group": name, "difference": sign * 0.1, "p_holm": p}
        for name, p, sign in zip("MN", alone, (1, -1), strict=False)
    ]
    return pd.DataFrame([line, *meetings])


def test_the_conclusion_claims_what_the_interval_carries():
    assert conclude(make_rows(0.03, 0.2, 0.01)).startswith(
        "B is better by 10.0 points (3.0 to 20.0), McNemar p 0.01, 50 segments in 2 meetings; m"
    )
    assert conclude(make_rows(0.0, 0.2, 0.3)).startswith(
        "no difference is shown: B - A is 10.0 points (0.0 to 20.0), McNemar p 0.3, 50 segments"
    )


def test_interval_and_mcnemar_that_disagree_are_both_told():
    found = conclude(make_rows(-0.05, 0.2, 0.001))
    assert found.startswith("no difference is shown: B - A is 10.0 points")
    assert (
        "interval and McNemar disagree: McNemar's p is below 0.05, which treats segments as "
        "independent of their meeting, but the interval holds 0"
    ) in found
    found = conclude(make_rows(0.01, 0.2, 0.07))
    assert found.startswith("B is better by 10.0 points")
    assert "disagree: McNemar's p is not below 0.05, but the interval excludes 0, so" in found
    found = conclude(make_rows(-0.05, 0.2, 0.001, alone=(0.04,)))
    assert "independent of their meeting" not in found
    assert found.endswith("McNemar's p is below 0.05, but the interval holds 0")
    assert "disagree" not in conclude(make_rows(-0.05, 0.2, 0.07))
    assert "disagree" not in conclude(make_rows(0.05, 0.2, 0.01))


def test_only_meetings_that_stand_after_holm_are_named():
    found = conclude(make_rows(-0.1, 0.2, 0.4, alone=(0.03, 0.2)))
    assert found.endswith("taken alone, after Holm's correction: M (B better)")
    found = conclude(make_rows(-0.1, 0.2, 0.4, alone=(0.03, 0.01)))
    assert found.endswith("after Holm's correction: M (B better), N (A better)")
    # uncorrected p 0.031 in M: 6 pairs of one kind; corrected for two meetings 0.0625
    a, b = ({"M": hit * 6, "N": "1010"} for hit in "01")
    found = compare(make_predictions(a), make_predictions(b))
    assert row(found, "session", "M")["p"] < 0.05 < row(found, "session", "M")["p_holm"]
    assert found.conclusion.endswith("after Holm's correction: none")


def test_segments_of_one_table_only_are_told(a, b):
    found = compare(a[a["segment_id"] != "M3"], b[~b["segment_id"].isin(["N0", "N1"])])
    assert row(found, "all")["segments"] == 11
    assert "not compared: 2 of 13 segments are only in A, first 'N0'" in found.facts
    assert "not compared: 1 of 12 segments is only in B, first 'M3'" in found.facts
    rows = found.rows.set_index("stratum")[["unpaired_a", "unpaired_b"]]
    assert rows.loc["all"].tolist() == rows.loc["mean"].tolist() == [2, 1]
    assert rows.loc["session"].to_numpy().tolist() == [[0, 1], [2, 0]]
    assert "not compared" not in " ".join(compare(a, b).facts)


def test_few_meetings_are_told():
    few = [compare(make_drawn(0, 0.5, n), make_drawn(1, 0.5, n)).facts for n in (1, 2, 5, 6)]
    told = [[fact for fact in facts if "meetings are few" in fact] for facts in few]
    assert [len(facts) for facts in told] == [0, 1, 1, 0]
    assert told[2][0].startswith("5 meetings are few: a test over meetings cannot go below p 0.062")


@pytest.mark.parametrize("column", ["speaker", "session", "split"])
def test_another_truth_is_refused(a, b, column):
    b.loc[[4, 6], column] = "other"
    with pytest.raises(
        InputError, match=rf"B: {column} of 2 of 14 shared segments is not A's, first 'M4' with 'ot"
    ):
        compare(a, b, split="all")


def test_no_shared_segment_is_refused(a, b):
    with pytest.raises(InputError, match="B: 0 of 14 segments are in A, expected some, first 'xM0"):
        compare(a, b.assign(segment_id="x" + b["segment_id"]))


def test_several_models_are_refused_unless_one_is_named(a, b):
    both = pd.concat([a, b])
    with pytest.raises(
        InputError, match=r"A: 2 models .* none is named.*--model-a .* \['first', 's"
    ):
        compare(both, b)
    with pytest.raises(
        InputError, match=r"B: 2 models .* none is named.*--model-b .* \['first', 's"
    ):
        compare(a, both)
    with pytest.raises(InputError, match=r"B: 2 models .* 'third' is not .*-b .* \['first', 's"):
        compare(a, both, model_b="third")
    found = compare(both, both, model_a="first", model_b="second")
    assert found.models == ("first", "second")
    pd.testing.assert_frame_equal(found.rows, compare(a, b).rows)


def test_only_the_asked_split_is_compared(a, b):
    split = ["test"] * 6 + ["valid"] * 8
    a, b = a.assign(split=split), b.assign(split=split)
    assert row(compare(a, b), "all")["segments"] == 6
    assert row(compare(a, b, split="all"), "all")["segments"] == 14
    with pytest.raises(InputError, match="B: 0 of 6 rows have split 'valid'.*'test', 'all'"):
        compare(a, b[:6], split="valid")


def test_no_resamples_are_refused(a, b):
    with pytest.raises(InputError, match="0 is given, expected 1 or more"):
        compare(a, b, resamples=0)


def test_a_small_p_is_not_shown_as_0():
    found = compare(make_predictions({"M": "0" * 30}), make_predictions({"M": "1" * 30}))
    lines = plain(*comparison_parts(found)).splitlines()
    assert lines[4].endswith(" McNemar  1.9e-09")  # 2 / 2^30; nothing to correct
    assert len(lines[3]) == len(lines[5])  # and it is a number, to the right


def run(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def paths(tmp_path, a, b):
    b = b.assign(model="second, within corpus")
    for name, table in (("a.csv", a), ("b.csv", b)):
        write_predictions(table, tmp_path / name)
    return tmp_path / "a.csv", tmp_path / "b.csv"


def test_compare_prints_facts_rows_and_conclusion_and_writes_all_numbers(tmp_path, paths):
    told = run(*paths, "-o", tmp_path / "c.json")
    assert told.exit_code == 0, told.output
    found = compare(*(pd.read_csv(path) for path in paths))
    assert "A: first\n" in told.output
    assert f"second, within corpus: {KNOWS_THE_ROOM}" in told.output
    assert OTHER_TASK in told.output
    assert told.stdout.splitlines()[-1] == found.conclusion
    written = json.loads((tmp_path / "c.json").read_text())
    assert f"second, within corpus: {KNOWS_THE_ROOM}" in written["facts"]
    assert written["facts"][-1] == found.conclusion
    assert written["measures"][2]["group"] == "M"
    assert written["measures"][0]["difference"] == found.rows["difference"][0]
    assert run(*paths, "-o", tmp_path / "c.csv").exit_code == 0
    read = pd.read_csv(tmp_path / "c.csv", keep_default_na=False)
    assert list(read.columns) == list(COLUMNS)
    assert read["p"].tolist() == found.rows["p"].tolist()


def test_what_the_user_can_repair_is_one_line_and_exit_1(tmp_path, paths):
    for arguments in ((paths[0], tmp_path / "nowhere.csv"), (*paths, "--split", "valid")):
        told = run(*arguments)
        assert told.exit_code == 1
        assert len(told.output.splitlines()) == 1
