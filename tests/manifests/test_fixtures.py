"""Annotations of other projects' test suites give what an independent reader counts in each."""

import csv

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.registry import read_turns
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import read_textgrid
from spk.manifests.formats.uem import read_uem

SUFFIXES = (".rttm", ".TextGrid")
OTHERS = (".eaf", ".json", ".srt", ".vtt")
ALL_MARKS = ("no aligner's mark",)  # Praat counts every mark that is not blank
NAMELESS = ("words", "word", "phones", "phone")


@pytest.fixture
def fixtures(real_data):
    """Return the folder and the rows of its index, or skip."""
    folder = real_data / "fixtures"
    if not (folder / "index.csv").is_file():
        pytest.skip(f"no annotations of other projects at {folder}")
    with open(folder / "index.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith(SUFFIXES + OTHERS)]
    return folder, rows


def read(path):
    if path.suffix == ".rttm":
        return read_rttm(path)
    return read_textgrid(path, tiers=["*"], silence=ALL_MARKS)


def test_turns_speakers_and_seconds_are_those_of_an_independent_reader(fixtures):
    folder, rows = fixtures
    rows = [row for row in rows if row["file"].endswith(SUFFIXES)]
    assert len(rows) >= 16
    counted = {}
    for row in rows:
        turns = read(folder / row["file"]).turns
        speakers = {(turn.session, turn.speaker) for turn in turns}
        seconds = sum(turn.end - turn.start for turn in turns)
        counted[row["file"]] = (len(turns), len(speakers), pytest.approx(seconds, abs=0.01))
    assert counted == {
        row["file"]: (int(row["turns"]), int(row["speakers"]), float(row["seconds"]))
        for row in rows
    }


def test_cues_and_segments_of_other_formats_are_all_seen(fixtures):
    """Rows without speaker give no turn: turns and those together are what the reader counts."""
    folder, rows = fixtures
    counted = {}
    for row in rows:
        if row["file"].endswith(OTHERS):
            annotation = read_turns(folder / row["file"])
            told = [note.message for note in annotation.notes if "without speaker" in note.message]
            nameless = sum(int(message.split()[0]) for message in told)
            counted[row["file"]] = (len(annotation.turns) + nameless, nameless)
    assert counted == {
        "speach-test.eaf": (11, 0),
        "whisperX-FastAPI-diarazition.json": (4, 0),
        "whisperX-FastAPI-transcript.json": (1, 1),
        "go-astisub-example-in-styled.srt": (10, 10),
        "webvtt-py-cue_tags.vtt": (3, 3),
        "lhotse-supervision.json": (4, 3),
    }
    assert {row["file"]: int(row["turns"]) for row in rows if row["file"] in counted} == {
        file: count for file, (count, _) in counted.items()
    }


@pytest.mark.parametrize(
    ("file", "speakers"),
    [
        ("speach-test.eaf", {"Person1 (Utterance)", "marker"}),
        ("whisperX-FastAPI-diarazition.json", {"SPEAKER_00"}),
        ("lhotse-supervision.json", {"Norman Dyhrentfurth"}),
    ],
)
def test_speakers_and_seconds_of_other_formats_are_those_of_an_independent_reader(
    fixtures, file, speakers
):
    folder, rows = fixtures
    (row,) = [row for row in rows if row["file"] == file]
    turns = read_turns(folder / file).turns
    assert {turn.speaker for turn in turns} == speakers
    assert len(speakers) == int(row["speakers"])
    if len(turns) == int(row["turns"]):
        seconds = sum(turn.end - turn.start for turn in turns)
        assert seconds == pytest.approx(float(row["seconds"]), abs=0.001)


def test_cues_with_markup_and_inner_times_are_read_with_a_name_put_before_them(fixtures, tmp_path):
    folder, rows = fixtures
    for file, mark in (
        ("webvtt-py-cue_tags.vtt", "<v A>"),
        ("go-astisub-example-in-styled.srt", ""),
    ):
        lines = (folder / file).read_text(encoding="utf-8").split("\n")
        for place, line in enumerate(lines):
            if "-->" in line:
                lines[place + 1] = (mark or "[A]: ") + lines[place + 1]
        (tmp_path / file).write_text("\n".join(lines), encoding="utf-8")
        turns = read_turns(tmp_path / file).turns
        (row,) = [row for row in rows if row["file"] == file]
        assert len(turns) == int(row["turns"])
        seconds = sum(turn.end - turn.start for turn in turns)
        assert seconds == pytest.approx(float(row["seconds"]), abs=0.001)
        assert not any("<" in turn.text for turn in turns)


def test_spans_of_a_uem_are_those_of_an_independent_reader(fixtures):
    spans = read_uem(fixtures[0] / "spyder-ref.uem")
    assert spans == {"FILE1": [(0.0, 15.0), (25.0, 30.4)], "FILE2": [(4.5, 13.24)]}


def test_tiers_that_name_nobody_are_refused_unless_they_are_chosen(fixtures):
    folder, rows = fixtures
    refused = {}
    for row in rows:
        if row["file"].endswith(".TextGrid"):
            try:
                read_textgrid(folder / row["file"])
            except InputError as problem:
                refused[row["file"]] = str(problem)
    assert len(refused) == 7
    assert all("says what it contains, not who speaks" in told for told in refused.values())
    for file, told in refused.items():
        chosen = told.rsplit("--tiers ", 1)[1].strip("'")
        speakers = {turn.speaker for turn in read_textgrid(folder / file, tiers=[chosen]).turns}
        assert speakers <= {chosen}, "the repair, typed, works"


def test_files_of_other_kinds_are_identified(fixtures):
    folder, _ = fixtures
    for file, name in (
        ("speach-test.eaf", r"an ELAN file .*; run spk-manifests eaf on it"),
        ("spyder-ref.uem", "a UEM"),
        ("webvtt-py-cue_tags.vtt", r"a subtitle file .*; run spk-manifests vtt on it"),
        ("go-astisub-example-in-styled.srt", r"a subtitle file .*; run spk-manifests srt on it"),
        ("whisperX-FastAPI-transcript.json", "a JSON file"),
        ("lhotse-stereo.mp3", "a recording"),
    ):
        for reader in (read_rttm, read_textgrid):
            with pytest.raises(InputError, match=rf"{file}: is {name}"):
                reader(folder / file)
