import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import silent

from spk.classify import naming
from spk.classify.naming.voices_file import load_voices
from spk.common.errors import InputError
from spk.extract import extract
from spk.manifests import write_turns
from spk.manifests.table import check_table

RATE = 16000
PEOPLE = ("Ann", "Bo", "Cem", "Di")


def sound_of(person, seconds, seed):
    """Return noise of a person's own spectrum, louder and softer as speech is."""
    place = (*PEOPLE, "stranger").index(person)
    noise = np.random.default_rng([place, seed]).normal(size=int(seconds * RATE))
    spectrum, bins = np.fft.rfft(noise), np.arange(len(noise) // 2 + 1) / len(noise)
    peak = np.exp(-(((bins - 0.03 - 0.05 * place) / 0.05) ** 2))
    sound = np.fft.irfft(spectrum * peak, len(noise)) * (1.2 + np.sin(np.arange(len(noise)) / 2000))
    return 0.1 * sound / sound.std()


def recording(path, people, seed, each=4.0, rounds=3):
    """Write a meeting in which people take turns; return their turns."""
    rows, parts = [], []
    for turn in range(rounds * len(people)):
        person = people[turn % len(people)]
        parts.append(sound_of(person, each, 100 * seed + turn))
        rows.append((path.stem, person, each * turn, each * (turn + 1)))
    soundfile.write(path, np.concatenate(parts), RATE)
    return pd.DataFrame(rows, columns=["session", "speaker", "start", "end"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with three known meetings, their voices, and two new meetings."""
    folder = tmp_path_factory.mktemp("meetings")
    turns = pd.concat([recording(folder / f"m{k}.wav", PEOPLE, k) for k in range(3)])
    table = turns.assign(
        audio=turns["session"] + ".wav",
        segment_id=turns["session"] + "-" + turns["start"].map(str),
    )
    table.to_csv(folder / "m.csv", index=False)
    where = {"audio_root": folder, "encoder": "mfcc", "log": silent}
    store = extract(check_table(table), folder / "features", **where)
    voices = naming.enrol(table, store, audio_root=folder, log=silent)
    naming.save_voices(voices, folder / "team.voices")
    for name, people in (("new", ("Bo", "stranger", "Ann")), ("later", ("Di", "Cem"))):
        made = recording(folder / f"{name}.wav", people, 7)
        labels = {person: f"SPEAKER_0{k}" for k, person in enumerate(people)}
        made = made.replace({"speaker": labels}).assign(text="word")
        made.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def voices(place):
    return load_voices(place / "team.voices")


def turns_of(place, *names):
    return pd.concat([pd.read_csv(place / f"{name}.csv") for name in names])


def names_of(named):
    return dict(zip(named.clusters["cluster"], named.clusters["name"], strict=True))


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".rttm", None), (".json", None), (".eaf", None), (".jsonl", None), (".vtt", None)],
)
def test_every_kind_of_diarization_gets_the_same_names(place, voices, tmp_path, suffix, form):
    path = tmp_path / f"new{suffix}"
    write_turns(turns_of(place, "new"), path, form)
    named = naming.apply(voices, path, audio=place / "new.wav", cache=place / "cache", log=silent)
    assert names_of(named) == {"SPEAKER_00": "Bo", "SPEAKER_01": "unknown_1", "SPEAKER_02": "Ann"}
    assert named.clusters["seconds"].tolist() == pytest.approx([12.0] * 3)


def test_voices_and_what_they_name_show_themselves_in_one_line(place, voices, tmp_path):
    write_turns(turns_of(place, "new"), tmp_path / "new.rttm")
    named = naming.apply(
        voices, tmp_path / "new.rttm", audio=place / "new.wav", cache=place / "cache", log=silent
    )
    assert repr(named) == "<Named 3 clusters, 0 doubtful>"
    assert repr(voices) == f"<Voices {voices.summary()[0]}>"
    people = f"{len(voices.names)} persons"
    assert repr(voices.scorer) == f"<Scorer {people}, {voices.scorer.method}>"
    assert repr(voices.stretches).startswith(f"<Stretches {len(voices.stretches)} of {people}, ")
    assert repr(voices.calibration).startswith("Calibration(calibrator=")
    assert "array" not in repr(voices.calibration)


def test_sessions_without_a_recording_are_told_with_the_option_that_names_it(
    place, voices, tmp_path
):
    write_turns(turns_of(place, "new").assign(session="old"), tmp_path / "old.rttm")
    with pytest.raises(InputError, match="'old' .*name the recording .* with --audio in the pl"):
        naming.apply(voices, tmp_path / "old.rttm", audio_root=place, log=silent)
    with pytest.raises(InputError, match="suffix is '.wav', .* or pass --input-format, one of"):
        naming.apply(voices, place / "new.wav", audio=place / "new.wav", log=silent)
    (tmp_path / "none.rttm").touch()
    with pytest.raises(InputError, match="files of csv, whisperx, .* say which, --input-format"):
        naming.apply(voices, place, audio_root=place, log=silent)
    with pytest.raises(InputError, match="none.rttm: holds 0 turns with a speaker"):
        naming.apply(voices, tmp_path / "none.rttm", audio=place / "new.wav", log=silent)


def test_several_sessions_are_named_from_a_folder_of_recordings(place, voices, tmp_path):
    write_turns(turns_of(place, "new", "later"), tmp_path / "all.rttm")
    lines = []
    named = naming.apply(
        voices, tmp_path / "all.rttm", audio_root=place, cache=place / "cache", log=lines.append
    )
    assert named.names["later", "SPEAKER_00"] == "Di"
    assert named.names["new", "SPEAKER_00"] == "Bo"
    assert lines[-1].startswith("4 of 5 clusters have a name, the others: 1 stranger; 0 doubtful;")


def test_a_whisperx_json_gets_names_on_the_command_line(place, tmp_path):
    from click.testing import CliRunner

    from spk.__main__ import main

    write_turns(turns_of(place, "new"), tmp_path / "new.json")
    words = ["name", "apply", str(place / "team.voices"), str(tmp_path / "new.json")]
    words += [
        "--audio",
        str(place / "new.wav"),
        "-o",
        str(tmp_path / "out"),
        "--formats=json,srt",
    ]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    segments = json.loads((tmp_path / "out" / "new.json").read_text())["segments"]
    assert [one["speaker"] for one in segments[:3]] == ["Bo", "unknown_1", "Ann"]
    assert "[Bo]: word" in (tmp_path / "out" / "new.srt").read_text()
    assert not Path(tmp_path / "out" / "names.csv").exists()


def test_of_a_folder_of_several_formats_one_is_chosen(place, voices, tmp_path):
    for suffix in (".rttm", ".eaf"):
        write_turns(turns_of(place, "later"), tmp_path / f"later{suffix}")
    where = {"audio_root": place, "cache": place / "cache", "log": silent}
    with pytest.raises(InputError, match="holds files of eaf, rttm.*say which, --input-format"):
        naming.apply(voices, tmp_path, **where)
    named = naming.apply(voices, tmp_path, input_format="eaf", **where)
    assert names_of(named) == {"SPEAKER_00": "Di", "SPEAKER_01": "Cem"}


def test_without_a_cache_nothing_is_left_behind(place, voices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_turns(turns_of(place, "later"), tmp_path / "later.rttm")
    naming.apply(voices, "later.rttm", audio=place / "later.wav", log=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["later.rttm"]


def test_features_that_are_kept_belong_to_the_recording_and_not_to_its_name(
    place, voices, tmp_path
):
    write_turns(turns_of(place, "new"), tmp_path / "new.rttm")
    (tmp_path / "new.wav").write_bytes((place / "new.wav").read_bytes())
    where = {"audio": tmp_path / "new.wav", "cache": tmp_path / "out", "log": silent}
    first = naming.apply(voices, tmp_path / "new.rttm", **where)
    samples, rate = soundfile.read(tmp_path / "new.wav")
    soundfile.write(tmp_path / "new.wav", np.roll(samples, 4 * rate), rate)  # a turn later
    second = naming.apply(voices, tmp_path / "new.rttm", **where)
    assert names_of(first)["SPEAKER_00"] == "Bo"
    assert names_of(second)["SPEAKER_01"] == "Bo"


def test_turns_past_the_end_of_the_recording_are_left_out_and_counted(place, voices, tmp_path):
    late = pd.DataFrame(
        {"session": ["new"], "speaker": ["SPEAKER_09"], "start": [900.0], "end": [909.0]}
    )
    write_turns(pd.concat([turns_of(place, "new"), late]), tmp_path / "new.rttm")
    lines = []
    where = {"audio": place / "new.wav", "cache": tmp_path / "out", "log": lines.append}
    named = naming.apply(voices, tmp_path / "new.rttm", **where)
    assert "left out: 1 segment that extraction rejected" in lines
    row = named.clusters.set_index("cluster").loc["SPEAKER_09"]
    assert (row["name"], row["reason"]) == ("unknown_2", "short")


@pytest.mark.parametrize("option", ["audio", "audio_root"])
def test_a_recording_that_is_no_audio_is_refused_and_not_called_short(
    place, voices, tmp_path, option
):
    (tmp_path / "new.wav").write_bytes(b"no audio" * 100)
    where = tmp_path if option == "audio_root" else tmp_path / "new.wav"
    write_turns(turns_of(place, "new"), tmp_path / "new.rttm")
    with pytest.raises(InputError, match="new.wav: "):
        naming.apply(voices, tmp_path / "new.rttm", **{option: where}, log=silent)


def test_a_session_without_its_recording_is_refused(place, voices, tmp_path):
    rows = turns_of(place, "new").assign(session="elsewhere")
    write_turns(rows, tmp_path / "a.rttm")
    with pytest.raises(InputError, match="elsewhere"):
        naming.apply(voices, tmp_path / "a.rttm", audio_root=place, log=silent)


def test_the_package_offers_the_documented_names(place):
    import ast

    assert sorted(naming.__all__) == sorted(set(dir(naming)))
    for name in naming.__all__:
        assert getattr(naming, name).__name__ == name
    tree = ast.parse(Path(naming.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert sorted(alias.name for node in block.body for alias in node.names) == naming.__all__


def test_a_wrong_encoder_is_refused_before_the_work_and_leaves_the_right_one_free(
    place, voices, tmp_path
):
    write_turns(turns_of(place, "later"), tmp_path / "later.rttm")
    where = {"audio": place / "later.wav", "cache": tmp_path / "out", "log": silent}
    with pytest.raises(InputError, match="demo: made with another encoder than the voices"):
        naming.apply(voices, tmp_path / "later.rttm", encoder="demo", **where)
    assert not (tmp_path / "out").exists()
    named = naming.apply(voices, tmp_path / "later.rttm", **where)
    assert names_of(named) == {"SPEAKER_00": "Di", "SPEAKER_01": "Cem"}


def test_one_person_or_two_can_be_looked_for(place, tmp_path):
    table = pd.read_csv(place / "m.csv")
    write_turns(turns_of(place, "new"), tmp_path / "new.rttm")
    for people in (["Bo"], ["Bo", "Cem"]):
        some = table[table["speaker"].isin(people)]
        few = naming.enrol(some, place / "features", log=silent)
        lines = []
        where = {"audio": place / "new.wav", "cache": tmp_path / "out", "log": lines.append}
        named = naming.apply(few, tmp_path / "new.rttm", **where)
        assert names_of(named)["SPEAKER_00"] == "Bo"
        assert named.clusters["probability"].isna().all()
        assert any("calibration: none, since the enrolment is too small" in line for line in lines)
