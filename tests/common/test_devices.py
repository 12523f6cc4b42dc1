"""Devices of one machine: who dies, hangs or is stopped loses and doubles nothing."""

import json
import subprocess
import sys
from multiprocessing import Pipe

import pytest

from spk.common.engine import devices
from spk.common.engine.devices import run_on_devices
from spk.common.engine.work import Job, Unit

# Units that misbehave once, or always; each answers with its name and its process.
SCRIPT = """
import json, os, sys, time
from spk.common.engine.devices import run_on_devices
from spk.common.engine.work import Done, Job, Unit

def first(name):
    try:
        open(name, "x").close()
    except FileExistsError:
        return False
    return True

def work(device, name, stop):
    if name == "kills" or name == "kills once" and first("killed"):
        os.kill(os.getpid(), 9)
    if name == "hangs once" and first("hung"):
        time.sleep(1000)
    if name == "hangs":
        first("waiting")
        time.sleep(1000)
    if name == "long":
        time.sleep(3)
    if name == "waits":
        first("waiting")
        while not stop():
            time.sleep(0.01)
    return Done((name, device, os.getpid()), trace="a bug" if name == "bug" else "")

if __name__ == "__main__":
    names = sys.argv[1].split(",")
    published, said = [], []
    def publish(unit, done):
        published.append([*done.value])
        if unit.name == "refused":
            while not os.path.exists("waiting"):
                time.sleep(0.01)
            raise ValueError("refused")
    units = [Unit(name, name, name) for name in names]
    shared = {"one": 1, "two": 2}
    job = Job(work, shared, units, publish, retries=1, overdue=2.0, floor=1.0)
    try:
        end = run_on_devices(job, lambda: os.path.exists("waiting") and "refused" not in names,
                             said.append)
        end = [end[0], [[failed.unit.name, failed.reason] for failed in end[1]]]
    except ValueError as problem:
        end = str(problem)
    print(json.dumps([end, published, said]))
"""

pytestmark = pytest.mark.slow


def run(folder, names):
    """Return how a job of units of these names ends, what it publishes, and what it says."""
    (folder / "script.py").write_text(SCRIPT)
    words = [sys.executable, "script.py", ",".join(names)]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_unit_that_kills_its_process_is_named_at_last_and_the_others_are_done(tmp_path):
    (stopped, failed), published, said = run(tmp_path, ["kills", *"abcdef"])
    assert not stopped
    assert failed == [["kills", "its process died in each of 2 tries"]]
    assert sorted(name for name, *_ in published) == [*"abcdef"]
    died, _, text = said[0].partition(": ")
    assert died in {"one", "two"}
    assert text == "the process of this device ended early with signal 9; tried again: kills"
    assert said[1:] == ["failed: kills (its process died in each of 2 tries)"]


def test_a_unit_whose_process_died_is_tried_again_on_another_device(tmp_path):
    (_, failed), published, said = run(tmp_path, ["long", "kills once"])
    assert failed == []
    devices = {name: device for name, device, _ in published}
    assert devices["kills once"] == devices["long"]  # though the other one was free before
    assert len(said) == 1


def test_an_overdue_unit_is_done_by_a_free_device_and_published_once(tmp_path):
    (stopped, failed), published, _ = run(tmp_path, ["hangs once", *"abcdef"])
    assert (stopped, failed) == (False, [])
    assert sorted(name for name, *_ in published) == [*"abcdef", "hangs once"]
    assert len({device for _, device, _ in published}) == 1  # the other one hangs


def test_a_unit_does_not_wait_for_a_device_that_hangs(tmp_path):
    (stopped, failed), published, said = run(tmp_path, ["hangs once", *"ab", "kills once"])
    assert (stopped, failed) == (False, [])
    assert sorted(name for name, *_ in published) == [*"ab", "hangs once", "kills once"]
    assert len({device for _, device, _ in published}) == len(said) == 1


def test_a_process_that_met_a_bug_is_made_anew(tmp_path):
    _, published, _ = run(tmp_path, ["bug", *"abcdefgh"])
    (bug,) = [process for name, _, process in published if name == "bug"]
    assert bug not in {process for name, _, process in published if name != "bug"}
    assert len(published) == 9


def test_what_is_under_way_is_published_when_the_job_is_stopped(tmp_path):
    (stopped, failed), published, _ = run(tmp_path, ["a", "waits", "waits too", *"bcdefgh"])
    assert (stopped, failed) == (True, [])
    assert "waits" in {name for name, *_ in published}


def test_a_device_that_hangs_does_not_keep_a_job_that_is_stopped(tmp_path):
    (stopped, failed), published, _ = run(tmp_path, ["a", "hangs", *"bcdefgh"])
    assert (stopped, failed) == (True, [])
    assert "a" in {name for name, *_ in published}


def test_a_device_that_hangs_does_not_keep_a_job_that_cannot_publish(tmp_path):
    end, published, _ = run(tmp_path, ["a", "hangs", "refused", *"bcdef"])
    assert end == "refused"
    assert {"a", "refused"} <= {name for name, *_ in published}


def test_what_publish_raises_ends_the_job_and_others_are_published_first(tmp_path):
    end, published, _ = run(tmp_path, ["waits", "refused", *"abcdef"])
    assert end == "refused"
    assert {"waits", "refused"} <= {name for name, *_ in published}


def test_a_process_that_cannot_begin_ends_the_job(tmp_path):
    (tmp_path / "script.py").write_text(
        "from spk.common.engine.devices import run_on_devices\n"
        "from spk.common.engine.work import Job, Unit\n"
        'if __name__ == "__main__":\n'
        "    def work(*given): pass\n"
        '    job = Job(work, {"one": 1}, [Unit("a", "a", "a")], print)\n'
        "    run_on_devices(job, lambda: False, print)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "one: the process of this device ended early with code 1, expected it to start" in (
        done.stderr
    )
    assert done.stderr.count("AttributeError: ") == 1


def test_without_devices_nothing_is_done():
    assert run_on_devices(Job(print, {}, [], print), lambda: False, print) == (False, [])


class ImitatedProcess:
    """A process that has begun, and answers with the payload of each unit."""

    begun = True

    def __init__(self, function, shared):
        self.line, self.theirs = Pipe()

    def send(self, unit):
        if unit:
            self.theirs.send((unit.payload,))

    def receive(self):
        return self.line.recv()

    def kill(self):
        self.line.close()
        self.theirs.close()


def test_what_the_first_process_holds_does_not_grow_with_the_units(monkeypatch):
    monkeypatch.setattr(devices, "_Process", ImitatedProcess)
    published = []
    units = (Unit(str(number), f"unit {number}", number) for number in range(2 * devices.RECENT))
    job = Job(print, {"one": 1, "two": 2}, units, lambda unit, number: published.append(number))
    run = devices._Run(job, print)
    while run.give():
        run.receive()
    assert sorted(published) == list(range(2 * devices.RECENT))
    held = [len(value) for value in vars(run).values() if hasattr(value, "__len__")]
    assert max(held) == devices.RECENT  # the times of the last ones
    run.kill()
