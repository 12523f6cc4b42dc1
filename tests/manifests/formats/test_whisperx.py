"""WhisperX JSON and its neighbours are read by what they are, and renamed with no other change."""

import copy
import json

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.whisperx import read_whisperx, rename_speakers

ALIGNED = {
    "segments": [
        {
            "start": 0.031,
            "end": 2.5,
            "text": " Hello there.",
            "words": [
                {
                    "word": "Hello",
                    "start": 0.031,
                    "end": 0.9,
                    "score": 0.81,
                    "speaker": "SPEAKER_00",
                },
                {"word": "7", "speaker": "SPEAKER_01"},
                {"word": "there."},
            ],
            "speaker": "SPEAKER_00",
            "avg_logprob": -0.25,
        },
        {"end": 4, "start": 3, "text": " Yes.", "speaker": "SPEAKER_01"},
        {"start": 5.0, "end": 6.0, "text": " Nobody."},
        {"start": 6.0, "end": 7.0, "text": " Null.", "speaker": None},
    ],
    "word_segments": [{"word": "Hello", "start": 0.031, "end": 0.9, "speaker": "SPEAKER_00"}],
    "language": "en",
}


def write(folder, document, name="S1.json"):
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def turns(path):
    return [(t.session, t.speaker, t.start, t.end, t.text) for t in read_whisperx(path).turns]


def test_segments_with_a_speaker_are_turns_and_the_others_are_counted(tmp_path):
    path = write(tmp_path, ALIGNED)
    assert turns(path) == [
        ("S1", "SPEAKER_00", 0.031, 2.5, "Hello there."),
        ("S1", "SPEAKER_01", 3.0, 4.0, "Yes."),
    ]
    assert [note.message for note in read_whisperx(path).notes] == [
        "2 segments without speaker give no turn"
    ]


def test_names_take_the_place_of_speakers_and_nothing_else_changes():
    before = copy.deepcopy(ALIGNED)
    named = rename_speakers(ALIGNED, {"SPEAKER_00": ("Anna", 0.93), "SPEAKER_01": ("u_1", None)})
    assert before == ALIGNED
    expected = copy.deepcopy(ALIGNED)
    anna = {"speaker": "Anna", "speaker_confidence": 0.93, "diarized_speaker": "SPEAKER_00"}
    other = {"speaker": "u_1", "diarized_speaker": "SPEAKER_01"}
    expected["segments"][0].update(anna)
    expected["segments"][0]["words"][0].update(anna)
    expected["segments"][0]["words"][1].update(other)
    expected["segments"][1].update(other)
    expected["word_segments"][0].update(anna)
    assert named == expected
    first = list(named["segments"][0])
    assert [key for key in first if key in ALIGNED["segments"][0]] == list(ALIGNED["segments"][0])
    assert list(named) == list(ALIGNED)


def test_names_for_nobody_change_nothing():
    assert json.dumps(rename_speakers(ALIGNED, {"X": ("Anna", 0.5)})) == json.dumps(ALIGNED)


def test_a_document_that_was_named_before_is_named_again_without_old_confidence():
    once = rename_speakers(ALIGNED, {"SPEAKER_01": ("Ben", 0.5)})
    twice = rename_speakers(once, {"Ben": ("Benjamin", None)})
    assert twice["segments"][1] == {
        **ALIGNED["segments"][1],
        "speaker": "Benjamin",
        "diarized_speaker": "Ben",
    }


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([{"label": "0", "speaker": "A", "start": 2.86, "end": 4.84}], ("S1", "A", 2.86, 4.84, "")),
        (
            [{"session_id": "M", "speaker": "A", "start_time": "1.5", "end_time": 2, "words": "x"}],
            ("M", "A", 1.5, 2.0, "x"),
        ),
        (
            {
                "transcription": [
                    {"offsets": {"from": 1250, "to": 2005}, "text": " x", "speaker": "0"},
                    {"offsets": {"from": 2005, "to": 3000}, "text": " y", "speaker": "?"},
                ]
            },
            ("S1", "0", 1.25, 2.005, "x"),
        ),
    ],
    ids=["list", "SegLST", "whisper.cpp"],
)
def test_neighbours_of_whisperx_are_read(tmp_path, document, expected):
    assert turns(write(tmp_path, document)) == [expected]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"segmens": []}, r"keys are \['segmens'\], expected 'segments', a list; rename 'segmens'"),
        ({"a": 1}, "expected 'segments', a list; name the JSON that WhisperX or whisper wrote"),
        ('{"segments": [', "S1.json: is not JSON"),
        ("[" * 100000, "S1.json: is not JSON"),
        ({"segments": [3]}, "segment 1: is 3, expected an object"),
        ({"segments": [{"start": None, "end": 1}]}, "segment 1: start is None, expected a finite"),
        ({"segments": [{"end": 1}]}, "segment 1: start is missing, expected a finite number"),
        ('{"segments": [{"start": NaN, "end": 1}]}', "NaN is no number of JSON"),
        (
            {"segments": [{"start": 2, "end": 1, "speaker": "A"}]},
            "segment 1: duration is '-1' s, expected > 0",
        ),
        ({"segments": [{"start": 0, "end": 1, "speaker": "<NA>"}]}, "expected a name, not a place"),
        ([{"recording_id": "a"}], "is a lhotse manifest, .*; run spk-manifests lhotse on it"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, document, message):
    with pytest.raises(InputError, match=message):
        read_whisperx(write(tmp_path, document))


def test_a_bad_segment_is_dropped_and_listed_where_that_is_wanted(tmp_path):
    good = {"start": 0, "end": 1, "speaker": "A"}
    path = write(tmp_path, {"segments": [{**good, "end": "x"}, good, {**good, "end": 0}]})
    annotation = read_whisperx(path, skip_bad=True)
    assert len(annotation.turns) == 1
    assert [note[:2] for note in annotation.notes] == [
        ("dropped", "S1.json, segment 1"),
        ("ignored", "S1.json"),
    ]
