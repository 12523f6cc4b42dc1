"""Recordings and sessions find each other by name, and what finds no partner is named."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.common.audio.containers import SUFFIXES
from spk.common.commands import LEFT_OUT
from spk.common.errors import InputError
from spk.manifests.cli import main
from spk.manifests.formats.pairing import likely_recording, pair
from spk.manifests.formats.turns import Turn, find_files

RATE = 16000


def record(path, seconds=3, channels=1, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * RATE), channels))
    soundfile.write(path, samples, RATE, **options)


def annotate(path, *turns):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    lines = [f"SPEAKER {s} 1 {a} {b - a} <NA> <NA> {who} <NA> <NA>\n" for s, a, b, who in turns]
    Path(path).write_text("".join(lines))


@pytest.fixture
def typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(line):
        done = CliRunner().invoke(main, line.split())
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


def notes():
    return pd.read_csv("t.csv.notes.csv").to_numpy().tolist()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".WAV", ".Mp3", ".AIFF", ".mat"])
def test_a_recording_is_found_by_any_suffix_that_libsndfile_has(tmp_path, suffix):
    (tmp_path / f"S1{suffix}").touch()
    assert pair(tmp_path, ["S1"]).recordings == {"S1": tmp_path / f"S1{suffix}"}


def test_a_file_that_may_be_something_else_never_competes_with_a_recording(tmp_path):
    for name in ("S1.wav", "S1.mat"):
        (tmp_path / name).touch()
    assert pair(tmp_path, ["S1"]).recordings == {"S1": tmp_path / "S1.wav"}


def test_two_recordings_are_refused_only_where_a_session_needs_one(tmp_path):
    for name in ("x/S1.wav", "y/mix.wav", "z/mix.flac"):
        record(tmp_path / name)
    assert set(pair(tmp_path, ["S1"]).recordings) == {"S1"}
    with pytest.raises(InputError, match=r"'mix' has 2 recordings, y/mix.wav and z/mix.flac, exp"):
        pair(tmp_path, ["mix"])


@pytest.mark.parametrize("name", ["Zoë", "회의_3", "Ångström é"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_meet_in_any_form(typed, name, forms):
    session, file = (unicodedata.normalize(form, name) for form in forms)
    record(f"wav/{file}.wav")
    assert pair("wav", [session]).recordings == {session: Path(f"wav/{file}.wav")}
    assert pair("wav", [f"{session} "]).missing == []


@pytest.mark.parametrize(
    ("session", "names", "likely"),
    [
        ("ES2002a", ["ES2002a.Mix-Headset", "ES2002b.Mix-Headset"], "ES2002a.Mix-Headset"),
        ("R1_M1", ["R1_M1_MS801", "R1_M10_MS801"], "R1_M1_MS801"),
        ("meeting-1", ["Meeting_1", "Meeting_2"], "Meeting_1"),
        ("S01C01", ["S01C02", "S01C03"], None),  # another meeting, not a slip
        ("S1", ["S10", "S11"], None),
        ("S1", ["S1.Headset-0", "S1.Headset-1"], None),  # which one?
    ],
)
def test_the_likely_partner_is_proposed_and_never_another_meeting(session, names, likely):
    file = likely_recording(session, [Path(f"{name}.wav") for name in names])
    assert file == (Path(f"{likely}.wav") if likely else None)


def test_a_session_without_recording_ends_the_run_and_the_suggested_command_repairs_it(typed):
    record("ami/ES2002a/ES2002a.Mix-Headset.wav")
    annotate("a.rttm", ("ES2002a", 1, 2, "A"))
    done = typed("rttm a.rttm t.csv --audio-root ami")
    assert done.exit_code == 1
    assert "1 of 1 annotated session has no recording, first 'ES2002a' (1 turn, " in done.stderr
    assert "the first in a.rttm, line 1), expected ES2002a.wav" in done.stderr
    assert "'ES2002a.Mix-Headset' (ES2002a/ES2002a.Mix-Headset.wav)" in done.stderr
    assert [row[:2] for row in notes()] == [
        ["unpaired", "ES2002a"],
        ["unpaired", "ES2002a.Mix-Headset"],
    ]
    command = done.stderr.split("`")[1]
    assert command.startswith("mv ")
    os.system(command)
    assert typed("rttm a.rttm t.csv --audio-root ami").exit_code == 0
    assert not Path("t.csv.notes.csv").exists()


def test_sessions_without_recording_are_left_out_where_that_is_allowed(typed):
    record("wav/S1.wav")
    record("wav/S3.wav")
    annotate("a.rttm", ("S1", 1, 2, "A"), ("S2", 1, 2, "A"), ("S2", 2, 3, "B"))
    assert typed("rttm a.rttm t.csv --audio-root wav").exit_code == 1
    done = typed("rttm a.rttm t.csv --audio-root wav --allow-unpaired")
    assert done.exit_code == LEFT_OUT
    assert pd.read_csv("t.csv")["session"].tolist() == ["S1"]
    assert notes() == [
        ["dropped", "S2", "annotation without a recording, 2 turns left out"],
        ["unpaired", "S3", "recording without annotation, S3.wav"],
    ]


def test_a_recording_without_annotation_is_a_note_and_no_more(typed):
    record("wav/S1.wav")
    record("wav/S2.opus", format="OGG", subtype="OPUS")
    annotate("a.rttm", ("S1", 1, 2, "A"))
    assert typed("rttm a.rttm t.csv --audio-root wav").exit_code == 0
    assert notes() == [["unpaired", "S2", "recording without annotation, S2.opus"]]


@pytest.mark.parametrize("name", ["S1.m4a", "S1.WMA", "S1.mp4", "S1.aac"])
def test_a_file_of_the_name_that_is_not_decoded_is_named_with_its_conversion(typed, name):
    record("wav/S2.wav")
    Path("wav", name).write_bytes(bytes(99))
    annotate("a.rttm", ("S1", 1, 2, "A"), ("S2", 1, 2, "A"))
    done = typed("rttm a.rttm t.csv --audio-root wav")
    assert done.exit_code == 1
    assert f"{name} is of a kind that is not decoded" in done.stderr
    assert f"`ffmpeg -i wav/{name} -ar 16000 wav/S1.wav`" in done.stderr
    Path("wav/S2.wav").unlink()
    done = typed("rttm a.rttm t.csv --audio-root wav")
    assert f"`ffmpeg -i wav/{name} -ar 16000 wav/S1.wav`" in done.stderr


def test_an_unreadable_recording_does_not_end_a_run_that_skips_what_is_bad(typed):
    record("wav/S1.wav")
    Path("wav/S2.wav").write_bytes(b"no audio" * 99)
    Path("wav/S3.flac").symlink_to("nowhere.flac")
    turns = [(session, 1, 2, who) for session in ("S1", "S2", "S3") for who in "AB"]
    annotate("a.rttm", *turns)
    assert "wav/S2.wav: cannot be read" in typed("rttm a.rttm t.csv --audio-root wav").stderr
    done = typed("rttm a.rttm t.csv --audio-root wav --skip-bad")
    assert done.exit_code == LEFT_OUT
    assert set(pd.read_csv("t.csv")["session"]) == {"S1"}
    dropped = [row for row in notes() if row[0] == "dropped"]
    assert [row[1] for row in dropped] == ["S2.wav", "S3.flac"]
    assert all("(2 turns of session 'S" in row[2] for row in dropped)


def test_a_wrong_header_is_blamed_and_not_the_annotation(typed):
    record("wav/S1.wav", 10)
    content = bytearray(Path("wav/S1.wav").read_bytes())
    content[40:44] = (64000).to_bytes(4, "little")
    Path("wav/S1.wav").write_bytes(content)
    annotate("a.rttm", ("S1", 1, 2, "A"), ("S1", 5, 8, "A"))
    done = typed("rttm a.rttm t.csv --audio-root wav")
    assert done.exit_code == 1
    assert "wav/S1.wav: header says 2.0 s, the file holds about 10.0 s" in done.stderr
    assert "ffmpeg -ignore_length 1 -i wav/S1.wav.original" in done.stderr
    annotate("a.rttm", ("S1", 1, 2, "A"))  # lies in what the header tells
    assert typed("rttm a.rttm t.csv --audio-root wav").exit_code == 0


def test_turns_end_where_an_mp3_really_does(typed, real_data):
    os.symlink(real_data / "fixtures", "wav")
    annotate("a.rttm", ("pydub-tessst", 0.2, 1.575, "A"))
    assert typed("rttm a.rttm t.csv --audio-root wav").exit_code == 0
    assert pd.read_csv("t.csv")["end"].tolist() == [69120 / 44100]
    clipped = [row for row in notes() if row[0] == "clipped"]
    assert clipped[0][2] == (
        "end 1.575 s is cut to the audio's 1.56735 s that decode (header: 1.57864 s)"
    )


def test_a_torn_recording_is_blamed_where_turns_come_after_the_tear(typed):
    record("wav/S1.flac", 60, format="FLAC")
    content = Path("wav/S1.flac").read_bytes()
    Path("wav/S1.flac").write_bytes(content[: len(content) // 2])
    annotate("a.rttm", ("S1", 1, 2, "A"), ("S1", 50, 52, "A"))
    done = typed("rttm a.rttm t.csv --audio-root wav")
    assert "wav/S1.flac: header says 60 s, 20 s decode, expected 50 s and more" in done.stderr


def test_a_channel_that_the_recording_has_not_is_refused(tmp_path):
    from spk.manifests.formats.build import make_table
    from spk.manifests.formats.turns import Annotation

    record(tmp_path / "S1.wav", channels=2)
    good, bad = (Turn("S1", "A", i, i + 1, i, f"line {i}", str(1 + i)) for i in range(2))
    with pytest.raises(InputError, match=r"line 1: channel is 2 \(from 0\), expected less than th"):
        make_table(Annotation([good, bad]), audio_root=tmp_path)
    table = make_table(Annotation([good, bad]), audio_root=tmp_path, skip_bad=True)
    assert len(table) == 1


def test_links_are_followed_once_and_circles_end(tmp_path):
    for name in ("disk/A/S1.rttm", "disk/B/S2.rttm", "data/own/S3.rttm"):
        annotate(tmp_path / name, ("s", 0, 1, "A"))
    data = tmp_path / "data"
    (data / "a").symlink_to("../disk/A")
    (data / "b").symlink_to(tmp_path / "disk" / "B")
    (data / "again").symlink_to("../disk/A")
    (data / "own" / "circle").symlink_to("..")
    (tmp_path / "disk" / "A" / "back").symlink_to(data)
    (data / "S3.rttm").symlink_to("own/S3.rttm")
    (data / "lost.rttm").symlink_to("nowhere")
    names = [file.relative_to(data).as_posix() for file in find_files(data, (".rttm",))]
    assert names == ["a/S1.rttm", "b/S2.rttm", "lost.rttm", "own/S3.rttm"]
    assert len(find_files(data / "a", (".rttm",))) == 4  # the folder itself may be a link


def test_what_a_mac_leaves_beside_files_is_passed_over(typed):
    record("d/S1.wav")
    annotate("d/S1.rttm", ("S1", 1, 2, "A"))
    for name in ("._S1.wav", "._S1.rttm", ".DS_Store", "Thumbs.db", "__MACOSX/d/._S1.wav"):
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        Path("d", name).write_bytes(b"\0\5\x16\7" + bytes(80))
    assert typed("rttm d t.csv --audio-root d").exit_code == 0
    assert not Path("t.csv.notes.csv").exists()


def test_the_references_spelling_tells_the_same(typed):
    record("wav/S1.wav", 5)
    annotate("r/S1.rttm", ("S1", 1, 3, "A"))
    annotate("r/S2.rttm", ("S2", 1, 3, "A"))
    words = "cut --rttm_dir r --pcm_dir wav --output_dir out --workers 1"
    assert "annotated sessions has no recording, first 'S2'" in typed(words).stderr
    assert typed(f"{words} --allow-unpaired").exit_code == LEFT_OUT
    assert Path("out/S1_A_0000.wav").exists()
