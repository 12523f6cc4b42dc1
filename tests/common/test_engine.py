"""The engine for several machines: who may be joined, what is seen there, what runs twice."""

import json
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from spk.common.engine.folders import look, probe_files, working_folder
from spk.common.engine.ray_engine import run_on_ray
from spk.common.engine.ray_session import (
    LOOPBACK,
    SETTINGS,
    ask_machines,
    check_address,
    ray_session,
)
from spk.common.engine.work import Job, Unit
from spk.common.errors import InputError


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head.cluster:6379", "[fe80::1]:6379"])
def test_a_cluster_on_a_network_is_refused_without_its_token(address, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(InputError) as problem:
        check_address(address)
    assert "expected RAY_AUTH_MODE=token" in str(problem.value)
    assert "run `ray get-auth-token --generate`" in str(problem.value)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InputError):
        check_address(address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379"])
def test_a_cluster_on_the_loopback_address_needs_no_token(address, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    check_address(address)


ADDRESSES = ["ray://head:10001", "head", "head:", ":6379", "auto", "127.0.0.1:0", "h:65536"]
ADDRESSES += [f"127.0.0.1:{10**20}"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_of_another_form_is_told(address):
    with pytest.raises(InputError, match=r"--ray-address: value is .* expected HOST:PORT"):
        check_address(address)


@pytest.fixture
def idle_ray(monkeypatch):
    """Return Ray, imported before it is used, which does not start."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    for name in (*SETTINGS, LOOPBACK):
        monkeypatch.delenv(name, raising=False)
    constants = ray._private.ray_constants
    monkeypatch.setattr(constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "nodes", list)
    return ray


def test_rays_settings_hold_for_a_job_alone_also_where_ray_was_imported_before(idle_ray):
    def state():
        constants, worker = idle_ray._private.ray_constants, idle_ray._private.worker
        read = constants.ENABLE_RAY_CLUSTER, constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
        return *read, worker.print_to_stdstream, dict(os.environ)

    before = state()
    with ray_session(None) as ray:
        assert ray._private.services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
        within = state()
        assert within[:2] == (False, True)
        assert within[2] != before[2]
        assert within[3].items() >= SETTINGS.items()
    assert state() == before


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.4
This process on node 127.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("joined", "text", "said"),
    [
        (True, MISMATCH, "cannot be joined (Version mismatch: The cluster was started with: Ray: "),
        (True, "pages\nno GCS\n", "cannot be joined (no GCS), expected a running Ray of version"),
        (False, "no room\n", "--engine ray: Ray does not start on this machine (no room), expect"),
    ],
)
def test_why_there_is_no_ray_is_told_in_one_line(idle_ray, monkeypatch, joined, text, said):
    def fail(**_):
        raise RuntimeError(text)

    monkeypatch.setattr(idle_ray, "init", fail)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}" if joined else None
        with pytest.raises(InputError) as problem, ray_session(address):
            pass
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)


def test_rays_command_in_the_repair_exists():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--generate" in done.stdout


def test_a_machine_that_does_not_answer_is_told():
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")

    def get(answer, timeout):
        if answer == "silent":
            raise ray.exceptions.GetTimeoutError("Get timed out: some object(s) not ready.")
        return ""

    names = iter(["answers", "silent"])
    task = SimpleNamespace(remote=lambda: next(names))
    imitated = SimpleNamespace(
        nodes=lambda: [
            {"Alive": True, "NodeID": "0" * 56, "NodeManagerAddress": address}
            for address in ("10.0.0.1", "10.0.0.2")
        ],
        remote=lambda **_: lambda _: SimpleNamespace(options=lambda **_: task),
        get=get,
        exceptions=ray.exceptions,
    )
    assert ask_machines(imitated, str) == {"10.0.0.2": "it does not answer within 60 s"}


def test_a_machine_with_the_same_folders_sees_them(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"samples")
    (tmp_path / "store").mkdir()
    inputs = [("the audio", str(tmp_path / "a.wav")), ("nothing", str(tmp_path / "absent"))]
    with probe_files(tmp_path / "store", inputs) as marks:
        assert look(marks) == ""
        assert len(os.listdir(tmp_path / "store")) == 1
    assert os.listdir(tmp_path / "store") == []


def test_a_machine_with_other_folders_of_the_same_name_is_told(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"samples")
    (tmp_path / "store").mkdir()
    with probe_files(tmp_path / "store", [("the audio", str(tmp_path / "a.wav"))]) as marks:
        (tmp_path / "a.wav").write_bytes(b"others")
        assert look(marks) == "the audio has other files there"
        (tmp_path / "a.wav").unlink()
        assert look(marks) == "the audio is not seen there (No such file or directory)"
    assert look(marks) == f"{tmp_path}/store is not seen there (No such file or directory)"


def test_a_machine_without_the_working_folder_is_told(tmp_path):
    (tmp_path / "work").mkdir()
    assert working_folder("") == []  # where no path is relative
    with probe_files(None, working_folder(f"{tmp_path}/work")) as marks:
        assert look(marks) == ""
        (tmp_path / "work").rmdir()
        expected = f"the working folder {tmp_path}/work, which paths start from, is not seen there"
        assert look(marks) == f"{expected} (No such file or directory)"


def test_inputs_alone_are_seen_and_nothing_is_written_beside_them(tmp_path, monkeypatch):
    (tmp_path / "store.json").write_bytes(b"{}")
    with probe_files(None, [("the store", str(tmp_path / "store.json"))]) as marks:
        with monkeypatch.context() as read_only:
            read_only.setattr(Path, "write_bytes", None)
            assert look(marks) == ""
        assert os.listdir(tmp_path) == ["store.json"]
        assert look(marks, {"numpy": "0"}) == f"numpy is {version('numpy')} there and 0 here"
        (tmp_path / "store.json").write_bytes(b"{ }")
        assert look(marks, {"numpy": version("numpy")}) == "the store has other files there"


# Two units kill their process, one of them at its first try only.
KILLS = """
import json, os, sys
from spk.common.engine.processes import run_in_processes
from spk.common.engine.work import Job, Unit

def work(folder, name):
    if name == "once" and not os.path.exists(os.path.join(folder, "tried")):
        open(os.path.join(folder, "tried"), "x").close()
        os.kill(os.getpid(), 9)
    if name == "always":
        os.kill(os.getpid(), 9)
    return name

published = []
if __name__ == "__main__":
    units = [Unit(name, f"unit {name}", name) for name in ("always", "once", "a", "b", "c")]
    job = Job(work, sys.argv[1], units, lambda unit, result: published.append(result), retries=1)
    failed = run_in_processes(job, 2)
    print(json.dumps([sorted(published), [[unit.unit.name, unit.reason] for unit in failed]]))
"""


@pytest.mark.slow
def test_a_process_of_this_machine_that_dies_loses_its_own_unit_alone(tmp_path):
    (tmp_path / "kills.py").write_text(KILLS)
    words = [sys.executable, str(tmp_path / "kills.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    published, failed = json.loads(done.stdout)
    assert published == ["a", "b", "c", "once"]
    assert failed == [["unit always", "its process died in each of 2 tries"]]


# One unit hangs at its first try, and is done at its second; one has a bug; one spoils its process.
TWICE = """
import json, os, sys, time
from spk.common.engine.ray_engine import run_on_ray
from spk.common.engine.ray_session import ray_session
from spk.common.engine.work import Done, Job, Unit

def work(folder, name):
    if name == "spoils":
        os.environ["SPOILT"] = "1"
    if name == "hangs":
        try:
            open(os.path.join(folder, "begun"), "x").close()
            time.sleep(1000)
        except FileExistsError:
            pass
    if name == "bug":
        raise ValueError("a bug")
    return Done(name, trace="a bug" if "SPOILT" in os.environ else "")

published = []
if __name__ == "__main__":
    units = [Unit(name, f"unit {name}", name) for name in ("spoils", "hangs", "bug", *"abcdef")]
    publish = lambda unit, done: published.append((unit.name, done.value, done.trace))
    job = Job(work, sys.argv[1], units, publish, overdue=2.0, floor=1.0)
    with ray_session(None) as ray:
        stopped, failed = run_on_ray(ray, job, lambda: False)
    said = [[unit.unit.name, unit.reason] for unit in failed]
    print(json.dumps([stopped, sorted(published), said]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_overdue_units_are_sent_again_and_none_is_done_where_a_bug_has_been(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    (tmp_path / "twice.py").write_text(TWICE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "twice.py"), str(tmp_path)],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stopped, published, failed = json.loads(done.stdout)
    assert not stopped
    names = [*"abcdef", "hangs", "spoils"]
    assert published == [
        [f"unit {name}", name, "a bug" if name == "spoils" else ""] for name in names
    ]
    assert failed == [["unit bug", "ValueError: a bug"]]


class DiedError(Exception):
    """What Ray raises."""


class ImitatedRay:
    """The part of Ray that the engine calls: units are done in this process, as they are asked for.

    Parameters
    ----------
    slots
        CPUs of its one machine.
    """

    exceptions = SimpleNamespace(
        **dict.fromkeys(
            ("RayError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError"), DiedError
        )
    )

    def __init__(self, slots):
        self.slots, self.most = slots, 0
        self.fails = {}  # what is raised, by the call that raises it

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.slots}}]

    def put(self, value):
        return value

    def remote(self, **_settings):
        def decorate(function):
            def send(shared, payload):
                return lambda: function(shared, payload)

            return SimpleNamespace(remote=send)

        return decorate

    def wait(self, flying, **_settings):
        self.most = max(self.most, len(flying))
        return self._answer("wait", flying[:1]), flying[1:]

    def get(self, task):
        return self._answer("get", task())

    def cancel(self, _task, **_settings):
        self._answer("wait", None)

    def _answer(self, call, value):
        if call in self.fails:
            raise self.fails[call]
        return value


def test_what_the_driver_holds_does_not_grow_with_the_units():
    ray, ahead, published = ImitatedRay(4), [], []

    def units():
        for number in range(5000):
            ahead.append(number - len(published))
            yield Unit(str(number), f"unit {number}", number)

    job = Job(lambda shared, number: number, None, units(), lambda unit, n: published.append(n))
    assert run_on_ray(ray, job, lambda: False) == (False, [])
    assert published == list(range(5000))
    assert ray.most == 4
    assert max(ahead) <= 5


class RayCutOff(ImitatedRay):
    """A Ray whose task 0 is on a machine that says nothing any more."""

    def wait(self, flying, **_settings):
        answering = [task for task in flying if task() != 0]
        self.most = max(self.most, len(flying))
        return answering[:1], [task for task in flying if task not in answering[:1]]


def test_an_overdue_unit_holds_no_slot():
    ray, published = RayCutOff(1), []
    units = [Unit(str(number), f"unit {number}", number) for number in (1, 0, 2, 3)]
    job = Job(lambda _, number: number, None, units, lambda unit, n: published.append(n), floor=0)
    limit = time.monotonic() + 10
    run_on_ray(ray, job, lambda: len(published) == 3 or time.monotonic() > limit)
    assert published == [1, 2, 3]


class RayWithoutAnEnd(ImitatedRay):
    """A Ray whose first copy of unit 0 does not end, not even when it is cancelled."""

    def __init__(self, slots):
        super().__init__(slots)
        self.first, self.cancelled, self.waited = [], [], []

    def wait(self, flying, timeout, **_settings):
        self.first = self.first or [task for task in flying if task() == 0][:1]
        self.waited.append(timeout)
        answering = [task for task in flying if task not in self.first]
        return answering[:1], [task for task in flying if task not in answering[:1]]

    def cancel(self, task, **_settings):
        self.cancelled.append(task)


def test_the_driver_does_not_wait_for_a_copy_that_it_cancels_on_a_machine_that_is_cut_off():
    ray, published, limit = RayWithoutAnEnd(1), [], time.monotonic() + 10

    def units():
        yield Unit("1", "unit 1", 1)
        number = 0
        while not ray.cancelled and time.monotonic() < limit:
            yield Unit(str(number), f"unit {number}", number)
            number += 2

    job = Job(lambda _, number: number, None, units(), lambda unit, n: published.append(n), floor=0)
    assert run_on_ray(ray, job, lambda: False) == (False, [])
    assert ray.cancelled == ray.first
    assert sorted(published) == [0, 1, *range(2, max(published) + 1, 2)]
    assert max(ray.waited) < 1


@pytest.mark.parametrize(
    "fails", [{"get": DiedError("gone")}, {"wait": RuntimeError("no connection")}]
)
def test_a_ray_that_ends_by_the_signal_of_its_driver_is_stopped_and_has_not_failed(fails):
    units = [Unit(str(number), f"unit {number}", number) for number in range(9)]
    ray, answers = ImitatedRay(2), iter([False])

    def stop():
        ray.fails = fails  # from here on
        return next(answers, True)

    job = Job(lambda shared, number: number, None, units, lambda unit, result: None)
    assert run_on_ray(ray, job, stop) == (True, [])
    if "wait" in fails:
        with pytest.raises(RuntimeError):
            run_on_ray(ray, job, lambda: False)
    else:
        assert len(run_on_ray(ray, job, lambda: False)[1]) == 9
