import numpy as np
import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.splits.roll_call import roll_call_mask
from spk.manifests.splits.split import split_table


def with_record(table, *method, **parameters):
    made = split_table(table, *method, **parameters)
    return made, made.attrs["split"]


def _table(turns: list[tuple[str, float, float]], session: str = "m") -> pd.DataFrame:
    rows = [
        (f"{session}{i}", f"{session}.flac", float(start), float(end), name, session)
        for i, (name, start, end) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def _alone(count: int, name: str = "a", session: str = "m", every: float = 10) -> pd.DataFrame:
    """Return `count` segments of 5 s of one speaker, one each `every` s."""
    return _table([(name, i * every, i * every + 5) for i in range(count)], session)


def _two_sessions() -> pd.DataFrame:
    """Return two sessions of the same three speakers: roll call, then 24 turns with overlap."""
    call = [(name, 2.0 * i, 2.0 * i + 1) for i, name in enumerate("abc")]
    talk = [("abc"[i % 3], 10 + 4 * i, 14.2 + 4 * i) for i in range(24)]
    return pd.concat([_table(call + talk, "m"), _table(call + talk, "n")], ignore_index=True)


def _runs(splits: pd.Series) -> list[tuple[str, int]]:
    values, counts = splits.tolist(), []
    for value in values:
        if counts and counts[-1][0] == value:
            counts[-1] = (value, counts[-1][1] + 1)
        else:
            counts.append((value, 1))
    return counts


def test_chronological_is_train_then_valid_then_test():
    made, record = with_record(_alone(20), gap=1.0)
    assert _runs(made["split"]) == [("train", 14), ("valid", 2), ("test", 4)]
    assert record == {
        "method": "chronological",
        "parameters": {"test_share": 0.2, "valid_share": 0.15, "gap": 1.0},
        "counts": {"train": 14, "valid": 2, "test": 4, "purged": 0},
        "purged": {"roll call": 0, "shared audio": 0, "too near": 0},
        "leaky": False,
        "untrained": [],
        "untested": [],
    }


def test_chronological_purges_what_lies_within_the_gap():
    # Segments are 5 s apart: the last of valid touches test, the last of train touches valid.
    made, record = with_record(_alone(20), gap=5.0)
    assert _runs(made["split"]) == [
        ("train", 13),
        ("", 1),
        ("valid", 1),
        ("", 1),
        ("test", 4),
    ]
    assert record["purged"] == {"roll call": 0, "shared audio": 0, "too near": 2}


def test_chronological_purges_shared_audio_even_without_a_gap():
    # b's first and only training segment lies under a's test segment.
    table = pd.concat([_alone(5), _table([("b", 42, 44), ("b", 60, 62)], "m")])
    table["segment_id"] = [f"i{i}" for i in range(7)]
    made, record = with_record(table, gap=0.0, valid_share=0.0)
    assert made["split"].tolist() == ["train"] * 4 + ["test", "", "test"]
    assert record["purged"]["shared audio"] == 1
    assert record["untrained"] == ["b"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, ["train"]), (2, ["train", "test"]), (3, ["train", "valid", "test"])],
)
def test_chronological_serves_speakers_of_few_segments(count, expected):
    made, record = with_record(_alone(count))
    assert made["split"].tolist() == expected
    assert record["untested"] == ([] if count > 1 else ["a"])


def test_chronological_cuts_each_session_of_a_speaker():
    made = split_table(pd.concat([_alone(10, session="m"), _alone(10, session="n")]))
    assert made[made["split"] == "test"].groupby("session").size().to_dict() == {"m": 2, "n": 2}


