import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.turns import Annotation, Turn, write_notes


def with_notes(annotation, **options):
    notes = []
    return make_table(annotation, notes=notes, **options), notes


def turn(session="L_R001S01C01", speaker="001-M", start=1.0, end=2.0, line=0):
    return Turn(session, speaker, start, end, line, f"{session}.rttm, line {line + 1}")


def record(folder, name, seconds):
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.flac", np.zeros(int(seconds * 16000)), 16000)


def test_turns_become_rows_sorted_by_session_and_time():
    turns = [turn("b"), turn("a", start=1.5), turn("a", start=0.5, end=9)]
    table, notes = with_notes(Annotation(turns))
    assert list(zip(table["session"], table["start"], strict=True)) == [
        ("a", 0.5),
        ("a", 1.5),
        ("b", 1.0),
    ]
    assert list(table["audio"]) == ["a.flac", "a.flac", "b.flac"]
    assert [note.message for note in notes] == ["no audio folder: ends were not checked"]


def test_audio_is_found_below_its_root_and_ends_are_clipped(tmp_path):
    record(tmp_path / "deep", "a", 3)
    turns = [turn("a"), turn("a", start=2.5, end=3.5, line=1)]
    table, notes = with_notes(Annotation(turns), audio_root=tmp_path)
    assert list(table["audio"]) == ["deep/a.flac"] * 2
    assert list(table["end"]) == [2.0, 3.0]
    assert [(note.kind, note.message) for note in notes] == [
        ("clipped", "end 3.5 s is cut to the audio's 3 s")
    ]


def test_the_id_of_a_turn_is_the_same_with_and_without_audio_and_in_every_scope(tmp_path):
    record(tmp_path, "L_R001S01C01", 1.5)
    reading = Annotation([turn()])
    bare = make_table(reading)
    for options in ({"audio_root": tmp_path}, {"scope": "series"}, {"scope": "corpus"}):
        table = make_table(reading, **options)
        assert list(table["segment_id"]) == list(bare["segment_id"])


def test_what_has_no_partner_ends_the_run_or_is_dropped_and_listed(tmp_path):
    record(tmp_path, "a", 3)
    record(tmp_path, "c", 3)
    reading = Annotation([turn("a"), turn("b")])
    with pytest.raises(InputError, match=r"1 of 2 annotated sessions has no .* 'b' \(1 t") as ended:
        make_table(reading, audio_root=tmp_path)
    assert "recordings without annotation: 'c' (c.flac); add the recording" in str(ended.value)
    assert [note[:2] for note in ended.value.notes] == [("unpaired", "b"), ("unpaired", "c")]
    table, notes = with_notes(reading, audio_root=tmp_path, allow_unpaired=True)
    assert set(table["session"]) == {"a"}
    assert [note[:2] for note in notes] == [("dropped", "b"), ("unpaired", "c")]
    assert notes[0].message == "annotation without a recording, 1 turn left out"


