import pytest

from spk.common.errors import InputError
from spk.manifests.formats.aishell4 import (
    local_speaker,
    parse_session,
    scoped_speaker,
    series_speaker,
)


def test_train_names_have_a_date_and_test_names_none():
    name = parse_session("20200706_L_R001S02C01")
    assert (name.date, name.size, name.room, name.number, name.device) == (
        "20200706", "L", "R001", "S02", "C01",
    )  # fmt: skip
    assert (parse_session("M_R003S05C01").date, parse_session("M_R003S05C01").series) == (
        "",
        "M_R003",
    )


def test_all_real_session_names_are_parsed(real_data):
    names = sorted(path.stem for path in (real_data / "aishell4" / "rttm").glob("*.rttm"))
    assert [parse_session(name).series for name in names] == [name[:15] for name in names]


def test_speakers_of_other_dates_and_rooms_stay_apart_in_a_series():
    a, b = "20200706_L_R001S01C01", "20200706_L_R001S02C01"
    assert scoped_speaker(a, "001-M", "series") == scoped_speaker(b, "001-M", "series")
    for other in ("20200707_L_R001S01C01", "20200706_M_R001S01C01", "20200706_L_R002S01C01"):
        assert scoped_speaker(a, "001-M", "series") != scoped_speaker(other, "001-M", "series")


@pytest.mark.parametrize("scope", ["session", "series", "corpus"])
def test_a_label_of_any_scope_leads_back_to_the_local_speaker_and_to_the_series(scope):
    session = "20200706_L_R001S01C01"
    label = scoped_speaker(session, "001-M", scope)
    assert local_speaker(session, label) == "001-M"
    assert series_speaker(session, label) == "20200706_L_R001_001-M"


def test_other_names_are_refused_for_a_series_and_fine_for_a_session():
    with pytest.raises(InputError, match="name is 'weekly', expected YYYYMMDD_L_R001S01C01"):
        scoped_speaker("weekly", "anna", "series")
    assert scoped_speaker("weekly", "anna") == "weekly_anna"
    with pytest.raises(InputError, match="scope: is 'room', expected one of session, series"):
        scoped_speaker("weekly", "anna", "room")
