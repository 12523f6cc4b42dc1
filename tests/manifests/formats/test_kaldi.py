"""Kaldi data directories as kaldi's own scripts and others write them."""

import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.formats.kaldi import read_kaldi
from spk.manifests.formats.registry import write_turns

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
    write(tmp_path, segments="u r 2 1\nu r 1 2\n", utt2spk="u A\n")
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
