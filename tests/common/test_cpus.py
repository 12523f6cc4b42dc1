"""Cores at hand: those of the affinity, and of a container's quota."""

import os
from pathlib import Path

import pytest

from spk.common import cpus
from spk.common.cpus import available_cores


@pytest.fixture
def cores(monkeypatch, tmp_path):
    """Return a function that says which cores there are, without a quota."""
    monkeypatch.setattr(cpus, "CGROUP", tmp_path)

    def there(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)), raising=False)

    return there


def test_the_affinity_counts_and_not_the_machine(cores, monkeypatch):
    cores(3)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cores() == 3


def test_without_an_affinity_the_machines_cores_count(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "CGROUP", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for told, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda told=told: told)
        assert available_cores() == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("400000 100000\n", 4),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("max 100000\n", 8),
        ("", 8),
    ],
)
def test_a_containers_quota_counts(cores, tmp_path, quota, expected):
    cores(8)
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000", 3), ("-1", 8)])
def test_so_does_the_quota_of_the_first_cgroups(cores, tmp_path, quota, expected):
    cores(8)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    assert available_cores() == expected


def test_nobody_counts_cores_in_another_way():
    root = Path(cpus.__file__).parents[1]
    rooms = ("common", "manifests", "extract", "classify", "finetune")
    ways = ("sched_getaffinity", "cpu_count", "process_cpu")
    counting = {
        file.relative_to(root).as_posix()
        for room in rooms
        for file in (root / room).rglob("*.py")
        if any(way in file.read_text() for way in ways)
    }
    assert counting == {"common/cpus.py"}
