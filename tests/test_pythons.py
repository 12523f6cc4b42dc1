"""A Python that is too old is told by `make` before any download; others are looked for."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKE = shutil.which("make")
MADE_OF = ("__init__.py", "setup.py", "pyproject.toml", "constraints.txt")
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"

spec = importlib.util.spec_from_file_location("pythons", ROOT / ".ci" / "pythons.py")
pythons = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pythons)


@pytest.fixture
def tree(tmp_path):
    """Return a checkout's files that `make` reads, and a folder of commands of its own."""
    for name in ("Makefile", *MADE_OF):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "bin").mkdir()
    for name in ("sh", "cat", "cmp", "mkdir", "ln"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return tmp_path


def imitate(tree, name, version):
    """Make a command that is this Python, and says that it is of another version."""
    major, minor = version.split(".")
    site = tree / f"site-{name}"
    site.mkdir()
    told = f"import sys; sys.version_info = ({major}, {minor}, 0, 'final', 0)\n"
    (site / "sitecustomize.py").write_text(told)
    command = tree / "bin" / name
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    command.chmod(0o755)


def make(tree, *words):
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ},
        "PATH": str(tree / "bin"),  # no Python of the machine's own
        "PYENV_ROOT": str(tree / "none"),
    }
    command = [MAKE, *words]
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def test_the_floor_is_one_everywhere():
    floor = pythons.name_of(pythons.floor())
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["mypy"]["python_version"] == floor
    assert settings["ruff"]["target-version"] == f"py{floor.replace('.', '')}"
    named = re.findall(r'Python :: (3\.\d+)"', (ROOT / "setup.py").read_text())
    tested = [version for version in pythons.versions() if version <= pythons.TESTED]
    assert named == [pythons.name_of(version) for version in tested]
    assert f"Python {floor} or newer" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.skipif(MAKE is None, reason="no make on this machine")
@pytest.mark.parametrize(("version", "goals"), [("3.10", ("test",)), ("3.8", ("lint", "package"))])
def test_a_python_that_is_too_old_is_one_line_with_a_repair_that_works(tree, version, goals):
    imitate(tree, "old", version)
    imitate(tree, "python3.12", "3.12")
    done = make(tree, *goals, "PYTHON=old")
    assert done.returncode
    expected = (
        f"old is Python {version}, expected 3.11 or newer; run make {' '.join(goals)} PYTHON="
    )
    told = done.stderr.splitlines()[0]
    assert told.startswith(expected)
    assert not (tree / ".venv").exists()
    newer = told.removeprefix(expected)
    assert make(tree, "python", f"PYTHON={newer}").returncode == 0


@pytest.mark.skipif(MAKE is None, reason="no make on this machine")
def test_without_a_newer_python_one_is_to_be_installed(tree, monkeypatch):
    monkeypatch.setattr(pythons, "find", lambda version: "")
    monkeypatch.setattr(pythons.sys, "version_info", (3, 10, 0))
    told = pythons.check("python3", str(tree / ".venv"), "test")
    assert told == (
        "python3 is Python 3.10, expected 3.11 or newer; install one and name it as PYTHON"
    )


def test_an_environment_of_another_python_is_not_taken_for_this_one(tree, monkeypatch):
    monkeypatch.setattr(pythons, "version_of", lambda python: (3, 19))
    told = pythons.check("python3", ".venv", "test")
    assert told == (
        f"python3 is Python {OWN}, expected 3.19, of which .venv is; "
        f"run make test PYTHON=python3 VENV=.venv-{OWN}"
    )


@pytest.mark.skipif(MAKE is None, reason="no make on this machine")
def test_an_environment_is_made_anew_only_where_what_it_is_made_of_has_changed(tree):
    imitate(tree, "python3", OWN)
    venv = tree / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "ready").write_bytes(b"".join((tree / name).read_bytes() for name in MADE_OF))
    os.utime(venv / "ready", (0, 0))  # older than all of them
    done = make(tree, ".venv/ready")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (tree / "constraints.txt").write_text("changed\n")
    os.utime(venv / "ready", (0, 0))
    imitate(tree, "false-python", OWN)
    (tree / "bin" / "false-python").write_text("#!/bin/sh\n[ $1 != -m ]\n")
    assert make(tree, ".venv/ready", "PYTHON=false-python").returncode != 0  # it would be made


@pytest.mark.skipif(MAKE is None, reason="no make on this machine")
def test_tests_run_on_every_python_there_is_and_fail_if_one_does(tree):
    imitate(tree, "python3", OWN)
    for version in ("3.12", "3.13"):
        imitate(tree, f"python{version}", version)
    done = make(tree, "test-pythons", "TEST=python")
    found = re.findall(r"^Python (3\.\d+): (.*)$", done.stdout, re.MULTILINE)
    assert [version for version, _ in found] == [pythons.name_of(v) for v in pythons.versions()]
    assert dict(found)["3.12"] == "python3.12"
    assert dict(found)["3.14"] == "not on this machine, skipped"
    assert done.returncode == 0
    done = make(tree, "test-pythons", "TEST=no-such-goal")
    assert done.returncode
    assert "tests failed on Python" in done.stderr
    assert "3.12 3.13" in done.stderr
