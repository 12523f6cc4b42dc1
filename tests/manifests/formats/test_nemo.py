"""NeMo's manifests as its scripts and users write them, and what its loaders ask of ours."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.manifests.cli import main
from spk.manifests.formats.nemo import read_nemo
from spk.manifests.formats.registry import read_turns, write_turns
from spk.manifests.table import read_table

ROW = {"audio_filepath": "S1.wav", "offset": 0.5, "duration": 1.25, "label": "Anna"}
SESSION = {"audio_filepath": "S1.wav", "offset": 0, "duration": None, "label": "infer", "text": "-"}
SESSION |= {"num_speakers": None, "rttm_filepath": "rttm/S1.rttm", "uem_filepath": None}
LINE = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the folder of the manifest, ``m``; spk is run in the one above."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


def write(folder, *rows, name="manifest.json"):
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / name


def record(path, seconds=3.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(seconds * 8000)), 8000)


def rttm(folder, *turns, name="rttm/S1.rttm"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(LINE.format(*turn) for turn in turns))


def turns(path, **options):
    return [turn[:4] for turn in read_nemo(path, **options).turns]


def messages(path, kind):
    return [note.message for note in read_nemo(path).notes if note.kind == kind]


def run(*options):
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv", "--overwrite", *options])
    assert done.exit_code == 0, done.output
    return done


def audio_of(table="t.csv"):
    return read_table(table)["audio"].tolist()


def test_a_label_is_the_speaker_and_that_is_told(folder):
    path = write(folder, ROW, {**ROW, "offset": 2, "label": "王"}, {**ROW, "offset": 4})
    assert turns(path)[:2] == [("S1", "Anna", 0.5, 1.75), ("S1", "王", 2.0, 3.25)]
    assert messages(path, "speakers") == ["speakers, by the key 'label': 2 'Anna', 1 '王'"]
    assert "speakers, by the key 'label': 2 'Anna', 1 '王'" in run().stderr


def test_speaker_comes_before_label(folder):
    row = {key: value for key, value in ROW.items() if key != "label"}
    both = {**ROW, "speaker": "Bea", "label": "happy"}
    path = write(folder, {**row, "speaker": "Anna"}, {**ROW, "offset": 3, "speaker": "Anna"}, both)
    assert [turn[1] for turn in turns(path)] == ["Anna", "Anna", "Bea"]
    named = write(folder, {**ROW, "speaker": "Anna", "label": "infer"}, name="b.json")
    assert (turns(named)[0][1], read_nemo(named).notes) == ("Anna", [])
    assert messages(path, "speakers") == ["1 label beside a speaker, not read"]


@pytest.mark.parametrize("label", ["infer", "UNK", "", None])
def test_a_line_that_names_nobody_gives_no_turn(folder, label):
    path = write(folder, {**ROW, "label": label}, ROW)
    assert len(turns(path)) == 1
    assert "1 line without speaker gives no turn" in messages(path, "ignored")


def test_a_manifest_for_a_diarizer_alone_says_what_to_read(folder):
    write(folder, {**SESSION, "rttm_filepath": None})
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "1 line names nobody, and no RTTM; for what NeMo's diarizer wrote, run" in done.output


def test_turns_of_a_diarized_line_are_its_rttms(folder):
    rttm(folder, ("S1", 0.5, 1, "A"), ("S1", 1, 2, "B"))
    assert turns(write(folder, SESSION)) == [("S1", "A", 0.5, 1.5), ("S1", "B", 1.0, 3.0)]
    rttm(folder, ("x", 0.5, 1, "A"))
    assert turns(folder) == [("S1", "A", 0.5, 1.5)]
    assert messages(folder, "strange") == ["the session of S1.rttm is 'x', and is taken for 'S1'"]
    rttm(folder, ("x", 0.5, 1, "A"), ("S1", 3, 1, "B"))
    assert turns(folder) == [("S1", "B", 3.0, 4.0)]


@pytest.mark.parametrize("key", ["rttm_filepath", "rttm_filename", "rttm_file"])
def test_an_rttm_is_named_by_any_of_nemos_keys(folder, key):
    rttm(folder, ("S1", 0.5, 1, "A"))
    row = {name: value for name, value in SESSION.items() if name != "rttm_filepath"}
    assert turns(write(folder, {**row, key: "rttm/S1.rttm"})) == [("S1", "A", 0.5, 1.5)]


def test_windows_of_a_recording_cut_its_rttm_as_nemo_does(folder):
    rttm(folder, ("S1", 0.5, 1, "A"), ("S1", 1, 2, "B"), ("S1", 8, 1, "A"))
    window = {**SESSION, "offset": 1, "duration": 1.0}
    path = write(folder, window, {**window, "offset": 2})
    assert turns(path) == [("S1", "A", 1.0, 1.5), ("S1", "B", 1.0, 2.0), ("S1", "B", 2.0, 3.0)]
    assert messages(path, "clipped") == [
        "3 turns are cut or left out, as offset and duration say",
        "3 turns are cut or left out, as offset and duration say",
    ]
    write(folder, window, {**window, "offset": 1.25})
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv"])
    assert done.exit_code == 0, "windows may overlap"
    write(folder, SESSION, SESSION)
    done = CliRunner().invoke(main, ["nemo", "m", "u.csv"])
    assert "manifest.json, line 2, S1.rttm, line 1: the turn of 'A' from 0.5 to 1.5 s is alre" in (
        done.output
    )


def test_relative_paths_start_from_the_manifest_and_then_from_the_folder_of_the_run(folder):
    write(folder, {**ROW, "audio_filepath": "wav/S 1é.wav"})
    record(folder.parent / "wav" / "S 1é.wav")
    run()
    assert audio_of() == [str(folder.parent / "wav" / "S 1é.wav")]
    record(folder / "wav" / "S 1é.wav")
    run()
    assert audio_of() == [str(folder / "wav" / "S 1é.wav")]
    assert read_table("t.csv")["session"].tolist() == ["S 1é"]
    write(folder, {**ROW, "audio_filepath": str(folder / "wav" / "S 1é.wav")})
    run()
    assert audio_of() == [str(folder / "wav" / "S 1é.wav")]


def test_audio_root_wins_over_the_manifest(folder):
    write(folder, {**ROW, "audio_filepath": "wav/S1.wav"})
    record(folder / "wav" / "S1.wav")
    for name in ("deep/S1.flac", "wav/S1.wav"):
        record(folder.parent / "root" / name)
        if name.startswith("deep"):
            run("--audio-root", "root")
            assert audio_of() == [name]
            os.remove(folder.parent / "root" / name)
    run("--audio-root", "root")
    assert audio_of() == ["wav/S1.wav"]


def test_a_bare_name_that_is_nowhere_lists_no_place(folder):
    """As in NeMo's tarred sets; what lies in a folder has to be there."""
    write(folder, ROW)
    run()
    assert audio_of() == ["S1.flac"]
    write(folder, {**ROW, "audio_filepath": "wav/S1.wav"})
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv", "--overwrite"])
    assert done.output == (
        "manifest.json, line 1: 'wav/S1.wav' is not there, expected the path of a recording (1 of "
        "1 annotated session has no recording, first 'S1' with 1 turn); correct it, run spk where "
        "the path starts from, or pass --audio-root with the folder of the recordings, or pass "
        "--allow-unpaired to leave such sessions out; see t.csv.notes.csv\n"
    )
    write(folder, {**ROW, "audio_filepath": "s3://b/S1.wav"})
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv", "--overwrite"])
    assert "'s3://b/S1.wav' is an address of another machine, expected the path" in done.output


