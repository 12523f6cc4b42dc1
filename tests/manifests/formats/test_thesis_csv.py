import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.thesis_csv import read_reference_csv

RTTM = "".join(
    f"SPEAKER s_1 1 {start} 2 <NA> <NA> {speaker} <NA> <NA>\n"
    for start, speaker in ((5, "001-M"), (1, "001-M"), (3, "002-F"))
)
CSV = "path,label\nsegments/s_1_002-F_0002.wav,s_1_002-F\nsegments/s_1_001-M_0000.wav,s_1_001-M\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rttm").mkdir()
    (tmp_path / "rttm" / "s_1.rttm").write_text(RTTM)
    (tmp_path / "data.csv").write_text(CSV)
    (tmp_path / "segments").mkdir()
    for name in ("s_1_002-F_0002", "s_1_001-M_0000"):
        soundfile.write(tmp_path / "segments" / f"{name}.wav", np.zeros(32000), 16000)
    return tmp_path


def test_time_stamps_come_back_from_the_rttms(folder):
    table, _ = read_reference_csv(folder / "data.csv", rttm_dir=folder / "rttm")
    assert list(table["start"]) == [3.0, 5.0]
    assert list(table["line"]) == [2, 0]
    assert list(table["speaker"]) == ["s_1_002-F", "s_1_001-M"]
    turns = make_table(read_rttm(folder / "rttm"))
    assert set(table["segment_id"]) <= set(turns["segment_id"])


def test_without_rttms_the_segments_are_the_files_and_that_is_reported(folder):
    table, notes = read_reference_csv(folder / "data.csv", audio_root=folder)
    assert list(table["audio"]) == ["segments/s_1_002-F_0002.wav", "segments/s_1_001-M_0000.wav"]
    assert list(table["end"]) == [2.0, 2.0]
    assert [note.kind for note in notes] == ["untimed"]


def test_cut_files_that_are_missing_or_listed_twice_are_reported_or_dropped(folder):
    rows = CSV + "other/s_1_001-M_0000.wav,s_1_001-M\n"
    (folder / "data.csv").write_text(rows)
    (folder / "segments" / "s_1_002-F_0002.wav").unlink()
    with pytest.raises(InputError, match=r"s_1_002-F_0002\.wav: cannot be read \(No such file"):
        read_reference_csv(folder / "data.csv", audio_root=folder)
    (folder / "other").mkdir()
    (folder / "segments" / "s_1_001-M_0000.wav").rename(folder / "other" / "s_1_001-M_0000.wav")
    (folder / "data.csv").write_text(rows + rows.splitlines()[-1] + "\n")
    table, notes = read_reference_csv(folder / "data.csv", audio_root=folder, skip_bad=True)
    assert list(table["audio"]) == ["other/s_1_001-M_0000.wav"]
    told = [note.message for note in notes if note.kind == "dropped"]
    assert ["No such file" in message for message in told] == [True, True, False]
    assert told[2] == ("other/s_1_001-M_0000.wav: is listed twice, expected once; delete the row")
    with pytest.raises(InputError, match="rttm: holds 0 of the 4 listed files, expected at"):
        read_reference_csv(folder / "data.csv", audio_root=folder / "rttm", skip_bad=True)


def test_paths_of_windows_lead_to_the_same_files(folder):
    there, _ = read_reference_csv(folder / "data.csv", audio_root=folder)
    (folder / "data.csv").write_bytes(CSV.replace("/", "\\").replace("\n", "\r\n").encode())
    here, _ = read_reference_csv(folder / "data.csv", audio_root=folder)
    pd.testing.assert_frame_equal(here, there)


def test_overlap_is_counted_from_the_turns_that_the_csv_leaves_out_too(folder):
    file = folder / "rttm" / "s_1.rttm"
    file.write_text(RTTM + "SPEAKER s_1 1 6.5 1 <NA> <NA> 003-F <NA> <NA>\n")
    table, _ = read_reference_csv(folder / "data.csv", rttm_dir=folder / "rttm")
    assert list(table["overlap"]) == [0, 0.25]


def test_rttms_that_the_csv_does_not_list_are_reported(folder):
    (folder / "rttm" / "s_2.rttm").write_text(RTTM.replace("s_1", "s_2"))
    _, notes = read_reference_csv(folder / "data.csv", rttm_dir=folder / "rttm")
    assert [note[:2] for note in notes] == [("unpaired", "s_2"), ("unchecked", "audio")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("segments/s_1_002-F_0002.wav,s_1_001-M", "expected {session}_{speaker}_{NNNN}.wav and"),
        ("segments/noise.wav,s_1_001-M", "line 4: path is 'segments/noise.wav'"),
        ("s_1_001-M_0009.wav,s_1_001-M", "line 9 of session 's_1' is in no RTTM"),
        ("s_1_001-M_0002.wav,s_1_001-M", "speaker is '001-M', expected '002-F' as in s_1.rttm,"),
    ],
)
def test_a_row_that_fits_no_turn_is_reported_or_dropped(folder, row, message):
    (folder / "data.csv").write_text(CSV + row + "\n")
    with pytest.raises(InputError, match=message):
        read_reference_csv(folder / "data.csv", rttm_dir=folder / "rttm")
    table, notes = read_reference_csv(folder / "data.csv", rttm_dir=folder / "rttm", skip_bad=True)
    assert len(table) == 2
    assert notes[0].kind == "dropped"


def test_other_columns_are_refused(folder):
    (folder / "data.csv").write_text("file,label\n")
    with pytest.raises(
        InputError, match=r"columns \['path'\] are missing, found \['file', 'label'\]; write path"
    ):
        read_reference_csv(folder / "data.csv")


def test_the_real_csv_finds_a_turn_of_its_speaker_for_every_row_that_has_an_rttm(real_data):
    table, notes = read_reference_csv(
        real_data / "aishell4" / "data_fixed.csv",
        rttm_dir=real_data / "aishell4" / "rttm",
        skip_bad=True,
    )
    dropped = [note for note in notes if note.kind == "dropped"]
    assert len(table) + len(dropped) == 9589
    assert all("is in no RTTM" in note.message for note in dropped)
    assert table["session"].nunique() == 4
    assert (table["end"] - table["start"]).min() >= 1.5 - 1e-9