def test_blocks_are_contiguous_and_each_is_test_once():
    tests = []
    for fold in range(5):
        made = split_table(_alone(10), "blocked-k", fold=fold, gap=1.0)
        tests.append(np.flatnonzero(made["split"] == "test").tolist())
        valid = np.flatnonzero(made["split"] == "valid").tolist()
        assert valid == [(2 * fold + 2) % 10, (2 * fold + 3) % 10]
    assert tests == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_every_segment_but_the_roll_call_is_test_in_one_fold():
    table = _two_sessions()
    tested = sum(
        (split_table(table, "blocked-k", folds=4, fold=fold)["split"] == "test").astype(int)
        for fold in range(4)
    )
    assert tested.tolist() == [0 if called else 1 for called in roll_call_mask(table)]


def test_the_roll_call_stays_in_train_of_every_fold():
    table = _two_sessions()
    for fold in range(4):
        made, record = with_record(table, "blocked-k", folds=4, fold=fold)
        assert (made["split"][roll_call_mask(table)] == "train").all()
        assert record["purged"]["roll call"] == 0


def test_one_session_is_left_out_whole_but_for_its_roll_call():
    table = _two_sessions()
    made, record = with_record(table, "leave-one-session-out", session="n", gap=0.0)
    assert (made["split"][(table["session"] == "n") & ~roll_call_mask(table)] == "test").all()
    assert (made["split"][table["session"] == "m"] != "test").all()
    assert record["purged"]["roll call"] == 3
    assert record["purged"]["unknown speaker"] == 0


def test_a_speaker_whom_no_other_session_knows_is_refused_or_purged():
    table = pd.concat([_alone(5, "a", "m"), _alone(5, "a", "n"), _alone(2, "b", "n", 100)])
    table["segment_id"] = [f"i{i}" for i in range(12)]
    with pytest.raises(InputError, match=r"session n: 1 of 2 speakers .* first 'b'"):
        split_table(table, "leave-one-session-out", session="n")
    made, record = with_record(table, "leave-one-session-out", session="n", unknown="purge")
    assert record["purged"]["unknown speaker"] == 2
    assert (made["split"][made["speaker"] == "b"] == "").all()


def test_enrolment_takes_whole_segments_while_that_comes_nearer_to_the_seconds():
    for wanted, segments in ((1.0, 1), (5.0, 1), (10.0, 2), (12.4, 2), (12.5, 3), (15.0, 3)):
        made = split_table(_alone(10), "enrol", seconds=wanted, gap=1.0)
        assert _runs(made["split"])[0] == ("train", segments)


def test_enrolment_ends_before_a_turn_that_is_too_long_even_where_a_short_one_follows():
    turns = [("a", 0, 4), ("a", 10, 60), ("a", 70, 72), ("a", 80, 90), ("b", 100, 140)]
    made = split_table(_table([*turns, ("b", 150, 160)]), "enrol", seconds=15.0, valid_share=0.0)
    assert made["split"].tolist() == ["train", "test", "test", "test", "train", "test"]


def test_enrolment_is_followed_by_validation_and_test():
    made = split_table(_alone(22), "enrol", seconds=10.0, gap=1.0)
    assert _runs(made["split"]) == [("train", 2), ("valid", 3), ("test", 17)]


def test_enrolment_stays_whole_and_the_later_part_gives_way():
    made, record = with_record(_alone(22), "enrol", seconds=10.0, gap=5.0)
    assert _runs(made["split"]) == [("train", 2), ("", 1), ("valid", 2), ("", 1), ("test", 16)]
    assert record["purged"]["too near"] == 2


def test_the_roll_call_alone_enrols():
    table = _two_sessions()
    made = split_table(table, "roll-call")
    assert ((made["split"] == "train").to_numpy() == roll_call_mask(table)).all()


def test_speakers_who_do_not_answer_the_roll_call_are_purged_and_counted():
    turns = [("a", 0, 1), ("b", 2, 3), ("a", 10, 20), ("c", 30, 40), ("b", 50, 60)]
    near = [("a", 3.5, 4), ("c", 4.5, 12.6)]  # too long for an answer
    made, record = with_record(_table(turns + near), "roll-call", valid_share=0.0)
    assert made["split"].tolist() == ["train", "train", "test", "", "test", "", ""]
    assert record["purged"]["too near"] == 2
    assert record["purged"]["not enrolled"] == 1