def test_a_duration_of_null_is_to_the_recordings_end(folder):
    record(folder / "S1.wav", 2.5)
    path = write(folder, {**ROW, "duration": None}, {**ROW, "offset": None, "label": "B"})
    assert turns(path) == [("S1", "Anna", 0.5, 2.5), ("S1", "B", 0.0, 1.25)]
    os.remove(folder / "S1.wav")
    with pytest.raises(InputError, match=r"manifest\.json, line 1: duration is null, so that it"):
        turns(path)
    record(folder.parent / "root" / "S1.wav", 1.5)
    run("--audio-root", "root")
    assert read_table("t.csv")["end"].tolist() == [1.25, 1.5]


def test_recordings_of_one_name_are_told_apart_by_their_folders(folder):
    """VoxCeleb's are, for which NeMo's own documentation makes a manifest."""
    files = ["id1/Q3G/00086.wav", "id2/Q3G/00086.wav", "id2/Q3G/00087.wav"]
    for file in files:
        record(folder / file)
    write(folder, *({**ROW, "audio_filepath": file, "label": file[:3]} for file in files))
    done = run("--scope", "corpus")
    table = read_table("t.csv")
    names = ["id1_Q3G_00086", "id2_Q3G_00086", "id2_Q3G_00087"]
    assert table["session"].tolist() == names
    assert table["audio"].tolist() == [str(folder / file) for file in files]
    record(folder.parent / "root" / "00086.wav")
    failed = CliRunner().invoke(main, ["nemo", "m", "u.csv", "--audio-root", "root"])
    assert "3 of 3 annotated sessions have no recording, first 'id1_Q3G_00086'" in failed.output
    assert "have one name, so sessions are called after their folders too, as 'id1_Q" in done.stderr


