import json

import pandas as pd
import pytest
from click.testing import CliRunner
from toy_meetings import toy_store, toy_vectors

from spk.classify.cli import main
from spk.manifests import write_table
from spk.manifests.formats.build import read_identity

FILES = {"link.json", "people.csv", "unsure.csv", "links.csv", "series.csv"}


@pytest.fixture
def typed(table, store, tmp_path):
    """Return a function that types `spk-classify link` with some options."""
    write_table(table, tmp_path / "table.csv")

    def link(*options, out="out", features=store):
        words = ["link", tmp_path / "table.csv", features, tmp_path / out, *options]
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)

    return link


def test_the_folder_holds_who_is_who_and_what_it_rests_on(typed, tmp_path, people):
    done = typed()
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    frames = {name: pd.read_csv(tmp_path / "out" / name) for name in FILES if "csv" in name}
    assert {*read_identity(tmp_path / "out" / "people.csv")} == {*people}
    assert list(frames["links.csv"].columns) == [
        *("session_a", "speaker_a", "session_b", "speaker_b"),
        *("score", "probability", "linked", "known"),
    ]
    assert list(frames["unsure.csv"].columns)[-2:] == ["seconds", "reason"]
    facts = json.loads((tmp_path / "out" / "link.json").read_text())
    assert (facts["encoder"], facts["layer"]) == ("toy", 1)
    assert facts["options"]["same_id"] == 0.99
    assert facts["calibrated_on"] == "ids of a series"


def test_what_is_found_is_said(typed):
    done = typed()
    lines = done.stdout.splitlines()
    assert lines[0] == "30 of 30 labels are 11 persons, 10 of them in several sessions"
    (odd,) = [line for line in done.stderr.splitlines() if "is not one person" in line]
    assert odd.startswith("20990102_M_R002: 001-M is not one person: ")
    assert "in 20990102_M_R002S03C01 (probability 0.8" in odd


def test_labels_that_are_left_out_end_in_exit_code_3(typed, table, people, tmp_path):
    weak = toy_store(tmp_path / "weak", table, toy_vectors(table, people, noise=(6.0,), room=1.0))
    done = typed(features=weak)
    assert done.exit_code == 3
    assert "left out as unsure: 30 labels (30 weak encoder), listed in unsure.csv" in done.stdout
    assert (tmp_path / "out" / "people.csv").read_text() == "session,speaker,person,confidence\n"
    assert "next:" not in done.stderr  # nobody is there to enrol


def test_the_same_may_be_typed_twice_and_other_content_is_refused(typed, tmp_path):
    assert typed().exit_code == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in FILES}
    assert typed().exit_code == 0
    refused = typed("--layer", "1", "--min-confidence", "0.5")
    assert refused.exit_code == 1
    assert "exists with other content" in refused.stderr
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == before
    assert typed("--min-confidence", "0.5", "--overwrite").exit_code == 0


def test_a_folder_of_the_users_own_is_left_alone(typed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "people.csv").write_text("mine\n")
    refused = typed("--overwrite")
    assert refused.exit_code == 1
    assert "holds 'people.csv' and no link.json" in refused.stderr
    assert (tmp_path / "out" / "people.csv").read_text() == "mine\n"
