"""What another terminal may know of a running job."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from spk.common.engine import running
from spk.common.engine.running import announce, count_lost_tries, read_running, under_way

OURS = {"pid": os.getpid(), "host": socket.gethostname()}


def test_a_job_tells_how_far_it_is_and_nothing_after_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "EVERY", 0.0)
    done = iter((3, 5))
    with announce(tmp_path, 9, lambda: next(done)) as tell:
        told = read_running(tmp_path)
        assert (told.done, told.total, told.pid, told.host) == (3, 9, *OURS.values())
        assert told.age < 60
        assert not told.gone
        tell()
        assert read_running(tmp_path).done == 5
    assert read_running(tmp_path) is None
    assert os.listdir(tmp_path) == []


def test_a_job_that_was_killed_is_told_as_gone(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from spk.common.engine.running import announce
with announce(Path({str(tmp_path)!r}), 9, lambda: 2):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert read_running(tmp_path).gone


def test_a_job_whose_parent_has_not_noticed_its_end_is_told_as_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    job = {"done": 2, "total": 9, "updated": 0.0, "host": OURS["host"], "since": since}
    (tmp_path / ".running").mkdir()
    (tmp_path / ".running" / "job.json").write_text(json.dumps({**job, "pid": child.pid}))
    assert not read_running(tmp_path).gone
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_running(tmp_path).gone
    child.communicate()


def test_another_process_of_the_same_number_is_not_the_job(tmp_path):
    job = {"done": 2, "total": 9, "updated": 0.0, **OURS, "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".running").mkdir()
    (tmp_path / ".running" / "job.json").write_text(json.dumps(job))
    assert read_running(tmp_path).gone


def test_units_under_way_are_told_with_their_process_and_the_lost_tries_are_counted(tmp_path):
    lost = {"name": "3 segments of a.wav", "pid": 1, "host": "elsewhere", "since": "2026-01-01"}
    with announce(tmp_path, 9, lambda: 0):
        (tmp_path / ".running" / "0a-1").write_text(json.dumps(lost))
        with (
            under_way(tmp_path, "0a", "3 segments of a.wav"),
            under_way(tmp_path, "0b", "4 segments of b.wav"),
        ):
            told = {unit.name: unit for unit in read_running(tmp_path).units}
            assert (told["3 segments of a.wav"].pid, told["3 segments of a.wav"].tries) == (
                os.getpid(),
                2,
            )
            assert told["4 segments of b.wav"].tries == 1
        assert count_lost_tries(tmp_path, "0a") == 1
        assert count_lost_tries(tmp_path, "0a") == count_lost_tries(tmp_path, "0b") == 0
        assert read_running(tmp_path).units == ()


def test_a_unit_whose_process_was_killed_is_not_under_way(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from spk.common.engine.running import under_way
with under_way(Path({str(tmp_path)!r}), "0a", "a unit"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with announce(tmp_path, 9, lambda: 0):
        subprocess.run([sys.executable, "-c", code], check=False)
        assert read_running(tmp_path).units == ()
        assert count_lost_tries(tmp_path, "0a") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"done": 1}', "\0", '{"pid": {}}'])
def test_what_others_have_left_is_no_job(tmp_path, text):
    (tmp_path / ".running").mkdir()
    (tmp_path / ".running" / "job.json").write_text(text)
    (tmp_path / ".running" / "0a-1").write_text(text)
    assert read_running(tmp_path) is None


def test_a_job_goes_on_where_nothing_can_be_told(tmp_path):
    (tmp_path / ".running").write_text("a file of somebody's")
    with announce(tmp_path, 9, lambda: 0) as tell, under_way(tmp_path, "0a", "a unit"):
        tell()
        assert read_running(tmp_path) is None
