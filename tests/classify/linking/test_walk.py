"""The whole way on real voices: who is who, a table of persons, one session left out."""

import shlex

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

TESTED = "20990101_S_R001S03C01"


@pytest.fixture(scope="module")
def walked(real_data, tmp_path_factory):
    """Return a function that types a line in a folder of its own, and the meetings."""
    from click.testing import CliRunner

    from spk.__main__ import main

    folder, meetings = tmp_path_factory.mktemp("walk"), real_data / "meetings"
    lines = [
        f"manifests rttm {meetings}/TextGrid turns.csv --audio-root {meetings}/wav",
        f"extract turns.csv features --audio-root {meetings}/wav --encoder small",
        "classify link turns.csv features people",
        f"manifests rttm {meetings}/TextGrid persons.csv --audio-root {meetings}/wav "
        "--identity people/people.csv",
        f"manifests split persons.csv table.csv --method leave-one-session-out --session {TESTED}",
        "classify sweep table.csv features sweep --within corpus --classifiers centroid "
        "--layers 4 --jobs 1",
    ]
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines:
            done = CliRunner().invoke(main, shlex.split(line), prog_name="spk")
            assert done.exit_code in ((0, 3) if " link " in line else (0,)), (line, done.output)
            printed.append(done)
    return folder, meetings, printed


def test_every_link_on_real_voices_is_right(walked):
    folder, meetings, _ = walked
    rows = pd.read_csv(folder / "people" / "people.csv")
    truth = pd.read_csv(meetings / "people.csv", index_col=["session", "speaker"])["person"]
    true = [
        truth[label] for label in rows[["session", "speaker"]].itertuples(index=False, name=None)
    ]
    assert len({*zip(rows["person"], true, strict=True)}) == rows["person"].nunique()
    assert len({*true}) == rows["person"].nunique()
    assert not rows.duplicated(["session", "person"]).any()


def test_the_id_that_is_another_person_is_told_on_real_voices(walked):
    folder, _, printed = walked
    rows = pd.read_csv(folder / "people" / "series.csv")
    assert {*zip(rows["series"], rows["speaker"], strict=True)} == {("20990102_M_R002", "001-M")}
    assert "20990102_M_R002: 001-M is not one person" in printed[2].stderr


def test_a_session_is_tested_by_people_known_from_the_others(walked):
    folder, _, _ = walked
    table = pd.read_csv(folder / "table.csv")
    tested = table[table["split"] == "test"]
    assert {*tested["session"]} == {TESTED}
    assert {*tested["speaker"]} <= {*table.loc[table["split"] == "train", "speaker"]}
    named = pd.read_csv(folder / "sweep" / "predictions.csv")
    assert (named["speaker"] == named["predicted"]).mean() > 0.5  # 16 persons; chance 0.06
