"""Files that are whole or absent, and what killed writers have left beside them."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from spk.common import files
from spk.common.errors import InputError
from spk.common.files import atomic_write

KILLED = """
import os, sys
from spk.common import files as whole
whole.os.replace = lambda *_: os.kill(os.getpid(), 9)
whole.atomic_write_bytes(__import__("pathlib").Path(sys.argv[1]), b"new")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    assert path.read_bytes() == b"old"
    atomic_write(path, b"newer")
    assert names(tmp_path) == ["a.csv"]
    assert path.read_bytes() == b"newer"


def test_a_living_writers_file_and_those_of_other_names_are_left(tmp_path):
    living, other = tmp_path / ".a.csv.part-12345678", tmp_path / ".b.csv.part-12345678"
    other.touch()
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        atomic_write(tmp_path / "a.csv", b"new")
    assert names(tmp_path) == [living.name, other.name, "a.csv"]


def test_a_file_taken_away_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    taken = []

    def lock(file, how):
        if how == fcntl.LOCK_EX and not taken:
            taken.extend(tmp_path.glob(".a.csv.*"))
            taken[0].unlink()

    monkeypatch.setattr(fcntl, "flock", lock)
    atomic_write(tmp_path / "a.csv", b"new")
    assert taken
    assert names(tmp_path) == ["a.csv"]


def test_disks_without_locks_are_written_to(tmp_path, monkeypatch):
    def lock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", lock)
    (tmp_path / ".a.csv.part-12345678").touch()  # nobody knows whose it is
    atomic_write(tmp_path / "a.csv", b"new")
    assert names(tmp_path) == [".a.csv.part-12345678", "a.csv"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_rights_that_the_user_gives_new_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        atomic_write(tmp_path / "a.csv", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o666 & ~mask


def folder(path, content):
    path.mkdir()
    (path / "a").write_text(content)
    return path


@pytest.mark.parametrize("system", ["exchanges", "does not"])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, system):
    if system == "does not":
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    files.replace_folder(folder(tmp_path / "draft", "new"), folder(tmp_path / "there", "old"))
    assert names(tmp_path) == ["there"]
    assert (tmp_path / "there" / "a").read_text() == "new"
    files.replace_folder(folder(tmp_path / "draft", "newer"), tmp_path / "absent")
    assert (tmp_path / "absent" / "a").read_text() == "newer"


def test_a_folder_that_cannot_be_renamed_is_there_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    draft, there = folder(tmp_path / "draft", "new"), folder(tmp_path / "there", "old")
    rename = os.rename

    def refused(old, new):
        if old == draft:
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(InputError, match="No space left"):
        files.replace_folder(draft, there)
    assert (there / "a").read_text() == "old"


def test_a_users_file_that_looks_like_a_leftover_stays(tmp_path):
    (tmp_path / ".a.csv.original").write_text("mine")
    atomic_write(tmp_path / "a.csv", b"new")
    assert (tmp_path / ".a.csv.original").read_text() == "mine"
