"""The sample meeting: what is written is what ships, its turns fit it, its licence is named."""

import re

import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.demo import sample_meeting
from spk.manifests.demo.sample_meeting import PLACES, SAMPLE, STRANGER, write_sample
from spk.manifests.formats.build import make_table
from spk.manifests.formats.registry import read_turns
from spk.manifests.formats.rttm import read_rttm

MOST_BYTES = 2_000_000


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


def test_the_sample_is_written_byte_by_byte(sample):
    for name, place in PLACES.items():
        assert (sample / place / name).read_bytes() == (SAMPLE / name).read_bytes()


def test_the_truth_is_the_meeting_to_name_with_its_speakers_names(sample):
    truth = read_turns(sample / "truth.rttm").turns
    meeting = read_turns(sample / "meeting.json").turns
    spans = [[(turn.session, turn.start, turn.end) for turn in turns] for turns in (truth, meeting)]
    assert spans[0] == spans[1]
    assert {turn.speaker for turn in truth} == {
        turn.speaker for turn in read_turns(sample / "TextGrid").turns
    }


def test_the_sample_is_small_and_lasts_about_two_minutes():
    recording = SAMPLE / "sample.ogg"
    assert recording.stat().st_size < MOST_BYTES
    header = soundfile.info(recording)
    assert (header.samplerate, header.channels) == (16000, 1)
    assert 100 < header.duration <= 120


def test_its_turns_lie_inside_the_recording_and_none_overlaps(sample):
    table = make_table(read_rttm(sample / "TextGrid"), audio_root=sample / "wav")
    table = table.sort_values("start")
    assert table["speaker"].nunique() == 7
    assert table["speaker"].value_counts().min() >= 6
    assert (table["start"].to_numpy()[1:] > table["end"].to_numpy()[:-1]).all()


def test_its_licence_names_every_voice_and_the_corpus(sample):
    text = (sample / "LICENCE.txt").read_text()
    assert "LibriSpeech" in text
    assert "CC BY 4.0" in text
    turns = (sample / "TextGrid" / "sample.rttm").read_text()
    speakers = {line.split()[7] for line in turns.splitlines()}
    assert speakers == set(re.findall(r"^(\w+): \d+-\d+-\d+$", text, re.MULTILINE))


def test_clips_are_of_six_people_and_none_of_their_speech_is_in_the_meeting_to_name(sample):
    turns = read_rttm(sample / "TextGrid").turns
    later = pd.DataFrame(read_turns(sample / "meeting.json").turns)
    assert len(later) + len([*(sample / "clips").rglob("*.flac")]) == len(turns) - 2  # a stranger's
    known = {folder.name for folder in (sample / "clips").iterdir()}
    assert known == {turn.speaker for turn in turns} - {STRANGER}
    assert set(later.speaker) == {f"SPEAKER_{number:02d}" for number in range(7)}
    samples, rate = soundfile.read(sample / "wav" / "sample.ogg", dtype="int16")
    for name in known:
        mine = [turn for turn in turns if turn.speaker == name and turn.start < later.start.min()]
        for number, turn in enumerate(sorted(mine, key=lambda turn: turn.start), start=1):
            clip, _ = soundfile.read(sample / "clips" / name / f"{number}.flac", dtype="int16")
            assert (clip == samples[round(turn.start * rate) : round(turn.end * rate)]).all()


def test_a_package_without_the_sample_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_meeting, "SAMPLE", tmp_path)
    with pytest.raises(InputError, match=r"sample\.ogg: no such file, expected it in the package"):
        write_sample(tmp_path / "out")
