"""`cut`: what its files hold, are called, and survive."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.manifests import recording
from spk.manifests.cut import LISTING, TABLE, cut, file_names
from spk.manifests.rttm import read_rttm
from spk.manifests.table import InputError, read_table, segment_id, write_table

RATE = 16000
KILLS = 6


def audio(path: Path, seconds: float, channels: int = 1, rate: int = RATE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    samples = rng.integers(-32768, 32768, (round(seconds * rate), channels), dtype=np.int16)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def table(*turns: tuple[str, str, float, float, int]) -> pd.DataFrame:
    """Return a segment table in session scope of (session, speaker, start, end, line)."""
    return pd.DataFrame(
        {
            "segment_id": [segment_id(s, p, start, end) for s, p, start, end, _ in turns],
            "audio": [f"{session}.flac" for session, *_ in turns],
            "start": [turn[2] for turn in turns],
            "end": [turn[3] for turn in turns],
            "speaker": [f"{session}_{speaker}" for session, speaker, *_ in turns],
            "session": [turn[0] for turn in turns],
            "line": [turn[4] for turn in turns],
        }
    )


@pytest.fixture
def meeting(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """Return a table with overlaps and its folder: one meeting of 45 s, three channels."""
    audio(tmp_path / "wav" / "S1.flac", 45, channels=3)
    turns = table(
        ("S1", "002-F", 30.0, 44.9999, 3),
        ("S1", "001-M", 0.0, 1.5, 0),
        ("S1", "001-M", 19.0, 21.5, 1),  # over a block's border
        ("S1", "001-M", 21.5, 41.5, 2),  # over two
        ("S1", "002-F", 20.123, 20.9, 7),
    )
    return turns, tmp_path / "wav"


def expected(root: Path, row, channel: int = 0) -> np.ndarray:
    """Return a segment's samples by arithmetic of its own: seconds rounded half up."""
    whole, _ = soundfile.read(root / row.audio, dtype="int16", always_2d=True)
    return whole[int(row.start * RATE + 0.5) : int(row.end * RATE + 0.5), channel]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


@pytest.mark.parametrize("channel", [0, 2])
@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_files_hold_the_recordings_own_samples(meeting, tmp_path, kind, channel):
    turns, root = meeting
    report = cut(turns, root, tmp_path / "out", format=kind, channel=channel)
    for row, audio_name in zip(turns.itertuples(), report.table["audio"], strict=True):
        info = soundfile.info(tmp_path / "out" / audio_name)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        found, _ = soundfile.read(tmp_path / "out" / audio_name, dtype="int16")
        np.testing.assert_array_equal(found, expected(root, row, channel))


def test_mean_is_the_equal_average_of_all_channels(meeting, tmp_path):
    turns, root = meeting
    cut(turns, root, tmp_path / "out", channel="mean")
    whole, _ = soundfile.read(root / "S1.flac", dtype="int16")
    found, _ = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav", dtype="int16")
    average = whole[:24000].astype(float).sum(axis=1) / 3
    assert np.abs(found - average).max() <= 0.5  # rounded to the nearest step


def test_files_are_named_and_listed_as_the_reference_does(tmp_path):
    audio(tmp_path / "B.flac", 4)
    audio(tmp_path / "A.flac", 4, seed=1)
    turns = table(
        ("B", "001-M", 0.0, 1.0, 0),
        ("A", "002-F", 0.0, 2.0, 11),
        ("A", "001-M", 2.0, 3.0, 1),
        ("A", "001-M", 0.5, 3.0, 12345),
    )
    report = cut(turns, tmp_path, tmp_path / "out")
    names = ["A_001-M_0001.wav", "A_002-F_0011.wav", "A_001-M_12345.wav", "B_001-M_0000.wav"]
    listing = pd.read_csv(tmp_path / "out" / LISTING)
    assert list(listing.columns) == ["path", "label"]
    assert list(listing["path"]) == [str(tmp_path / "out" / name) for name in names]
    assert list(listing["label"]) == ["A_001-M", "A_002-F", "A_001-M", "B_001-M"]
    pd.testing.assert_frame_equal(listing, report.listing.astype(listing.dtypes))


def test_names_hold_the_local_speaker_in_every_scope():
    turns = table(("S1", "001-M", 0.0, 1.0, 4))
    for scope in ("S1_001-M", "20990101_M_R001_001-M", "person07"):
        assert file_names(turns.assign(speaker=scope)) == ["S1_001-M_0004.wav"]
    without_line = turns.drop(columns="line")
    assert file_names(without_line) == ["S1_001-M_0000.0000_0001.0000.wav"]


def test_the_second_table_joins_the_first(meeting, tmp_path):
    turns, root = meeting
    turns = turns.assign(overlap=[0, 0.5, 1, 0.25, 0], split=["", "train", "valid", "test", ""])
    cut(turns, root, tmp_path / "out")
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
    report = cut(turns, root, tmp_path / "out")
    assert reads == [(0, 20 * RATE), (20 * RATE, 40 * RATE), (40 * RATE, 45 * RATE)]
    assert (report.decoded, report.decoded_seconds) == (1, 45.0)


