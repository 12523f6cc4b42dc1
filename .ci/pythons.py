"""Which Pythons will do: one that is too old is told before anything is downloaded.

    python .ci/pythons.py check PYTHON .venv "test"   # run by PYTHON: the environment, the goals
    python .ci/pythons.py find 3.12                   # the command of a Python 3.12, or nothing
    python .ci/pythons.py list                        # all versions that are promised

Runs on every Python from 3.6 on, so that an old one can say that it is old.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEWEST = (3, 14)  # the last that `make test-pythons` asks for
TESTED = (3, 13)  # the last that all tests were seen to pass on, and setup.py claims


def floor():
    """Return (major, minor) of the oldest Python that `setup.py` accepts."""
    with open(os.path.join(ROOT, "setup.py"), encoding="utf-8") as file:
        match = re.search(r'python_requires=">=(\d+)\.(\d+)"', file.read())
    return int(match.group(1)), int(match.group(2))


def versions():
    """Return all (major, minor) from the floor to the newest, ascending."""
    major, minor = floor()
    return [(major, number) for number in range(minor, NEWEST[1] + 1)]


def name_of(version):
    """Return a (major, minor) as people write it."""
    return ".".join(map(str, version))


def version_of(python):
    """Return (major, minor) of a command that is a Python with `venv`, else None."""
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    try:
        said = subprocess.run(
            [python, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        ).stdout
        major, minor = said.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def find(version):
    """Return the command of a Python of that (major, minor), or "": on the PATH, or pyenv's."""
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    pattern = os.path.join(root, "versions", f"{name_of(version)}.*", "bin", "python")
    for python in [f"python{name_of(version)}", *sorted(glob.glob(pattern))]:
        if shutil.which(python) and version_of(python) == version:
            return python
    return ""


def check(python, folder, goals):
    """Return why `python`, which runs this, cannot serve in the environment `folder`, or ""."""
    own = tuple(sys.version_info[:2])
    make = " ".join(["make", *goals.split()])
    problem = f"{python} is Python {name_of(own)}, expected"
    if own < floor():
        newer = next(filter(None, map(find, reversed(versions()))), "")
        repair = f"run {make} PYTHON={newer}" if newer else "install one and name it as PYTHON"
        return f"{problem} {name_of(floor())} or newer; {repair}"
    made = version_of(os.path.join(folder, "bin", "python"))
    if made not in (None, own):
        beside = f".venv-{name_of(own)}"
        repair = f"run {make} PYTHON={python} VENV={beside}"
        return f"{problem} {name_of(made)}, of which {folder} is; {repair}"
    return ""


def main():
    """Answer `check` by an exit code and one line, `find` and `list` by a line."""
    if sys.argv[1] == "find":
        major, minor = sys.argv[2].split(".")
        print(find((int(major), int(minor))))
    elif sys.argv[1] == "list":
        print(*map(name_of, versions()))
    else:
        problem = check(*sys.argv[2:])
        if problem:
            sys.exit(problem)


if __name__ == "__main__":
    main()
