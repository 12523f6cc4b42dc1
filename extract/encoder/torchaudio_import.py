"""Import torchaudio even if its compiled files do not fit the installed torch.

The Linux wheel of torchaudio 2.11 links CUDA libraries: with a CPU build of torch its import fails,
and so does that of every audio model of transformers. spk only calls functions of torchaudio that
are pure Python (`functional.speed`, `functional.add_noise`). So if the import fails, it is repeated
with a stand-in for the module that loads the compiled files, `torchaudio._extension`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from ...common.errors import InputError

EXTENSION = "torchaudio._extension"
FAILURES = (ImportError, OSError, RuntimeError)  # absent; a missing library; another CUDA


class _NotCompiled(ModuleType):
    """Tell torchaudio that nothing compiled is there, as a build without it does."""

    def __getattr__(self, name: str) -> Any:
        """Return False for any flag, and a decorator for ``fail_if_no_*``."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _as_it_is if name.startswith("fail_if_no") else False


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def import_torchaudio() -> ModuleType:
    """Return torchaudio, with or without its compiled files.

    Raises
    ------
    InputError
        It is not installed, or fails for a reason other than its compiled files.
    """
    try:
        return import_module("torchaudio")
    except ModuleNotFoundError:
        raise InputError(
            "torchaudio: is not installed, expected it for speed and noise; run "
            '`pip install "spk-toolkit[finetune]"`'
        ) from None
    except FAILURES:
        return _without_compiled_files()


def _without_compiled_files() -> ModuleType:
    stood_in = sys.modules.setdefault(EXTENSION, _NotCompiled(EXTENSION))
    try:
        return import_module("torchaudio")
    except FAILURES as problem:
        if sys.modules.get(EXTENSION) is stood_in:
            del sys.modules[EXTENSION]
        raise InputError(
            f"torchaudio: import fails ({str(problem).splitlines()[0]}), expected one that fits "
            "torch; install such a build"
        ) from problem
