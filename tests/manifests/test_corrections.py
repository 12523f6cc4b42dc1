"""Corrections are applied to the table that they were made for, with a record, or refused."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.manifests import correct_table, read_corrections, read_table, write_table
from spk.manifests.cli import main
from spk.manifests.corrections import fingerprint


@pytest.fixture
def turns():
    rows = [
        ("t1", "S1.wav", 0.0, 1.0, "A", "S1", "train"),
        ("t2", "S1.wav", 1.0, 2.0, "B", "S1", "test"),
        ("t3", "S1.wav", 2.0, 3.0, "A", "S1", "train"),
        ("t4", "S2.wav", 0.0, 1.0, "C", "S2", "train"),
    ]
    names = ["segment_id", "audio", "start", "end", "speaker", "session", "split"]
    return pd.DataFrame(rows, columns=names)


def rows_of(*rows, **more):
    names = ["segment_id", "session", "labelled", "suggested"]
    return pd.DataFrame(rows, columns=names).assign(**more)


def test_a_label_is_corrected_and_nothing_else_changes(turns):
    done = correct_table(turns, rows_of(("t3", "S1", "A", "B")))
    assert done.table["speaker"].tolist() == ["A", "B", "B", "C"]
    rest = [name for name in turns if name != "speaker"]
    assert done.table[rest].equals(turns[rest].astype(done.table[rest].dtypes))


def test_without_corrections_the_table_stays_as_it_is(turns):
    done = correct_table(turns, rows_of(("t3", "S1", "A", "B")).iloc[:0])
    assert list(done.table.speaker) == list(turns.speaker)
    assert done.applied.empty
    assert repr(done) == f"<Corrected {done.summary}>"


def test_an_empty_name_removes_the_turn(turns):
    done = correct_table(turns, rows_of(("t2", "S1", "B", "")))
    assert done.table["segment_id"].tolist() == ["t1", "t3", "t4"]
    assert done.removed == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("t9", "S1", "A", "B"), "1 of 1 turn is not in the table, first 't9'"),
        (("t3", "S2", "A", "B"), "in another session of the table"),
        (("t3", "S1", "B", "A"), "labelled otherwise in the table"),
        (("t3", "S1", "A", "C"), "given a label its session lacks"),
    ],
)
def test_a_row_that_does_not_match_is_refused(turns, row, said):
    with pytest.raises(InputError, match=said):
        correct_table(turns, rows_of(row))


def test_a_turn_given_twice_is_refused(turns):
    with pytest.raises(InputError, match="given before"):
        correct_table(turns, rows_of(("t3", "S1", "A", "B"), ("t3", "S1", "A", "")))


def test_a_table_that_has_changed_since_is_refused(turns):
    made_for = rows_of(("t3", "S1", "A", "B"), table=fingerprint(turns))
    assert len(correct_table(turns, made_for).applied) == 1
    assert len(correct_table(turns.iloc[::-1], made_for).applied) == 1  # the order is no change
    for changed in (turns.assign(speaker=["B", "B", "A", "C"]), turns.iloc[:3]):
        with pytest.raises(InputError, match="audit this table again"):
            correct_table(changed, made_for)


def test_removing_all_turns_is_refused(turns):
    every = rows_of(*((r.segment_id, r.session, r.speaker, "") for r in turns.itertuples()))
    with pytest.raises(InputError, match="all 4 turns are removed"):
        correct_table(turns, every)


def correct(*words):
    return CliRunner().invoke(main, ["correct", *map(str, words)])


def test_the_command_writes_the_table_and_who_was_what(turns, tmp_path):
    write_table(turns, tmp_path / "t.csv")
    corrections = rows_of(("t3", "S1", "A", "B"), ("t4", "S2", "C", ""))
    corrections.to_csv(tmp_path / "c.csv", index=False)
    said = correct(tmp_path / "t.csv", tmp_path / "c.csv", "-o", tmp_path / "new.csv")
    assert said.exit_code == 0, said.output
    assert "1 label corrected, 1 turn removed, 3 turns left" in said.output
    new = read_table(tmp_path / "new.csv")
    assert new["speaker"].tolist() == ["A", "B", "B"]
    record = json.loads((tmp_path / "new.csv.corrections.json").read_text())
    before, after = fingerprint(read_table(tmp_path / "t.csv")), fingerprint(new)
    assert (record["before"], record["after"]) == (before, after)
    assert record["rows"] == [
        {"segment_id": "t3", "session": "S1", "was": "A", "is": "B"},
        {"segment_id": "t4", "session": "S2", "was": "C", "is": ""},
    ]


def test_the_command_replaces_nothing_of_the_users(turns, tmp_path):
    write_table(turns, tmp_path / "t.csv")
    rows_of(("t3", "S1", "A", "B")).to_csv(tmp_path / "c.csv", index=False)
    paths = tmp_path / "t.csv", tmp_path / "c.csv", "-o", tmp_path / "new.csv"
    (tmp_path / "new.csv.corrections.json").write_text("mine")
    said = correct(*paths)
    assert said.exit_code == 1
    assert "was not written by spk" in said.output
    assert not (tmp_path / "new.csv").exists()
    (tmp_path / "new.csv.corrections.json").unlink()
    assert [correct(*paths).exit_code for _ in range(2)] == [0, 0]  # the same content is fine
    rows_of(("t1", "S1", "A", "B")).to_csv(tmp_path / "c.csv", index=False)
    assert "exists with other content" in correct(*paths).output
    assert correct(*paths, "--overwrite").exit_code == 0
    assert read_table(tmp_path / "new.csv")["speaker"].tolist() == ["B", "B", "A", "C"]


def test_a_file_that_lacks_a_column_is_refused(tmp_path):
    (tmp_path / "c.csv").write_text("segment_id,session,suggested\nt1,S1,B\n")
    with pytest.raises(InputError, match=r"columns \['labelled'\] are missing"):
        read_corrections(tmp_path / "c.csv")


def test_the_list_of_every_turn_is_not_taken_for_corrections(turns, tmp_path):
    write_table(turns, tmp_path / "t.csv")
    rows = rows_of(("t1", "S1", "A", "B"), ("t2", "S1", "B", "A"), proposed=[False, True])
    rows.to_csv(tmp_path / "audit.csv", index=False)
    said = correct(tmp_path / "t.csv", tmp_path / "audit.csv", "-o", tmp_path / "new.csv")
    assert said.exit_code == 1
    assert "name corrections.csv beside it" in said.output
    assert not (tmp_path / "new.csv").exists()
