"""`cut`: what its files hold and are called, and what it refuses."""

import os
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.cutting.cut import LISTING, TABLE, cut_segments, file_names
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.table import read_table

RATE = 16000


def expected(root: Path, row, channel: int = 0) -> np.ndarray:
    """Return a segment's samples by arithmetic of its own: seconds rounded half up."""
    whole, _ = soundfile.read(root / row.audio, dtype="int16", always_2d=True)
    return whole[int(row.start * RATE + 0.5) : int(row.end * RATE + 0.5), channel]


@pytest.mark.parametrize("channel", [0, 2])
@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_files_hold_the_recordings_own_samples(meeting, tmp_path, kind, channel):
    turns, root = meeting
    report = cut_segments(turns, root, tmp_path / "out", format=kind, channel=channel)
    for row, audio_name in zip(turns.itertuples(), report.table["audio"], strict=True):
        info = soundfile.info(tmp_path / "out" / audio_name)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        found, _ = soundfile.read(tmp_path / "out" / audio_name, dtype="int16")
        np.testing.assert_array_equal(found, expected(root, row, channel))


def test_mean_is_the_equal_average_of_all_channels(meeting, tmp_path):
    turns, root = meeting
    cut_segments(turns, root, tmp_path / "out", channel="mean")
    whole, _ = soundfile.read(root / "S1.flac", dtype="int16")
    found, _ = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav", dtype="int16")
    average = whole[:24000].astype(float).sum(axis=1) / 3
    assert np.abs(found - average).max() <= 0.5  # rounded to the nearest step


def test_files_are_named_and_listed_as_the_reference_does(tmp_path, audio, table):
    audio(tmp_path / "B.flac", 4)
    audio(tmp_path / "A.flac", 4, seed=1)
    turns = table(
        ("B", "001-M", 0.0, 1.0, 0),
        ("A", "002-F", 0.0, 2.0, 11),
        ("A", "001-M", 2.0, 3.0, 1),
        ("A", "001-M", 0.5, 3.0, 12345),
    )
    report = cut_segments(turns, tmp_path, tmp_path / "out")
    names = ["A_001-M_0001.wav", "A_002-F_0011.wav", "A_001-M_12345.wav", "B_001-M_0000.wav"]
    listing = pd.read_csv(tmp_path / "out" / LISTING)
    assert list(listing.columns) == ["path", "label"]
    assert list(listing["path"]) == [str(tmp_path / "out" / name) for name in names]
    assert list(listing["label"]) == ["A_001-M", "A_002-F", "A_001-M", "B_001-M"]
    pd.testing.assert_frame_equal(listing, report.listing.astype(listing.dtypes))


def test_names_hold_the_local_speaker_in_every_scope(table):
    turns = table(("S1", "001-M", 0.0, 1.0, 4))
    for scope in ("S1_001-M", "20990101_M_R001_001-M", "person07"):
        assert file_names(turns.assign(speaker=scope)) == ["S1_001-M_0004.wav"]
    without_line = turns.drop(columns="line")
    assert file_names(without_line) == ["S1_001-M_0000.0000_0001.0000.wav"]


def test_the_second_table_joins_the_first(meeting, tmp_path):
    turns, root = meeting
    turns = turns.assign(overlap=[0, 0.5, 1, 0.25, 0], split=["", "train", "valid", "test", ""])
    cut_segments(turns, root, tmp_path / "out")
    second = read_table(tmp_path / "out" / TABLE)
    same = ["segment_id", "speaker", "session", "line", "overlap", "split"]
    pd.testing.assert_frame_equal(second[same], turns[same], check_dtype=False)
    assert (second["start"] == 0).all()
    for row in second.itertuples():
        assert row.end == soundfile.info(tmp_path / "out" / row.audio).duration


def test_each_recording_is_decoded_once_in_bounded_blocks(meeting, tmp_path, monkeypatch):
    turns, root = meeting
    reads: list[tuple[int, int]] = []
    read = soundfile.SoundFile.read

    def counting(self, frames=-1, *args, **kwargs):
        first = self.tell()
        block = read(self, frames, *args, **kwargs)
        if self.channels == 3:
            reads.append((first, first + len(block)))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    report = cut_segments(turns, root, tmp_path / "out")
    last = (45 * RATE - 1, 45 * RATE)  # is the recording as long as its header says?
    assert reads == [last, (0, 20 * RATE), (20 * RATE, 40 * RATE), (40 * RATE, 719998)]  # 44.9999 s
    assert (report.decoded, report.decoded_seconds) == (1, 719998 / RATE)


def test_another_rate_is_refused_or_resampled(tmp_path, table):
    rate = 44100
    time_axis = np.arange(4 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis)
    soundfile.write(tmp_path / "S1.flac", tone, rate, subtype="PCM_16")
    turns = table(("S1", "001-M", 1.0, 2.5, 0))
    with pytest.raises(InputError, match=r"S1.flac: sample rate is 44100 Hz.*pass --resample"):
        cut_segments(turns, tmp_path, tmp_path / "out")
    cut_segments(turns, tmp_path, tmp_path / "out", resample=True)
    found, found_rate = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav")
    assert (found_rate, len(found)) == (RATE, 24000)
    ideal = 0.5 * np.sin(2 * np.pi * 440 * (1 + np.arange(24000) / RATE))
    inner = slice(200, -200)  # the segment's ends meet silence in the filter
    assert np.abs(found - ideal)[inner].max() < 2e-3


