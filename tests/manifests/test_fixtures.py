"""Annotations of other projects' test suites give what an independent reader counts in each."""

import csv

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import read_textgrid

SUFFIXES = (".rttm", ".TextGrid")
ALL_MARKS = ("no aligner's mark",)  # Praat counts every mark that is not blank
NAMELESS = ("words", "word", "phones", "phone")


@pytest.fixture
def fixtures(real_data):
    """Return the folder and the rows of its index, or skip."""
    folder = real_data / "fixtures"
    if not (folder / "index.csv").is_file():
        pytest.skip(f"no annotations of other projects at {folder}")
    with open(folder / "index.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith(SUFFIXES)]
    return folder, rows


def read(path):
    if path.suffix == ".rttm":
        return read_rttm(path)
    return read_textgrid(path, tiers=["*"], silence=ALL_MARKS)


def test_turns_speakers_and_seconds_are_those_of_an_independent_reader(fixtures):
    folder, rows = fixtures
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
        ("speach-test.eaf", "an ELAN file"),
        ("spyder-ref.uem", "a UEM"),
        ("webvtt-py-cue_tags.vtt", "a subtitle file"),
        ("whisperX-FastAPI-transcript.json", "a JSON file"),
        ("lhotse-stereo.mp3", "a recording"),
    ):
        for reader in (read_rttm, read_textgrid):
            with pytest.raises(InputError, match=rf"{file}: is {name}"):
                reader(folder / file)
