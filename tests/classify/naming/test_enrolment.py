import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import silent

from spk.classify.naming.clips import clips_table, enrol_clips
from spk.classify.naming.enrolment import enrol
from spk.classify.naming.voices import check_person
from spk.classify.naming.voices_file import save_voices
from spk.common.errors import InputError


def file_of(voices, tmp_path):
    save_voices(voices, tmp_path / "a.voices")
    return (tmp_path / "a.voices").read_bytes()


def test_everybody_is_enrolled_by_the_seconds_of_their_speech(voices, table):
    people = voices.table().set_index("person")
    assert list(people.index) == ["Ann", "Bo", "Cem", "Di", "Eva"]
    assert people["seconds"].tolist() == pytest.approx([2.5 * 8 * 4] * 5)
    assert people["sessions"].tolist() == [4] * 5
    assert people["segments"].sum() == len(table)


def test_the_layer_that_tells_voices_is_chosen_and_that_is_recorded(voices, table, store):
    assert (voices.layer, voices.chosen) == (1, "chosen by leaving sessions out")
    assert enrol(table, store, layer=0, log=silent).layer == 0
    one_session = table[table["session"] == "s1"]
    chosen = enrol(one_session, store, log=silent)
    assert (chosen.layer, "stretch" in chosen.chosen) == (1, True)
    assert chosen.calibration.calibrator is None


def test_enrolling_the_same_speech_twice_changes_nothing(voices, table, store, tmp_path):
    lines = []
    again = enrol(table, store, voices=voices, log=lines.append)
    assert file_of(again, tmp_path) == file_of(voices, tmp_path)
    assert lines == [f"passed over: {len(table)} segments enrolled already"]


def test_session_by_session_or_all_at_once_are_the_same_voices(voices, table, store):
    grown = None
    for _, part in table.groupby("session"):
        grown = enrol(part, store, voices=grown, layer=1, log=silent)
    assert np.allclose(grown.scorer.models, voices.scorer.models, atol=1e-9)
    assert grown.calibration.calibrator == voices.calibration.calibrator
    assert grown.speech == voices.speech


def test_a_removed_person_is_as_if_never_enrolled(voices, table, store):
    fewer = voices.remove("Bo")
    never = enrol(table[table["speaker"] != "Bo"], store, layer=1, log=silent)
    assert fewer.names == ["Ann", "Cem", "Di", "Eva"]
    assert np.array_equal(fewer.stretches.sums, never.stretches.sums)
    assert fewer.speech == never.speech
    assert fewer.calibration.calibrator == never.calibration.calibrator
    with pytest.raises(InputError, match="'Bo' is not enrolled, expected some of 'Ann'"):
        fewer.remove("Bo")


def test_the_last_person_is_not_removed(table, store):
    alone = enrol(table[table["speaker"] == "Ann"], store, layer=1, log=silent)
    with pytest.raises(InputError, match="'Ann' is the only person enrolled"):
        alone.remove("Ann")


def test_the_same_speech_under_another_name_is_refused(voices, table, store):
    other = table.assign(speaker=table["speaker"].replace("Bo", "Bob"))
    with pytest.raises(InputError, match=r"is 'Bob''s, expected 'Bo''s.*remove 'Bo'"):
        enrol(other, store, voices=voices, log=silent)


def test_another_encoder_is_refused_and_says_what_differs(voices, table, make_store, tmp_path):
    other = make_store(tmp_path / "other", table, weights_sha256="c" * 64)
    with pytest.raises(InputError, match=r"made with another encoder.*weights_sha256 'cc"):
        enrol(table, other, voices=voices, log=silent)


def test_another_layer_than_the_voices_is_refused(voices, table, store):
    with pytest.raises(InputError, match="--layer: value is 0, expected 1, the voices'"):
        enrol(table, store, voices=voices, layer=0, log=silent)
    with pytest.raises(InputError, match=r"--layer: 7 is not in .*expected one of \[0, 1\]"):
        enrol(table, store, layer=7, log=silent)


def test_an_identity_file_says_who_is_who_and_whom_to_leave_out(table, store, tmp_path):
    local = table.assign(speaker=table["session"] + "_" + table["speaker"].str[:1])
    rows = ["session,speaker,person"]
    rows += [f"s{k},{name[0]},{name} Lee" for k in range(1, 5) for name in ("Ann", "Bo", "Cem")]
    (tmp_path / "people.csv").write_text("\n".join(rows))
    lines = []
    voices = enrol(local, store, identity=tmp_path / "people.csv", layer=1, log=lines.append)
    assert voices.names == ["Ann Lee", "Bo Lee", "Cem Lee"]
    assert lines == [f"left out: 8 speakers without a person in {tmp_path / 'people.csv'}"]


def test_short_segments_and_those_of_several_voices_are_left_out(table, store):
    some = table.copy()
    some.loc[some["speaker"] == "Ann", "overlap"] = 0.5  # no other segment of hers: kept
    some.loc[some.index[some["speaker"] == "Bo"][:5], "overlap"] = 0.5
    some.loc[some.index[some["speaker"] == "Cem"][:3], "end"] -= 2.0
    lines = []
    people = enrol(some, store, layer=1, log=lines.append).table().set_index("person")
    assert people["segments"].tolist() == [32, 27, 29, 32, 32]
    assert lines == [
        "left out: 3 segments shorter than 0.8 s, 5 in which others speak for more than 20 %"
    ]