def test_uniq_id_names_the_session_and_has_one_recording(folder):
    path = write(folder, {**ROW, "uniq_id": "M"})
    assert turns(path)[0][0] == "M"
    rows = [{**ROW, "uniq_id": "M", "audio_filepath": f"x/{name}.wav"} for name in ("a", "b")]
    with pytest.raises(InputError, match=r"line 2: the recording of 'M' is '.*x/b\.wav', and in m"):
        turns(write(folder, *rows))
    assert len(turns(path, skip_bad=True)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": "x"}, "line 1: offset is 'x', expected a finite number"),
        ({"offset": True}, "line 1: offset is True, expected a finite number"),
        ({"offset": -1}, "line 1: offset is '-1' s, expected >= 0"),
        ({"duration": True}, "line 1: duration is True, expected a finite number"),
        ({"duration": -1}, "line 1: duration is '-1' s, expected > 0"),
        ({"duration": 1e9}, "line 1: end is '1e.09' s, expected at most"),
        ({"label": ["A"]}, r"line 1: label is \['A'\], expected text"),
        ({"label": True}, "line 1: label is True, expected text"),
        ({"text": {}}, r"line 1: text is \{\}, expected text"),
        ({"uniq_id": []}, r"line 1: uniq_id is \[\], expected text"),
        ({"audio_filepath": None}, r"line 1: is an object with \['audio_filepath', .*; correct it"),
        (
            {"audio_filepath": ["a"]},
            r"line 1: is of \['a'\], expected a line of NeMo with one path",
        ),
        ({"audio_filepath": "a\0"}, "line 1: session is 'a.x00', expected a plain name"),
        ({"rttm_filepath": "a"}, "line 1: names the speaker 'Anna' and an RTTM, expected one of"),
    ],
)
def test_what_is_wrong_is_named(folder, change, message):
    path = write(folder, {**ROW, **change}, {**ROW, "offset": 9})
    with pytest.raises(InputError, match=message) as caught:
        turns(path)
    assert "\n" not in str(caught.value)
    assert turns(path, skip_bad=True) == [("S1", "Anna", 9.0, 10.25)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rttm_filepath": "no.rttm"},
            "line 1: rttm_filepath is 'no.rttm', expected the path of a",
        ),
        ({"rttm_filepath": 3}, "line 1: rttm_filepath is 3, expected the path"),
        ({"rttm_filepath": "rttm"}, "line 1: rttm_filepath is 'rttm', expected the path of a file"),
        ({"audio_filepath": "S2.wav"}, "S1.rttm holds 2 sessions, first 'S1', expected 'S2'; name"),
        ({"offset": -1}, "line 1: offset is '-1' s, expected >= 0"),
        ({"duration": -1}, "line 1: duration is '-1' s, expected > 0"),
    ],
)
def test_what_is_wrong_in_a_diarized_line_is_named(folder, change, message):
    rttm(folder, ("S1", 0, 1, "A"), ("S3", 0, 1, "A"))
    path = write(folder, {**SESSION, **change}, ROW)
    with pytest.raises(InputError, match=message):
        turns(path)
    assert turns(path, skip_bad=True) == [("S1", "Anna", 0.5, 1.75)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]\n", "line 1: is 1, expected a line of NeMo with one path as audio_filepath; correct"),
        ('{"recording_id": "r"}', "line 1: is an object .*; run spk-manifests lhotse on it"),
        ('{"audio_filepath": "a", "offset": NaN}', "line 1: is not JSON .NaN is no number of JSON"),
        ('{"audio_filepath": "a", "duration": Infinity}', "is not JSON .Infinity is no number"),
        ('{"a": ' * 99999, "line 1: is not JSON .nested too deeply"),
    ],
)
def test_what_is_no_manifest_is_named(folder, text, message):
    (folder / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        turns(folder / "a.json")


def test_marks_line_ends_and_empty_files_do_not_matter(folder):
    path = write(folder, ROW)
    path.write_bytes(b"\xef\xbb\xbf\r\n" + path.read_bytes().replace(b"\n", b"\r\n") * 2 + b"\r\n")
    assert turns(path) == [("S1", "Anna", 0.5, 1.75)] * 2
    path.write_bytes(b"")
    assert [note.kind for note in read_nemo(path).notes] == ["empty"]


def test_a_turn_that_is_given_twice_is_refused(folder):
    write(folder, ROW, ROW)
    done = CliRunner().invoke(main, ["nemo", "m", "t.csv"])
    assert (
        "manifest.json, line 2: the turn of 'Anna' from 0.5 to 1.75 s is already given in man"
        in (done.output)
    )


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.nemo.json"])
def test_a_manifest_is_known_by_how_it_begins(folder, name):
    assert len(read_turns(write(folder, ROW, ROW, name=name)).turns) == 2
    assert len(read_turns(folder).turns) == 2


def test_other_readers_say_who_reads_it(folder):
    for rows in ([ROW], [ROW, ROW]):
        path = write(folder, *rows)
        for name, form in (("whisperx", "WhisperX JSON"), ("lhotse", "a manifest of lhotse")):
            with pytest.raises(
                InputError, match=f"is a NeMo manifest, expected {form}; run spk-ma"
            ):
                read_turns(path, name)
        with pytest.raises(
            InputError, match="is a NeMo manifest, expected an RTTM; run spk-manifests n"
        ):
            read_turns(path, "rttm")


def test_a_whisperx_document_that_names_its_audio_stays_one(folder):
    document = {"audio_filepath": "a.wav", "segments": [{"start": 0, "end": 1, "speaker": "A"}]}
    assert turns_of_any(write(folder, document, name="a.json")) == [("a", "A", 0.0, 1.0)]


def turns_of_any(path):
    return [turn[:4] for turn in read_turns(path).turns]


TABLE = pd.DataFrame(
    [("S1", "Anna Lee", 0.5, 2.25, "hi"), ("S 2", "王", 1 / 3, 0.7, ""), ("S1", "B", 0.6, 9.0, "")],
    columns=["session", "speaker", "start", "end", "text"],
)


def nemo_items(path):
    """Read a manifest by NeMo's rules (ASRSpeechLabel of collections.py, get_full_path).

    A line is a JSON object on its own, with an audio path, a duration and a label, which is split
    as text; a relative path is the manifest's folder's where it is there.
    """
    items = []
    for line in Path(path).read_text(encoding="utf-8").split("\n")[:-1]:
        item = json.loads(line)
        audio = item.get("audio_filename", item.get("audio_filepath"))
        assert len(audio) < 255 or os.path.isabs(audio)
        beside = os.path.join(os.path.dirname(path), audio)
        audio = os.path.abspath(beside) if os.path.isfile(beside) else audio
        assert not {"command", "target"} & item.keys(), "NeMo takes these for the label"
        assert item["label"].split()
        assert item["duration"] > 0
        items.append((audio, item.get("offset"), item["duration"], item["label"]))
    return items


def test_nemos_rules_read_what_is_written(folder):
    files = {"S1": folder / "wav" / "S1.wav", "S 2": folder / "other name.wav"}
    for file in files.values():
        record(file, 10)
    write_turns(TABLE, folder / "train.json", "nemo", audio=files)
    assert nemo_items(folder / "train.json") == [
        (str(files["S 2"]), 1 / 3, round(0.7 - 1 / 3, 8), "王"),
        (str(files["S1"]), 0.5, 1.75, "Anna Lee"),
        (str(files["S1"]), 0.6, 8.4, "B"),
    ]
    rows = [json.loads(line) for line in (folder / "train.json").read_text().splitlines()]
    assert [(row.get("text"), row.get("uniq_id")) for row in rows] == [
        *((None, "S 2"), ("hi", None), (None, None))
    ]
    for file in folder.parent.glob("m/*.json"):
        assert [turn[0] for turn in turns(file)] == ["S 2", "S1", "S1"]
    run()
    assert audio_of() == [str(files["S 2"]), str(files["S1"]), str(files["S1"])]


def test_without_recordings_names_are_bare_and_that_is_told(folder):
    write(folder, ROW)
    run()
    done = CliRunner().invoke(main, ["export", "t.csv", "m/a.nemo.json"])
    assert [item[0] for item in nemo_items(folder / "a.nemo.json")] == ["S1.wav"]
    assert (
        "audio_filepath is a bare name, since no recordings are known; pass --audio-root for"
        in (done.stderr)
    )
