"""CSVs of turns, as audformat, pandas and spreadsheets write them."""

from pathlib import Path

import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.formats.registry import write_turns
from spk.manifests.formats.segmented_csv import read_segmented_csv


def turns(folder, text, **options):
    (folder / "day1.csv").write_text(text, encoding="utf-8")
    annotation = read_segmented_csv(folder / "day1.csv", **options)
    return [(t.session, t.speaker, t.start, t.end) for t in annotation.turns]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,start,end,speaker\naudio/S1.wav,0.5,2,A b\n", ("S1", "A b", 0.5, 2.0)),
        ("file,start,end,speaker\nS1.b,0.5,2,001\n", ("S1.b", "001", 0.5, 2.0)),
        (
            "file,start,end,speaker\nC:\\x\\S1.FLAC,0 days 00:00:00.500000,1 days 00:00:02,NA\n",
            ("S1", "NA", 0.5, 86402.0),
        ),
        ("file,start,end,speaker\nS1,00:00:00.5,00:01:02,A\n", ("S1", "A", 0.5, 62.0)),
        ("file,start,end,speaker\nS1,0.5s,2 s,A\n", ("S1", "A", 0.5, 2.0)),
        ("session,file,start,end,speaker\nM,x/S1.wav,0.5,2,A\n", ("M", "A", 0.5, 2.0)),
        ("Speaker;Start;End\nA;0,5;2,0\n", ("day1", "A", 0.5, 2.0)),
    ],
)
def test_times_and_sessions_are_read_in_every_form(tmp_path, text, expected):
    assert turns(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,start,speaker\nS1,1,A\n", r"day1.csv: columns \['end'\] are missing"),
        ("path,label\na.wav,A\n", "is a list of cut files, .*; run spk-manifests csv on it"),
        (
            "file,start,end,speaker\nS1,x,2,A\n",
            "day1.csv, row 1: start is 'x', expected seconds, or",
        ),
        ("file,start,end,speaker\nS1,1,,A\n", "row 1: end is '', expected seconds"),
        ("file,start,end,speaker\nS1,2,1,A\n", "row 1: duration is '-1' s, expected > 0"),
        (
            "file,start,end,speaker,channel\nS1,1,2,A,x\n",
            "row 1: channel is 'x', expected an index",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        turns(tmp_path, text)


def test_a_bad_row_is_dropped_and_one_without_speaker_counted(tmp_path):
    text = "file,start,end,speaker\nS1,x,2,A\nS1,1,2,\nS1,1,2,A\n"
    assert turns(tmp_path, text, skip_bad=True) == [("S1", "A", 1.0, 2.0)]
    notes = read_segmented_csv(tmp_path / "day1.csv", skip_bad=True).notes
    assert [note.kind for note in notes] == ["dropped", "ignored"]


def test_the_session_is_written_where_the_file_does_not_say_it(tmp_path):
    table = pd.DataFrame({"session": ["S1", "a.wav"], "speaker": "A", "start": 0.5, "end": 2.0})
    audio = {"S1": Path("wav/one.flac")}
    write_turns(table, tmp_path / "a.csv", audio=audio)
    assert (tmp_path / "a.csv").read_text() == (
        "file,start,end,speaker,session\nwav/one.flac,0.5,2.0,A,S1\na.wav,0.5,2.0,A,a.wav\n"
    )
    read_back = read_segmented_csv(tmp_path / "a.csv").turns
    assert [turn.session for turn in read_back] == ["S1", "a.wav"]