def test_a_finished_cut_decodes_nothing_and_changes_nothing(meeting, tmp_path):
    turns, root = meeting
    out = tmp_path / "out"
    cut(turns, root, out)
    before = snapshot(out)
    times = {file.name: file.stat().st_mtime_ns for file in out.glob("*.wav")}
    again = cut(turns, root, out)
    assert (again.written, again.complete, again.decoded) == (0, 5, 0)
    assert snapshot(out) == before
    assert times == {file.name: file.stat().st_mtime_ns for file in out.glob("*.wav")}


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_missing_short_and_damaged_files_are_cut_again(meeting, tmp_path, kind):
    turns, root = meeting
    out = tmp_path / "out"
    cut(turns, root, out, format=kind)
    before = snapshot(out)
    (out / f"S1_001-M_0000.{kind}").unlink()
    torn = out / f"S1_001-M_0002.{kind}"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    soundfile.write(out / f"S1_002-F_0007.{kind}", np.zeros(10, np.int16), RATE)
    assert cut(turns, root, out, format=kind).written == 3
    assert snapshot(out) == before


def test_more_segments_may_be_added(meeting, tmp_path):
    turns, root = meeting
    cut(turns[:2], root, tmp_path / "out")
    report = cut(turns, root, tmp_path / "out")
    assert (report.written, report.complete) == (3, 2)
    cut(turns, root, tmp_path / "whole")
    assert len(read_table(tmp_path / "out" / TABLE)) == 5
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.wav")}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "whole").glob("*.wav")}


def test_a_changed_request_is_refused(meeting, tmp_path):
    turns, root = meeting
    out = tmp_path / "out"
    cut(turns, root, out)
    before = snapshot(out)
    with pytest.raises(InputError, match=r"settings.*'channel'.*'0'.*'mean'.*another folder"):
        cut(turns, root, out, channel="mean")
    moved = turns.assign(start=turns["start"] + 0.1, end=turns["end"] + 0.1)[1:]
    with pytest.raises(InputError, match=r"4 of the segments differ, first 'S1_001-M_0000.wav'"):
        cut(moved, root, out)
    audio(root / "S1.flac", 46, channels=3, seed=9)
    with pytest.raises(InputError, match=r"1 of the bytes differ, first 'S1.flac'"):
        cut(turns, root, out)
    assert snapshot(out) == before


def test_segments_of_unknown_origin_are_not_taken_for_ours(meeting, tmp_path):
    turns, root = meeting
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "S1_001-M_0001.wav").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"1 of the segment files are there, .*no cut.json"):
        cut(turns, root, tmp_path / "out")
    assert (tmp_path / "out" / "S1_001-M_0001.wav").read_bytes() == b"somebody's"


def test_what_a_killed_run_left_half_written_goes_away(meeting, tmp_path):
    turns, root = meeting
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".S1_009-M_0099.wav.part").write_bytes(b"half")
    cut(turns, root, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))


def test_two_processes_do_not_cut_to_one_folder(meeting, tmp_path):
    import fcntl

    turns, root = meeting
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing here"):
            cut(turns, root, tmp_path / "out")


def test_another_rate_is_refused_or_resampled(tmp_path):
    rate = 44100
    time_axis = np.arange(4 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis)
    soundfile.write(tmp_path / "S1.flac", tone, rate, subtype="PCM_16")
    turns = table(("S1", "001-M", 1.0, 2.5, 0))
    with pytest.raises(InputError, match=r"S1.flac: sample rate is 44100 Hz.*pass --resample"):
        cut(turns, tmp_path, tmp_path / "out")
    cut(turns, tmp_path, tmp_path / "out", resample=True)
    found, found_rate = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav")
    assert (found_rate, len(found)) == (RATE, 24000)
    ideal = 0.5 * np.sin(2 * np.pi * 440 * (1 + np.arange(24000) / RATE))
    inner = slice(200, -200)  # the segment's ends meet silence in the filter
    assert np.abs(found - ideal)[inner].max() < 2e-3


