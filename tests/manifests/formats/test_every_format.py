"""The rules that hold for RTTM hold for each format: names, placeholders, bad lines, recordings."""

import unicodedata

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from spk.manifests.cli import main
from spk.manifests.table import read_table

SLOTS = (
    '<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="{}"/>'
)
CELL = '<ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="b"/></ANNOTATION>'
FILES = {  # command -> name of its file, what it is made of; {0} the speaker, {1} the end in ms
    "rttm": ("S1.rttm", "SPEAKER S1 1 0.5 {2} <NA> <NA> {0} <NA> <NA>\n"),
    "whisperx": ("S1.json", '[{{"speaker": "{0}", "start": 0.5, "end": {1}e-3}}]'),
    "srt": ("S1.srt", "00:00:00,500 --> 00:00:0{3:.3f}\n[{0}]: x\n"),
    "vtt": ("S1.vtt", "WEBVTT\n\n00:00:00.500 --> 00:00:0{3:.3f}\n<v {4}>x\n"),
    "txt": ("S1.txt", "[00:00:00.500 --> 00:00:0{3:.3f}] [{0}]: x\n"),
    "eaf": (
        "S1.eaf",
        f"<ANNOTATION_DOCUMENT><TIME_ORDER>{SLOTS.replace('{}', '{1}')}</TIME_ORDER>"
        f'<TIER TIER_ID="{{4}}">{CELL}</TIER></ANNOTATION_DOCUMENT>',
    ),
    "lhotse": (
        "S1.jsonl",
        '{{"recording_id": "S1", "start": 0.5, "duration": {2}, "speaker": "{0}"}}\n',
    ),
    "nemo": (
        "S1.json",
        '{{"audio_filepath": "S1.wav", "offset": 0.5, "duration": {2}, "label": "{0}"}}\n',
    ),
    "turns": ("S1.csv", "file,start,end,speaker\nS1,0.5,{1}e-3,{0}\n"),
}


def content(command, speaker, end):
    """Return a file with a turn of `speaker` from 0.5 s to `end` ms."""
    escaped = speaker.replace("<", "&lt;").replace(">", "&gt;")
    return FILES[command][1].format(speaker, end, (end - 500) / 1000, end / 1000, escaped)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that writes a format's file and runs its command on it."""
    monkeypatch.chdir(tmp_path)

    def call(command, speaker, *options, end=2000):
        name = FILES[command][0]
        (tmp_path / name).write_text(content(command, speaker, end), encoding="utf-8")
        return CliRunner().invoke(main, [command, name, "t.csv", "--overwrite", *options])

    return call


@pytest.mark.parametrize("command", FILES)
def test_names_are_normalised_and_that_is_told(run, command):
    done = run(command, unicodedata.normalize("NFD", "Jörg"))
    assert done.exit_code == 0, done.output
    (row,) = read_table("t.csv").itertuples()
    assert (row.session, row.speaker, row.start, row.end) == ("S1", "S1_Jörg", 0.5, 2.0)
    assert "1 name is read in NFC without blanks at its ends" in done.stderr


@pytest.mark.parametrize("name", ["<NA>", "<unknown>", "a/b", "..", "x" * 101])
@pytest.mark.parametrize("command", FILES)
def test_what_is_no_name_is_refused_or_dropped(run, command, name):
    done = run(command, name)
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert ", expected a " in done.output
    assert "or pass --skip-bad" in done.output
    done = run(command, name, "--skip-bad")
    assert "holds 0 usable turns of 0 (first left out: " in done.output


@pytest.mark.parametrize("command", FILES)
def test_a_turn_that_ends_before_it_begins_is_refused(run, command):
    done = run(command, "A", end=250)
    assert done.exit_code == 1
    assert "duration is '-0.25' s, expected > 0; delete or correct the line" in done.output


@pytest.mark.parametrize("command", FILES)
def test_a_session_without_recording_ends_the_command_unless_it_may_be_left_out(run, command):
    soundfile.write("S2.wav", np.zeros(16000 * 3), 16000)
    done = run(command, "A", "--audio-root", ".")
    assert done.exit_code == 1
    assert (
        "1 of 1 annotated session has no recording, first 'S1' (1 turn, the first in "
        in done.output
    )
    soundfile.write("S1.wav", np.zeros(16000), 16000)
    done = run(command, "A", "--audio-root", ".")
    assert done.exit_code == 0
    assert read_table("t.csv")["end"].tolist() == [1.0], "clipped to the recording"