def test_24_bits_are_rounded_to_16(tmp_path, table):
    samples = np.random.default_rng(0).uniform(-1, 1, RATE)
    soundfile.write(tmp_path / "S1.flac", samples, RATE, subtype="PCM_24")
    cut_segments(table(("S1", "001-M", 0.0, 1.0, 0)), tmp_path, tmp_path / "out")
    found, _ = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav")
    assert np.abs(found - samples).max() <= 1.01 / 32768  # half a step, one at full scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "mp3"}, "format: 'mp3' is unknown, expected wav or flac"),
        ({"channel": "all"}, "--channel: value is 'all', expected an index from 0 or 'mean'"),
        ({"channel": -1}, "--channel: value is '-1'"),
        ({"channel": 3}, "S1.flac: channels are 3, expected more than 3; pass --channel 0 or mean"),
        ({"jobs": -1}, "jobs: -1 is below 0"),
    ],
)
def test_options_out_of_range_are_refused(meeting, tmp_path, change, message):
    turns, root = meeting
    with pytest.raises(InputError, match=message):
        cut_segments(turns, root, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "gone.flac"}, "1 of 2 recordings is missing, first .*gone.flac"),
        (
            {"end": 46.0},
            r"S1.flac: ends at 45.0000 s, segment 'S1.*' at 46.0000 s; make the table again",
        ),
        ({"speaker": "S1_../x", "segment_id": "S1_../x_0_1"}, "expected a plain file name"),
    ],
)
def test_segments_that_cannot_be_cut_are_refused_before_anything_is(
    meeting, tmp_path, change, message
):
    turns, root = meeting
    turns = pd.concat([turns[1:], turns[:1].assign(**change)])
    with pytest.raises(InputError, match=message):
        cut_segments(turns, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_segments_of_one_name_are_refused(meeting, tmp_path):
    turns, root = meeting
    with pytest.raises(InputError, match="would both be cut to 'S1_001-M_0000.wav'"):
        cut_segments(turns.assign(line=0), root, tmp_path / "out")


def test_recordings_that_lie_elsewhere_near_are_told_with_their_folder(meeting, tmp_path):
    turns, root = meeting
    with pytest.raises(InputError) as told:
        cut_segments(turns, root.parent, tmp_path / "out")
    folder = shlex.quote(str(root))
    assert str(told.value).startswith(f"{root.parent}: 1 of 1 recording is missing, first ")
    assert str(told.value).endswith(f"the folder of the recordings with --audio-root {folder}")
    assert not (tmp_path / "out").exists()


def test_a_damaged_recording_is_named(tmp_path, audio, table):
    path = audio(tmp_path / "S1.flac", 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    turns = table(("S1", "001-M", 0.0, 1.0, 0), ("S1", "001-M", 8.0, 9.0, 1))
    with pytest.raises(InputError, match=r"S1.flac: .*decode.*replace the damaged file"):
        cut_segments(turns, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / LISTING).exists()


def test_real_segments_are_the_meetings_own_samples(real_data, tmp_path, table):
    turns = []
    for session in ("20990101_S_R001S03C01", "20990103_L_R003S01C01"):
        reading = read_rttm(real_data / "meetings" / "TextGrid" / f"{session}.rttm")
        turns += [(session, t.speaker, t.start, t.end, t.line) for t in reading.turns]
    root = real_data / "meetings" / "wav"
    segments = table(*turns)
    report = cut_segments(segments, root, tmp_path / "out", channel=0)
    for row, name in zip(segments.itertuples(), report.table["audio"], strict=True):
        first, stop = int(row.start * RATE + 0.5), int(row.end * RATE + 0.5)
        direct, _ = soundfile.read(
            root / row.audio, start=first, stop=stop, dtype="int16", always_2d=True
        )
        found, _ = soundfile.read(tmp_path / "out" / name, dtype="int16")
        np.testing.assert_array_equal(found, direct[:, 0])


def test_names_are_those_of_the_reference_on_a_real_session(real_data, table):
    session = "20200706_L_R001S01C01"
    turns = read_rttm(real_data / "aishell4" / "rttm" / f"{session}.rttm").turns
    names = file_names(table(*[(session, t.speaker, t.start, t.end, t.line) for t in turns]))
    (real,) = (real_data / "aishell4" / "segments").iterdir()
    assert real.name in names
    turn = turns[names.index(real.name)]
    assert turn.line == 1
    # The reference rounded the end otherwise: its file is 5 ms longer than the turn.
    assert soundfile.info(real).duration == pytest.approx(turn.end - turn.start, abs=0.006)
    listed = pd.read_csv(real_data / "aishell4" / "data_fixed.csv")["path"].map(os.path.basename)
    kept = [n for n, t in zip(names, turns, strict=True) if round(t.end - t.start, 4) >= 1.5]
    assert kept == [name for name in listed if name.startswith(session)]