def test_duplicates_in_two_files_of_one_name_are_reported_by_their_paths(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.rttm").write_text("SPEAKER a 1 1 2 <NA> <NA> b <NA> <NA>\n")
    twice = r"y/a\.rttm, line 1: .* already given in x/a\.rttm, line 1"
    with pytest.raises(InputError, match=twice):
        make_table(read_rttm(tmp_path))


def test_duplicates_are_refused_with_both_places_or_dropped():
    turns = [turn(line=3), turn(speaker="002-F"), turn(line=8)]
    with pytest.raises(InputError, match=r"line 9: the turn of '001-M' .* in L.*\.rttm, line 4"):
        make_table(Annotation(turns))
    table, notes = with_notes(Annotation(turns), skip_bad=True)
    assert len(table) == 2
    assert notes[0].kind == "dropped"


def test_a_turn_after_the_end_of_its_audio_is_refused(tmp_path):
    record(tmp_path, "a", 1)
    turns = [turn("a", start=0.5), turn("a", start=1.0, end=2.0, line=4)]
    with pytest.raises(InputError, match="line 5: start is '1' s, expected less than the 1 s"):
        make_table(Annotation(turns), audio_root=tmp_path)
    table, notes = with_notes(Annotation(turns), audio_root=tmp_path, skip_bad=True)
    assert len(table) == 1
    assert sorted(note.kind for note in notes) == ["clipped", "dropped"]


def test_two_recordings_of_one_name_and_damaged_audio_are_refused(tmp_path):
    record(tmp_path / "x", "a", 1)
    record(tmp_path / "y", "a", 1)
    with pytest.raises(InputError, match="session 'a' has 2 recordings"):
        make_table(Annotation([turn("a")]), audio_root=tmp_path)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a.flac").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"a\.flac: cannot be read \(Format not"):
        make_table(Annotation([turn("a")]), audio_root=tmp_path / "z")


def test_nothing_left_is_an_error(tmp_path):
    record(tmp_path, "c", 3)
    with pytest.raises(InputError, match="holds 0 usable turns of 1 .first left out: annot"):
        make_table(Annotation([turn("a")]), audio_root=tmp_path, allow_unpaired=True)


def test_speakers_whom_the_identity_file_does_not_name_may_be_left_out(tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("session,speaker,person,confidence\na,001-M,anna,0.99\n")
    turns = [turn("a"), turn("a", "003-M", start=3, end=4, line=1)]
    with pytest.raises(InputError, match="add their rows, or pass --skip-bad to leave their turns"):
        make_table(Annotation(turns), identity=people)
    table, notes = with_notes(Annotation(turns), identity=people, skip_bad=True)
    assert list(table["speaker"]) == ["anna"]
    dropped = [note for note in notes if note.kind == "dropped"]
    assert [note.place for note in dropped] == ["a.rttm, line 2"]
    assert f"'003-M' of session 'a' has no person in {people}" in dropped[0].message


def test_the_identity_file_names_persons_across_sessions(tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("session,speaker,person\na,001-M,anna\nb,002-F,anna\n")
    table = make_table(Annotation([turn("a"), turn("b", "002-F")]), identity=people)
    assert list(table["speaker"]) == ["anna", "anna"]
    with pytest.raises(InputError, match="1 of 2 speakers has no person, first '003-M' of"):
        make_table(Annotation([turn("a"), turn("a", "003-M")]), identity=people)
    people.write_text("session,speaker,person\na,001-M,anna\nb,002-F,\nc,001-M\n")
    with pytest.raises(InputError, match=r"people\.csv: person of 2 speakers is empty, .*'002-F'"):
        make_table(Annotation([turn("a")]), identity=people)
    people.write_text("session,speaker,person\na,001-M,anna\na,001-M,bert\n")
    with pytest.raises(InputError, match="1 speaker is named twice, first '001-M' of session"):
        make_table(Annotation([turn("a")]), identity=people)


def test_the_real_meetings_hold_the_persons_of_their_identity_file(real_data):
    reading = read_rttm(real_data / "meetings")
    people = real_data / "meetings" / "people.csv"
    table, notes = with_notes(reading, audio_root=real_data / "meetings", identity=people)
    assert notes == []
    assert set(table["speaker"]) == set(pd.read_csv(people)["person"])
    # 001-M of series 20990102_M_R002 is another person in S02, so a series merges one too many
    persons = table.groupby("session")["speaker"].nunique().sum()
    series = make_table(reading, scope="series")
    assert series["speaker"].nunique() < table["speaker"].nunique() < persons


def test_notes_are_listed_beside_the_table_and_old_ones_removed(tmp_path):
    _, notes = with_notes(Annotation([turn()]))
    listed = write_notes(notes, tmp_path / "t.csv")
    assert listed is not None
    assert listed.read_text().splitlines() == [
        "kind,place,message",
        "unchecked,audio,no audio folder: ends were not checked",
    ]
    assert write_notes([], tmp_path / "t.csv") is None
    assert not listed.exists()
