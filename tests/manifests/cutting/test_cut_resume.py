"""`cut` goes on where it stopped, and never passes off one file as another."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spk.common.errors import InputError
from spk.manifests.cutting import recording
from spk.manifests.cutting.cut import LISTING, TABLE, cut_segments
from spk.manifests.table import read_table, write_table

pytestmark = pytest.mark.slow

RATE = 16000
KILLS = 6


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def test_a_finished_cut_decodes_nothing_and_changes_nothing(meeting, tmp_path):
    turns, root = meeting
    out = tmp_path / "out"
    cut_segments(turns, root, out)
    before = snapshot(out)
    times = {file.name: file.stat().st_mtime_ns for file in out.glob("*.wav")}
    again = cut_segments(turns, root, out)
    assert (again.written, again.complete, again.decoded) == (0, 5, 0)
    assert snapshot(out) == before
    assert times == {file.name: file.stat().st_mtime_ns for file in out.glob("*.wav")}


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_missing_short_and_damaged_files_are_cut_again(meeting, tmp_path, kind):
    turns, root = meeting
    out = tmp_path / "out"
    cut_segments(turns, root, out, format=kind)
    before = snapshot(out)
    (out / f"S1_001-M_0000.{kind}").unlink()
    torn = out / f"S1_001-M_0002.{kind}"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    soundfile.write(out / f"S1_002-F_0007.{kind}", np.zeros(10, np.int16), RATE)
    assert cut_segments(turns, root, out, format=kind).written == 3
    assert snapshot(out) == before


def test_files_that_go_while_others_are_cut_are_reported(meeting, tmp_path, monkeypatch):
    turns, root = meeting
    out = tmp_path / "out"
    write = recording.write_audio

    def vanishing(path, samples):
        write(path, samples)
        if path.name == "S1_001-M_0001.wav":
            shutil.rmtree(out)

    monkeypatch.setattr(recording, "write_audio", vanishing)
    told = r"2 of 5 cut files have disappeared, first 'S1_001-M_0000.wav', expected all"
    with pytest.raises(InputError, match=told):
        cut_segments(turns, root, out)
    assert not (out / TABLE).exists()


def test_files_that_go_after_they_were_cut_are_reported(meeting, tmp_path, monkeypatch):
    turns, root = meeting
    out = tmp_path / "out"
    monkeypatch.setattr("spk.manifests.cutting.cut.write_table", lambda *_: shutil.rmtree(out))
    with pytest.raises(InputError, match="5 of 5 cut files have disappeared"):
        cut_segments(turns, root, out)


def test_more_segments_may_be_added(meeting, tmp_path):
    turns, root = meeting
    cut_segments(turns[:2], root, tmp_path / "out")
    report = cut_segments(turns, root, tmp_path / "out")
    assert (report.written, report.complete) == (3, 2)
    cut_segments(turns, root, tmp_path / "whole")
    assert len(read_table(tmp_path / "out" / TABLE)) == 5
    files = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.wav")}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "whole").glob("*.wav")}


def test_a_changed_request_is_refused(meeting, tmp_path, audio):
    turns, root = meeting
    out = tmp_path / "out"
    cut_segments(turns, root, out)
    before = snapshot(out)
    with pytest.raises(InputError, match=r"settings.*'channel'.*'0'.*'mean'.*another folder"):
        cut_segments(turns, root, out, channel="mean")
    moved = turns.assign(start=turns["start"] + 0.1, end=turns["end"] + 0.1)[1:]
    with pytest.raises(InputError, match=r"4 of the segments differ, first 'S1_001-M_0000.wav'"):
        cut_segments(moved, root, out)
    audio(root / "S1.flac", 46, channels=3, seed=9)
    with pytest.raises(InputError, match=r"1 of the recordings differ, first 'S1.flac'"):
        cut_segments(turns, root, out)
    assert snapshot(out) == before


def test_another_recording_of_the_same_size_is_refused(meeting, tmp_path, audio):
    turns, root = meeting
    turns["audio"] = "S1.wav"
    size = audio(root / "S1.wav", 45, seed=0).stat().st_size
    cut_segments(turns, root, tmp_path / "out")
    assert audio(root / "S1.wav", 45, seed=1).stat().st_size == size
    with pytest.raises(InputError, match=r"1 of the recordings differ, first 'S1.wav'"):
        cut_segments(turns, root, tmp_path / "out")


def test_segments_of_unknown_origin_are_not_taken_for_ours(meeting, tmp_path):
    turns, root = meeting
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "S1_001-M_0001.wav").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"1 of the segment files exist, .*no cut.json"):
        cut_segments(turns, root, tmp_path / "out")
    assert (tmp_path / "out" / "S1_001-M_0001.wav").read_bytes() == b"somebody's"


def test_what_a_killed_run_left_half_written_goes_away(meeting, tmp_path):
    turns, root = meeting
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".S1_009-M_0099.wav.part").write_bytes(b"half")
    cut_segments(turns, root, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.part"))


def test_two_processes_do_not_cut_to_one_folder(meeting, tmp_path):
    import fcntl

    turns, root = meeting
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="writing is locked by"):
            cut_segments(turns, root, tmp_path / "out")


def test_a_full_disk_leaves_no_file_under_a_final_name(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        recording.write_audio(tmp_path / "x.wav", np.zeros(100, np.int16))
    assert not (tmp_path / "x.wav").exists()


SCRIPT = """
import sys
from spk.manifests.cutting.cut import cut_segments
from spk.manifests.table import read_table
print("ready", flush=True)
cut_segments(read_table(sys.argv[1]), sys.argv[2], sys.argv[3], format="flac", jobs=2)
"""


def test_a_cut_killed_at_random_moments_resumes_to_the_same_folder(tmp_path, audio, table):
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
    resumed = cut_segments(read_table(tmp_path / "table.csv"), root, out, format="flac", jobs=2)
    assert resumed.complete > 0
    cut_segments(
        read_table(tmp_path / "table.csv"), root, tmp_path / "whole", format="flac", jobs=1
    )
    ours, whole = snapshot(out), snapshot(tmp_path / "whole")
    assert ours.pop(LISTING) == whole.pop(LISTING).replace(b"/whole/", b"/out/")
    assert ours == whole
    assert not list(out.glob(".*.part"))
