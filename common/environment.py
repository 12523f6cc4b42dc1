"""What a bug report needs: facts about the machine and the installed packages.

Each function returns plain values under readable names. Secrets are left out: of the environment,
only `VARIABLES` and ``SPK_...`` are listed, without anything that looks like a password, and the
home folder is written as ``~``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from .cpus import available_cores, machine_cores
from .errors import InputError
from .extras import DISTRIBUTION, EXTRAS, installed_versions, missing_modules
from .locks import lock_file

GIB = 2**30  # bytes
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("HDF5_USE_FILE_LOCKING", "OMP_NUM_THREADS", "RAY_AUTH_MODE"),
)
SECRET = re.compile("token|secret|passw|key|credential", re.IGNORECASE)
LOGIN = re.compile(r"//[^/@\s]+@")  # in an address
NO_DEVELOPER = re.compile(r"extra == ['\"](?:dev|docs)['\"]")


def system() -> dict[str, str]:
    """Return Python, the operating system, the CPUs that may be used, and the memory."""
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}{_distribution()}",
        "cpus": f"{available_cores()} of {machine_cores()} may be used, {_processor()}",
        "memory": _memory(),
    }


def _distribution() -> str:
    try:
        return f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return ""


def _processor() -> str:
    names = re.findall(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return names[0] if names else platform.machine()


def _memory() -> str:
    sizes = dict(re.findall(r"^(MemTotal|MemAvailable):\s*(\d+) kB$", _text("/proc/meminfo"), re.M))
    if len(sizes) < 2:
        return "unknown"
    free, whole = (int(sizes[name]) * 1024 / GIB for name in ("MemAvailable", "MemTotal"))
    return f"{free:.1f} GiB of {whole:.1f} GiB free"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def packages() -> dict[str, str]:
    """Return the version of each package that spk or one of its extras needs."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a checkout
        lines = []
    users = [line for line in lines if not NO_DEVELOPER.search(line)]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in users}
    return installed_versions(sorted(names, key=str.lower))


def extras() -> dict[str, str]:
    """Return for each extra whether it is installed, or what it lacks."""
    missing = {extra: missing_modules(extra) for extra in EXTRAS}
    return {
        name: f"lacks {', '.join(lacks)}" if lacks else "yes" for name, lacks in missing.items()
    }


def devices() -> dict[str, str]:
    """Return the GPUs that torch sees, with their memory; imports torch if it is installed."""
    if "torch" in missing_modules("extract"):
        return {"torch": "not installed"}
    try:
        import torch

        built = f"{torch.__version__}, built for CUDA {torch.version.cuda or '(none)'}"
        cards = {}
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            cards[f"cuda:{number}"] = f"{card.name}, {card.total_memory / GIB:.1f} GiB"
    except Exception as problem:  # an unsuitable driver or library raises many kinds
        return {"torch": f"cannot be used: {type(problem).__name__}: {problem}"}
    return {"torch": built, **(cards or {"cuda": "no GPU"})}


def folder_facts(folder: str | Path) -> dict[str, str]:
    """Return a folder's file system, its free space, and whether a file there can be locked.

    Nothing is left behind.

    Raises
    ------
    InputError
        The folder does not exist.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: is no folder, expected one; name the one you write to")
    whole = Path(folder).resolve()
    return {
        "path": str(whole),
        "file system": _file_system(whole),
        "free": f"{shutil.disk_usage(whole).free / GIB:.1f} GiB",
        "locks": _locks(whole),
    }


def _file_system(folder: Path) -> str:
    """Return the kind of file system, such as ext4 or nfs4; "unknown" if it cannot be found out."""
    kinds = {}
    for line in _text("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kinds[before.split()[4]] = after.split()[0]
    above = [str(place) for place in (folder, *folder.parents)]
    return next((kinds[place] for place in above if place in kinds), "unknown")


def _locks(folder: Path) -> str:
    """Lock a temporary file twice; describe the outcome."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".spk-info-") as file:
            if not lock_file(file.fileno(), wait=False):
                return "do not work: a new file is locked already; pass --no-lock"
            with Path(file.name).open("rb") as again:  # a second handle, which must be refused
                if lock_file(again.fileno(), wait=False):
                    return "do not work: one file is locked twice; pass --no-lock"
    except OSError as problem:
        return f"not tried, or refused: {problem.strerror}"
    return "work"


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that affect how spk runs, without secrets."""
    own = sorted(name for name in environment if name.startswith("SPK_"))
    return {
        name: "(set)" if SECRET.search(name) else LOGIN.sub("//...@", environment[name])
        for name in (*own, *VARIABLES)
        if name in environment
    }


def without_home(value: Any, home: str) -> Any:
    """Return text, or all texts in a dictionary, with the home folder written ``~``.

    >>> without_home({"path": "/home/ann/corpus", "other": "/home/anna"}, "/home/ann")
    {'path': '~/corpus', 'other': '/home/anna'}
    """
    if isinstance(value, dict):
        return {key: without_home(inner, home) for key, inner in value.items()}
    if not isinstance(value, str) or home in ("", "/"):
        return value
    return re.sub(re.escape(home) + r"(?![\w.-])", "~", value)