def test_who_speaks_at_once_is_found_without_a_column_that_says_it(table, store):
    bare = table.drop(columns="overlap")
    rows = bare["speaker"] == "Bo"
    bare.loc[rows, "start"] -= 2.0  # into Ann's turn before
    lines = []
    enrol(bare, store, layer=1, log=lines.append)
    assert lines == []  # neither has any other speech
    bare.loc[bare.index[rows][0], "start"] += 2.0
    enrol(bare, store, layer=1, log=lines.append)
    assert lines[0].startswith("left out: 0 segments shorter than 0.8 s, 14 in which others")


def test_no_speech_to_enrol_is_refused(table, store):
    short = table.assign(end=table["start"] + 0.5)
    with pytest.raises(InputError, match="0 segments of at least 0.8 s can be enrolled"):
        enrol(short, store, log=silent)


@pytest.mark.parametrize("name", ["unknown", "Unknown_3", "unknown 1"])
def test_a_strangers_label_is_no_persons_name(name):
    with pytest.raises(InputError, match="which is what a stranger is called"):
        check_person(name, "people.csv")


def test_a_name_that_no_file_can_hold_is_refused(table, store):
    bad = table.assign(speaker=table["speaker"].replace("Bo", "Bo/2"))
    with pytest.raises(InputError, match=r"person is 'Bo/2', expected a plain name"):
        enrol(bad, store, log=silent)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return a folder of clips of noise of five people, each of a spectrum of its own."""
    folder = tmp_path_factory.mktemp("clips")
    for place, name in enumerate(("Ann", "Bo", "Cem", "Di", "Eva Lee")):
        (folder / name).mkdir()
        for number in range(3):
            rng = np.random.default_rng([place, number])
            noise = rng.normal(size=24000 * 6)
            tilt = np.fft.irfft(
                np.fft.rfft(noise) * np.exp(-np.arange(72001) / (4000 * place + 999))
            )
            soundfile.write(folder / name / f"{number}.wav", 0.2 * tilt / tilt.std(), 24000)
    return folder


def test_clips_of_any_rate_are_enrolled_under_their_folders_name(clips, tmp_path):
    voices = enrol_clips(clips, tmp_path / "cache", log=silent)
    assert voices.names == ["Ann", "Bo", "Cem", "Di", "Eva Lee"]
    assert voices.config["encoder"] == "small"
    assert voices.table()["seconds"].tolist() == pytest.approx([18.0] * 5)
    assert voices.calibration.known_trials > 0  # clips are left out in turn
    again = enrol_clips(clips, tmp_path / "cache", voices=voices, log=silent)
    assert file_of(again, tmp_path) == file_of(voices, tmp_path)
    with pytest.raises(InputError, match="mfcc: made with another encoder than the voices"):
        enrol_clips(clips, tmp_path / "other", voices=voices, encoder="mfcc", log=silent)


def test_clips_of_more_people_join_voices_of_one_layer_of_many(clips, tmp_path):
    first, rest = tmp_path / "first", tmp_path / "rest"
    for folder, names in ((first, ("Ann", "Bo", "Cem", "Di")), (rest, ("Eva Lee",))):
        for name in names:
            shutil.copytree(clips / name, folder / name)
    voices = enrol_clips(first, tmp_path / "cache", encoder="demo", log=silent)
    grown = enrol_clips(rest, tmp_path / "cache", voices=voices, log=silent)
    assert (grown.layer, grown.names[-1]) == (voices.layer, "Eva Lee")
    assert grown.table()["seconds"].tolist() == pytest.approx([18.0] * 5)


def test_a_long_clip_is_several_segments(tmp_path):
    (tmp_path / "Ann").mkdir()
    soundfile.write(tmp_path / "Ann" / "a.wav", np.zeros(16000 * 20), 16000)
    rows = clips_table(tmp_path)
    assert len(rows) == 2
    assert (rows["end"] - rows["start"]).tolist() == [10.0, 10.0]
    assert pd.Series(rows["session"]).unique().tolist() == ["Ann/a.wav"]


def test_persons_whose_clips_lie_a_folder_deeper_are_told(tmp_path, caplog):
    for clip in ("clips/Ann/a.wav", "clips/Bo/b.wav", "Cem/1/c.wav", "Di/d.wav", "Di/2/d.wav"):
        (tmp_path / clip).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / clip, np.zeros(16000), 16000)
    assert sorted({*clips_table(tmp_path)["speaker"]}) == ["Cem", "Di", "clips"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{tmp_path}: all clips of 1 of 3 persons lie in folders of folders, first clips/Ann; if "
        f"'Ann' is a person, name {tmp_path / 'clips'}"
    )
    caplog.clear()
    assert sorted({*clips_table(tmp_path / "clips")["speaker"]}) == ["Ann", "Bo"]
    assert not caplog.records


def test_a_clip_in_no_persons_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 recordings, expected .*NAME"):
        clips_table(tmp_path)
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with pytest.raises(InputError, match="a.wav: lies in no person's folder"):
        clips_table(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        clips_table(tmp_path / "a.wav")
    (tmp_path / "a.wav").unlink()
    (tmp_path / "Bo").mkdir()
    (tmp_path / "Bo" / "1.m4a").touch()
    with pytest.raises(InputError, match=r"Bo/1.m4a: .* not decoded; convert it: `ffmpeg"):
        clips_table(tmp_path)