def test_a_session_without_a_roll_call_is_refused():
    with pytest.raises(InputError, match="1 session has no roll call, first 'm'"):
        split_table(_alone(5), "roll-call")


# The reference's split


def _reference(real_data) -> pd.DataFrame:
    reference = pd.read_csv(real_data / "aishell4/data_fixed.csv", dtype=str)
    reference["session"] = reference["label"].str.rsplit("_", n=1).str[0]
    return reference


def _from_reference(reference: pd.DataFrame) -> pd.DataFrame:
    line = reference["path"].str.extract(r"_(\d{4})\.wav")[0].astype(int)
    return pd.DataFrame(
        {
            "segment_id": reference["path"],
            "audio": reference["path"],
            "start": 9999.0 - line,  # the order is that of lines, not of times
            "end": 10001.0 - line,
            "speaker": reference["label"],
            "session": reference["session"],
            "line": line,
        }
    ).sample(frac=1, random_state=1)


def test_random_in_the_corpus_draws_the_rows_of_the_reference(real_data):
    from sklearn.model_selection import train_test_split

    reference = _reference(real_data)
    _, test = train_test_split(
        reference, test_size=0.2, random_state=42, stratify=reference["label"]
    )
    made, record = with_record(_from_reference(reference), "random", within="corpus", seed=42)
    assert set(made["segment_id"][made["split"] == "test"]) == set(test["path"])
    assert record["counts"] == {"train": 7671, "valid": 0, "test": 1918, "purged": 0}
    assert record["leaky"]


def test_random_within_sessions_draws_the_rows_of_the_reference(real_data):
    from sklearn.model_selection import train_test_split

    reference = _reference(real_data)
    expected = set()
    for _, part in reference.groupby("session"):
        _, test = train_test_split(part, test_size=0.2, random_state=42, stratify=part["label"])
        expected |= set(test["path"])
    made = split_table(_from_reference(reference), "random", seed=42)
    assert set(made["segment_id"][made["split"] == "test"]) == expected


def test_random_validation_is_drawn_out_of_train():
    table = pd.concat([_alone(20, "a"), _alone(20, "b", every=11)])
    table["segment_id"] = [f"i{i}" for i in range(40)]
    without = split_table(table, "random")
    made, record = with_record(table, "random", valid_share=0.25)
    assert record["counts"] == {"train": 24, "valid": 8, "test": 7, "purged": 1}
    assert record["purged"] == {"roll call": 1}
    assert ((made["split"] == "test") == (without["split"] == "test")).all()


def test_a_share_that_cannot_be_drawn_names_one_that_can():
    table = pd.concat([_alone(5, name) for name in "abcd"])
    table["segment_id"] = [f"i{i}" for i in range(20)]
    expected = "--valid-share 0.1 of its 16 segments that are not test of 4 .*; give --valid-share "
    with pytest.raises(InputError, match=f"{expected}0.25$"):
        split_table(table, "random", valid_share=0.1)
    made = split_table(table, "random", valid_share=0.25)
    assert set(made["speaker"][made["split"] == "valid"]) == set("abcd")
    with pytest.raises(InputError, match="give --test-share 0.2$"):
        split_table(table, "random", test_share=0.05)


def test_a_session_of_which_nothing_is_left_to_test_is_refused():
    table = pd.concat([_alone(6, "a"), _alone(6, "b").assign(session="n", audio="n.flac")])
    table["segment_id"] = [f"i{i}" for i in range(12)]
    with pytest.raises(InputError, match="session n: 0 of its 6 segments are left to test"):
        split_table(table, "leave-one-session-out", session="n", unknown="purge")


def test_random_needs_two_segments_of_each_speaker():
    table = pd.concat([_alone(20, "a"), _alone(1, "b")])
    table["segment_id"] = [f"i{i}" for i in range(21)]
    with pytest.raises(InputError, match="0.2 of its 21 segments of 2 speakers cannot"):
        split_table(table, "random")