def test_24_bits_are_rounded_to_16(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, RATE)
    soundfile.write(tmp_path / "S1.flac", samples, RATE, subtype="PCM_24")
    cut(table(("S1", "001-M", 0.0, 1.0, 0)), tmp_path, tmp_path / "out")
    found, _ = soundfile.read(tmp_path / "out" / "S1_001-M_0000.wav")
    assert np.abs(found - samples).max() <= 1.01 / 32768  # half a step, one at full scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "mp3"}, "format: 'mp3' is unknown, expected wav or flac"),
        ({"channel": "all"}, "channel: 'all' is unknown, expected mean or a 0-based index"),
        ({"channel": -1}, "channel: '-1' is unknown"),
        ({"channel": 3}, r"S1.flac: channel is 3, expected 0 to 2; pass another --channel"),
        ({"workers": -1}, "workers: -1 is below 0"),
    ],
)
def test_options_out_of_range_are_refused(meeting, tmp_path, change, message):
    turns, root = meeting
    with pytest.raises(InputError, match=message):
        cut(turns, root, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "gone.flac"}, "gone.flac: cannot be read"),
        ({"end": 46.0}, r"takes samples .* to 736000, expected at least 1 of 720000"),
        ({"speaker": "S1_../x", "segment_id": "S1_../x_0_1"}, "expected a plain file name"),
    ],
)
def test_segments_that_cannot_be_cut_are_refused_before_anything_is(
    meeting, tmp_path, change, message
):
    turns, root = meeting
    turns = pd.concat([turns[1:], turns[:1].assign(**change)])
    with pytest.raises(InputError, match=message):
        cut(turns, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_segments_of_one_name_are_refused(meeting, tmp_path):
    turns, root = meeting
    with pytest.raises(InputError, match="would both be cut to 'S1_001-M_0000.wav'"):
        cut(turns.assign(line=0), root, tmp_path / "out")


def test_a_damaged_recording_is_named(tmp_path):
    path = audio(tmp_path / "S1.flac", 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    turns = table(("S1", "001-M", 0.0, 1.0, 0), ("S1", "001-M", 8.0, 9.0, 1))
    with pytest.raises(InputError, match=r"S1.flac: .*decode.*replace the damaged file"):
        cut(turns, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / LISTING).exists()


def test_a_full_disk_leaves_no_file_under_a_final_name(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        recording.write_audio(tmp_path / "x.wav", np.zeros(100, np.int16))
    assert not (tmp_path / "x.wav").exists()


SCRIPT = """
import sys
from spk.manifests.cut import cut
from spk.manifests.table import read_table
print("ready", flush=True)
cut(read_table(sys.argv[1]), sys.argv[2], sys.argv[3], format="flac", workers=2)
"""


def test_a_cut_killed_at_random_moments_resumes_to_the_same_folder(tmp_path):
    root, out = tmp_path / "wav", tmp_path / "out"
    turns = []
    for session in ("S1", "S2", "S3"):
        audio(root / f"{session}.flac", 40, seed=int(session[1]))
        turns += [(session, "001-M", 0.2 * i, 0.2 * i + 0.7, i) for i in range(190)]
    write_table(table(*turns), tmp_path / "table.csv")
    lengths = {f"{s}_{p}_{line:04d}.flac": 11200 for s, p, _, _, line in turns}
    rng = np.random.default_rng()
    killed = 0
    while killed < KILLS:
        command = [sys.executable, "-c", SCRIPT, tmp_path / "table.csv", root, out]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        begun = len(list(out.glob("*.flac"))) if out.exists() else 0
        while process.poll() is None and len(list(out.glob("*.flac"))) <= begun:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        ended = process.wait()
        process.stdout.close()
        for file in out.glob("*.flac"):
            assert soundfile.read(file)[0].size == lengths[file.name]
        assert ended in (0, -signal.SIGKILL)
        killed += ended == -signal.SIGKILL
        if ended == 0 and killed < KILLS:  # it was faster than the kill
            shutil.rmtree(out)
    resumed = cut(read_table(tmp_path / "table.csv"), root, out, format="flac", workers=2)
    assert resumed.complete > 0
    cut(read_table(tmp_path / "table.csv"), root, tmp_path / "whole", format="flac", workers=1)
    ours, whole = snapshot(out), snapshot(tmp_path / "whole")
    assert ours.pop(LISTING) == whole.pop(LISTING).replace(b"/whole/", b"/out/")
    assert ours == whole
    assert not list(out.glob(".*.part"))


def test_real_segments_are_the_meetings_own_samples(real_data, tmp_path):
    turns = []
    for session in ("20990101_S_R001S03C01", "20990103_L_R003S01C01"):
        reading = read_rttm(real_data / "meetings" / "TextGrid" / f"{session}.rttm")
        turns += [(session, t.speaker, t.start, t.end, t.line) for t in reading.turns]
    root = real_data / "meetings" / "wav"
    segments = table(*turns)
    report = cut(segments, root, tmp_path / "out", channel=0)
    for row, name in zip(segments.itertuples(), report.table["audio"], strict=True):
        first, stop = int(row.start * RATE + 0.5), int(row.end * RATE + 0.5)
        direct, _ = soundfile.read(
            root / row.audio, start=first, stop=stop, dtype="int16", always_2d=True
        )
        found, _ = soundfile.read(tmp_path / "out" / name, dtype="int16")
        np.testing.assert_array_equal(found, direct[:, 0])


def test_names_are_those_of_the_reference_on_a_real_session(real_data):
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
