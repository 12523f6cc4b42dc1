"""A signal at any moment of a driver of Ray: one line, exit code 130 or 143, nothing left."""

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ray_cluster import DRIVER

from spk.common.engine import ray_engine
from spk.common.errors import InputError
from spk.common.signals import INTERRUPTED

FIRST = "stopping after this batch; once more to stop at once"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("Ray connects", signal.SIGTERM),
        ("Ray is connected", signal.SIGTERM),
        ("machines are checked", signal.SIGINT),
        ("a unit is published", signal.SIGTERM),
        ("two come while Ray waits", signal.SIGTERM),
        ("Ray ends", signal.SIGINT),
        ("Ray has ended", signal.SIGTERM),
    ],
)
def test_a_driver_ends_by_its_signal_whenever_it_comes(two, tmp_path, moment, number):
    words = ["-c", DRIVER, two.address, moment, str(int(number))]
    driver = two.start_python(words, tmp_path)
    _, errors = driver.communicate(timeout=300)
    ends = [(128 + number, [FIRST, INTERRUPTED])]
    if "two" in moment:  # the second one ends it at once: before the first is told, or as it exits
        ends += [(128 + number, [INTERRUPTED]), (-number, [FIRST]), (-number, [FIRST, INTERRUPTED])]
    assert (driver.returncode, errors.splitlines()) in ends
    two.wait_until_idle(rb"ray::work")


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_that_ends_the_processes_of_ray_while_it_starts_ends_the_driver(two, tmp_path):
    driver = two.start_python(["-c", DRIVER, "", "never", "0"], tmp_path)
    two.wait_for(lambda: in_group(driver.pid, b"gcs_server"), driver)
    os.killpg(driver.pid, signal.SIGTERM)  # as scancel does: to all of them
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 128 + signal.SIGTERM
    said = [line for line in errors.splitlines() if line[0] != "["]  # Ray's own lines
    assert said == [FIRST, INTERRUPTED]
    two.wait_for(lambda: not in_group(driver.pid), two.cluster)


def in_group(number, name=b""):
    """Return the processes of a group whose command line holds a name."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (place / "cmdline").read_bytes()  # empty: it has ended
            if line and name in line and os.getpgid(int(place.name)) == number:
                found.append(int(place.name))
    return found


@contextmanager
def session(address):
    yield "ray"


@contextmanager
def no_session(address):
    raise InputError("Ray of this machine does not answer")
    yield


def unfit(ray):
    raise InputError("1 machine cannot work")


@pytest.mark.parametrize("ray", [session, no_session])
def test_a_ray_that_the_signal_has_ended_before_the_job_began_is_no_problem(ray, monkeypatch):
    monkeypatch.setattr(ray_engine, "ray_session", ray)
    assert ray_engine.run_units(None, unfit, lambda: True, print) == (True, [])
    with pytest.raises(InputError):
        ray_engine.run_units(None, unfit, lambda: False, print)


def test_what_publishing_meets_is_told_though_a_signal_came(monkeypatch):
    def run(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr(ray_engine, "ray_session", session)
    monkeypatch.setattr(ray_engine, "run_on_ray", run)
    with pytest.raises(InputError, match="the disk is full"):
        ray_engine.run_units(None, lambda ray: None, lambda: True, print)
