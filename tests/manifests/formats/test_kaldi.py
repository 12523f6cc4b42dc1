"""Kaldi data directories as kaldi's own scripts and others write them."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.manifests.cli import main
from spk.manifests.formats.kaldi import read_kaldi
from spk.manifests.formats.registry import write_turns
from spk.manifests.table import read_table

SEGMENTS = "A-r1-1 r1 0.5 1.75\nB-r1-2\tr1 1  10.885 \nA-r1-3 r1 3 -1\n"
SPEAKERS = "A-r1-1 A\nA-r1-3 A\nB-r1-2 B\n"


def write(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def turns(folder, **options):
    return [(t.session, t.speaker, t.start, t.end) for t in read_kaldi(folder, **options).turns]


def test_segments_are_turns_and_their_texts_are_kept(tmp_path):
    write(
        tmp_path,
        segments=SEGMENTS,
        utt2spk=SPEAKERS,
        reco2dur="r1 12.5 \n",
        text="A-r1-1 hi  you\n",
    )
    assert turns(tmp_path) == [
        ("r1", "A", 0.5, 1.75),
        ("r1", "B", 1.0, 10.885),
        ("r1", "A", 3.0, 12.5),
    ]
    assert [turn.text for turn in read_kaldi(tmp_path).turns] == ["hi you", "", ""]
    assert turns(tmp_path / "segments") == turns(tmp_path)


def test_without_segments_an_utterance_is_a_recording(tmp_path):
    write(tmp_path, utt2spk="u1 A\nu2 B\n", utt2dur="u1 2.5\nu2 3\n")
    assert turns(tmp_path) == [("u1", "A", 0.0, 2.5), ("u2", "B", 0.0, 3.0)]


def test_a_fifth_field_is_the_channel(tmp_path):
    write(tmp_path, segments="u1 r1 0 1 0\nu2 r1 1 2 1\n", utt2spk="u1 A\nu2 B\n")
    assert [turn.channel for turn in read_kaldi(tmp_path).turns] == ["0", "1"]


def test_directories_below_a_folder_are_all_read(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, segments=f"u {name} 0 1\n", utt2spk="u A\n")
    assert [turn[0] for turn in turns(tmp_path)] == ["dev", "train"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"segments": "u r 0 1\n"}, "holds no utt2spk, expected a Kaldi data directory"),
        (
            {"segments": "u r 0\n", "utt2spk": "u A\n"},
            "segments, line 1: has 3 fields, expected utt",
        ),
        ({"segments": "v r 0 1\n", "utt2spk": "u A\n"}, "speaker of 'v' in utt2spk is missing"),
        ({"segments": "u r 0 1\n", "utt2spk": "u A B\n"}, "speaker of 'u' in utt2spk is 'A B'"),
        ({"segments": "u r 0 1\n", "utt2spk": "u A\nu B\n"}, "utt2spk, line 2: 'u' is given twice"),
        ({"segments": "u r 0 -1\n", "utt2spk": "u A\n"}, "which no reco2dur or utt2dur says"),
        ({"segments": "u r 2 1\n", "utt2spk": "u A\n"}, "line 1: duration is '-1' s, expected > 0"),
        ({"segments": "u r x 1\n", "utt2spk": "u A\n"}, "line 1: start is 'x', expected a finite"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        turns(write(tmp_path, **files))


def test_a_bad_line_is_dropped_and_listed_where_that_is_wanted(tmp_path):
    write(tmp_path, segments="u r 2 1\nv r 1 2\n", utt2spk="u A\nv A\n")
    annotation = read_kaldi(tmp_path, skip_bad=True)
    assert (len(annotation.turns), annotation.notes[0].kind) == (1, "dropped")


def read(folder):
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


def test_a_directory_is_written_as_kaldi_asks(tmp_path):
    table = pd.DataFrame(
        {
            "session": ["r 2", "r1", "r1"],
            "speaker": ["b", "Z", "a"],
            "start": [0.0, 1.5, 0.25],
            "end": [1.0, 2.0, 0.5],
            "text": ["", "hello you", ""],
        }
    )
    write_turns(table, tmp_path / "d", "kaldi", audio={"r 2": tmp_path / "r 2.wav"})
    assert read(tmp_path / "d") == {
        "segments": "Z-r1-00001500-00002000 r1 1.500 2.000\n"
        "a-r1-00000250-00000500 r1 0.250 0.500\n"
        "b-r_2-00000000-00001000 r_2 0.000 1.000\n",
        "spk2utt": "Z Z-r1-00001500-00002000\na a-r1-00000250-00000500\n"
        "b b-r_2-00000000-00001000\n",
        "text": "Z-r1-00001500-00002000 hello you\na-r1-00000250-00000500\n"
        "b-r_2-00000000-00001000\n",
        "utt2spk": "Z-r1-00001500-00002000 Z\na-r1-00000250-00000500 a\n"
        "b-r_2-00000000-00001000 b\n",
        "wav.scp": f"r_2 {tmp_path}/r 2.wav\n",
    }


def test_names_that_begin_alike_are_divided_by_another_sign(tmp_path):
    table = pd.DataFrame({"session": "S", "speaker": ["001", "001-M"], "start": 0.0, "end": 1.0})
    write_turns(table, tmp_path / "d", "kaldi")
    assert read(tmp_path / "d")["spk2utt"] == (
        "001 001!S-00000000-00001000\n001-M 001-M!S-00000000-00001000\n"
    )


@pytest.mark.parametrize(
    ("table", "audio", "message"),
    [
        (
            {"speaker": ["A", "A!"]},
            {},
            "utterances of 'A!' and 'A' sort otherwise than the speakers",
        ),
        ({"speaker": ["A", "A"]}, {}, "2 turns have the id 'A-S-00000000-00001000', expected diff"),
        ({"speaker": ["A", "B"]}, {"S": "sox |"}, "ends in '|', which Kaldi takes for a command"),
    ],
)
def test_what_kaldi_would_refuse_is_refused(tmp_path, table, audio, message):
    rows = pd.DataFrame({"session": "S", "start": 0.0, "end": 1.0, **table})
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        write_turns(rows, tmp_path / "d", "kaldi", audio=audio)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs ``spk-manifests kaldi`` on the folder `d`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()

    def call(*options, **files):
        write(tmp_path / "d", **files)
        return CliRunner().invoke(main, ["kaldi", "d", "t.csv", "--overwrite", *options])

    return call


def record(path, seconds=3.0, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((int(seconds * 8000), channels)), 8000)


def read_rows():
    return [(row.session, row.audio, row.end) for row in read_table("t.csv").itertuples()]


MEETING = {"segments": "u1 r-1 0 1\nu2 r-1 1 9\n", "utt2spk": "u1 A\nu2 B\n"}


def test_recordings_are_where_wav_scp_says(run, tmp_path):
    record(tmp_path / "wav" / "a b é.wav")
    done = run(**MEETING, **{"wav.scp": "\ufeffr-1  wav/a b é.wav \r\n"})
    assert done.exit_code == 0, done.output
    path = str(tmp_path / "wav" / "a b é.wav")
    assert read_rows() == [("r-1", path, 1.0), ("r-1", path, 3.0)], "clipped to its end"
    run(**MEETING, **{"wav.scp": f"r-1 {path}\n"})
    assert read_rows()[0][1] == path


def test_audio_root_wins_over_wav_scp(run, tmp_path):
    """The listed relative path comes first there, then the session's name, then the file's."""
    listed = {"wav.scp": "r-1 sub/mix.wav\n"}
    record(tmp_path / "sub" / "mix.wav")
    for name in ("deep/mix.wav", "r-1.wav", "sub/mix.wav"):
        record(tmp_path / "root" / name)
        done = run("--audio-root", "root", **MEETING, **listed)
        assert (done.exit_code, read_rows()[0][1]) == (0, name), done.output
    run(**MEETING, **{"wav.scp": f"r-1 {tmp_path / 'sub' / 'mix.wav'}\n"})
    done = run("--audio-root", "root", **MEETING, **listed)
    assert read_rows()[0][1] == "sub/mix.wav"


def test_a_file_is_not_taken_for_another_of_its_name(run, tmp_path):
    more = {"segments": "u1 r-1 0 1\nu2 r-2 1 2\n", "utt2spk": "u1 A\nu2 B\n"}
    record(tmp_path / "root" / "mix.wav")
    done = run("--audio-root", "root", **more, **{"wav.scp": "r-1 /a/mix.wav\nr-2 /b/mix.wav\n"})
    assert "2 of 2 annotated sessions have no recording, first 'r-1'" in done.output
    more["segments"] = more["segments"].replace("r-2", "mix")
    done = run("--audio-root", "root", **more, **{"wav.scp": "r-1 /a/mix.wav\nmix /b/x.wav\n"})
    assert "1 of 2 annotated sessions has no recording, first 'r-1'" in done.output


def test_ids_are_compared_in_nfc(run, tmp_path):
    record(tmp_path / "a.wav")
    name = unicodedata.normalize("NFD", "é")
    done = run(segments=f"u1 {name} 0 1\n", utt2spk="u1 A\n", **{"wav.scp": "é a.wav\n"})
    assert (done.exit_code, read_rows()[0][0]) == (0, "é"), done.output


def test_ids_that_are_paths_are_sessions(run, tmp_path):
    """As WeSpeaker writes them for VoxCeleb."""
    ids = ["id1/x/00001.wav", "id2/x/00001.wav"]
    for name in ids:
        record(tmp_path / "vox" / name, 2)
    done = run(
        utt2spk="".join(f"{name} {name[:3]}\n" for name in ids),
        **{"wav.scp": "".join(f"{name} vox/{name}\n" for name in ids)},
    )
    assert done.exit_code == 0, done.output
    assert read_rows() == [
        (name.replace("/", "_"), str(tmp_path / "vox" / name), 2.0) for name in ids
    ]
    assert "d: '/' is '_' in 2 sessions, first 'id1_x_00001.wav'" in done.stderr
    done = run(utt2spk="a/b A\na_b B\n", reco2dur="a/b 1\na_b 1\n")
    assert "d/utt2spk: recordings 'a/b' and 'a_b' would both be session 'a_b', since" in done.output


def test_an_utterance_without_segment_is_counted(tmp_path):
    write(tmp_path, segments="u1 r 0 1\n", utt2spk="u1 A\nu2 B\n")
    assert [note.message for note in read_kaldi(tmp_path).notes] == [
        "1 utterance of utt2spk is not in segments"
    ]


def test_a_command_is_refused_and_the_repair_works(run, tmp_path):
    made = (
        "d/wav.scp, line 1: 'touch harm; sph2pipe -f wav /x y.sph |' is a command, which is never"
    )
    done = run(**MEETING, **{"wav.scp": "r-1 touch harm; sph2pipe -f wav /x y.sph |\n"})
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith(
        f"{made} run, expected the path of a recording (1 of 1 annotated session has no recording, "
        "first 'r-1' with 2 turns); write what it prints to FOLDER/r-1.wav and pass --audio-root "
        "FOLDER, or pass --allow-unpaired to leave such sessions out"
    )
    record(tmp_path / "FOLDER" / "r-1.wav")
    done = CliRunner().invoke(main, ["kaldi", "d", "t.csv", "--audio-root", "FOLDER"])
    assert (done.exit_code, read_rows()[0][1]) == (0, "r-1.wav"), done.output
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "r-1 a.wav",
            "line 1: 'a.wav' is not there, .*; correct it, run spk where the path starts",
        ),
        ("r-1 /no/a.wav", "line 1: '/no/a.wav' is not there, .*; correct it, or pass --audio-root"),
        ("r-1", "line 1: '' is not there"),
        ("r-1 d", "line 1: 'd' is not there"),
        ("r-1 /dev/zero", "line 1: '/dev/zero' is not there"),
        ("r-1 x.ark:12", "line 1: 'x.ark:12' is a place in an archive, .*; write it as FOLDER/r-1"),
        ("r-1 | cat", r"line 1: '\| cat' is a command, which is never run"),
        ("r-2 a.wav", r"d/wav.scp: does not list session 'r-1', expected its recording \(1 of 1 a"),
        ("r-1 a.wav\nr-1 b.wav", "d/wav.scp, line 2: 'r-1' is given twice, expected once; delete"),
    ],
)
def test_a_recording_that_is_not_there_is_named_or_left_out(run, line, message):
    done = run(**MEETING, **{"wav.scp": f"{line}\n"})
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert re.search(message, done.output), done.output
    more = {"segments": f"{MEETING['segments']}u3 r-3 0 1\n", "utt2spk": "u1 A\nu2 B\nu3 C\n"}
    record(Path("ok.wav"))
    done = run("--allow-unpaired", **more, **{"wav.scp": f"r-3 ok.wav\n{line}\n"})
    if "twice" not in message:
        assert (done.exit_code, [row[0] for row in read_rows()]) == (3, ["r-3"]), done.output


def test_without_lengths_an_end_is_the_recordings(run, tmp_path):
    record(tmp_path / "a.wav", 2.5)
    done = run(utt2spk="r1 A\n", **{"wav.scp": "r1 a.wav\n"})
    assert (done.exit_code, read_rows()[0][2]) == (0, 2.5), done.output
    record(tmp_path / "root" / "r1.wav", 1.5)
    done = run("--audio-root", "root", **{"wav.scp": "r1 sox x |\n"})
    assert (done.exit_code, read_rows()[0][2]) == (0, 1.5), done.output
    done = run(**{"wav.scp": "r1 b.wav\n"})
    assert "d/utt2spk, line 1: the end of 'r1' is the recording's, which no reco2dur" in done.output
    (tmp_path / "d" / "wav.scp").write_text("r1 bad.wav\n")
    (tmp_path / "bad.wav").write_text("no audio")
    assert "bad.wav: cannot be read" in run().output


SIDES = {
    "segments": "u1 f-A 0 1\nu2 f-B 1 2\n",
    "utt2spk": "u1 X\nu2 Y\n",
    "reco2file_and_channel": "f-A f A\nf-B f B\n",
}


def channels(done):
    assert done.exit_code == 0, done.output
    table = read_table("t.csv")
    return table["channel"].tolist() if "channel" in table else []


def test_sides_of_a_conversation_are_read_from_their_channels(run, tmp_path):
    """Plain paths to one file; or commands, and the file below --audio-root by its name."""
    record(tmp_path / "wav" / "f.wav", channels=2)
    done = run(**SIDES, **{"wav.scp": "f-A wav/f.wav\nf-B wav/f.wav\n"})
    assert channels(done) == ["0", "1"]
    assert "f-A: turns are read from channel 0 (from 0), as reco2file_and_ch" in done.stderr
    pipes = "f-A sph2pipe -c 1 /x/f.sph |\nf-B sph2pipe -c 2 /x/f.sph |\n"
    done = run("--audio-root", "wav", **SIDES, **{"wav.scp": pipes})
    assert channels(done) == ["0", "1"]
    assert [row[1] for row in read_rows()] == ["f.wav", "f.wav"]
    for name in ("f-A", "f-B"):
        record(tmp_path / "mono" / f"{name}.wav")
    assert channels(run("--audio-root", "mono", **SIDES, **{"wav.scp": pipes})) == []


def test_a_mix_of_both_sides_is_not_taken_for_each(run, tmp_path):
    record(tmp_path / "wav" / "f.wav")
    done = run("--audio-root", "wav", **SIDES, **{"wav.scp": "f-A a |\nf-B b |\n"})
    assert done.exit_code == 1
    assert "segments, line 2: channel is 1 (from 0), expected less than the 1 of" in done.output


def test_a_first_channel_alone_means_nothing_and_a_fifth_field_comes_first(run, tmp_path):
    first = {**SIDES, "reco2file_and_channel": "f-A f-A A\nf-B f-B 1\n"}
    assert channels(run(**first)) == []
    other = {**SIDES, "segments": "u1 f-A 0 1 1\nu2 f-B 1 2\n"}
    assert channels(run(**other)) == ["1", "1"]
    done = run(**{**SIDES, "reco2file_and_channel": "f-A f left\n"})
    assert (
        "d/reco2file_and_channel, line 1: 'f left' is given for 'f-A', expected a file and a "
        "channel (A to H, or a number from 1); correct the line" in done.output
    )


def test_one_recording_in_two_places_is_refused(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, utt2spk="r A\n", reco2dur="r 1\n", **{"wav.scp": f"r {name}.wav\n"})
    message = "train/wav.scp, line 1: the recording of 'r' is '.*train.wav', and in dev/wav.scp, l"
    with pytest.raises(InputError, match=message):
        turns(tmp_path)
    annotation = read_kaldi(tmp_path, skip_bad=True)
    assert (len(annotation.turns), annotation.notes[0].kind) == (1, "dropped")


def test_an_utterance_is_given_once(tmp_path):
    write(tmp_path, segments="u r 0 1\n\nu r 1 2\n", utt2spk="u A\n")
    with pytest.raises(InputError, match="segments, line 3: 'u' is already given in line 1, expec"):
        turns(tmp_path)


def test_what_is_written_is_read_without_audio_root(run, tmp_path):
    record(tmp_path / "wav" / "S 1.wav")
    table = pd.DataFrame({"session": ["S 1"], "speaker": ["A"], "start": [0.5], "end": [1.0]})
    write_turns(table, tmp_path / "d", "kaldi", audio={"S 1": tmp_path / "wav" / "S 1.wav"})
    assert run().exit_code == 0
    assert read_rows() == [("S_1", str(tmp_path / "wav" / "S 1.wav"), 1.0)]
