"""Run a command beside this process: as a fork of it, or as a separate process.

A fork starts with what `preload` has imported, so it takes a fraction of a second, while a separate
process takes seconds to import torch. It has its own session, like a command started by a shell.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

ENTRIES = {  # of the installed commands
    "spk-manifests": ("spk.manifests.cli", "main"),
    "spk-extract": ("spk.extract.cli", "main"),
    "spk-store": ("spk.extract.store.cli", "store"),
    "spk-classify": ("spk.classify.cli", "main"),
    "spk-finetune": ("spk.finetune.cli", "main"),
}
HEAVY = (
    *("torch", "transformers", "lightning.pytorch", "sklearn.linear_model", "matplotlib.figure"),
    *(
        "spk.extract.run",
        "spk.extract.encoder.encoder",
        "spk.extract.store.maintenance",
        "spk.manifests.cutting.cut",
    ),
    *(
        "spk.classify.experiment",
        "spk.classify.output",
        "spk.finetune.run",
        "spk.finetune.training.train_session",
    ),
)
LONGEST = 300.0  # s that a command may take; most take seconds


def preload() -> None:
    """Import what the commands need, without computing: forks would share the threads.

    Raises
    ------
    SystemExit
        Linear algebra would start threads, which forks do not keep.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS: is not 1, expected 1, since forks keep no threads; set it")
    for name in [*HEAVY, *(module for module, _ in ENTRIES.values())]:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


class Started:
    """A running command.

    Parameters
    ----------
    words : the command and its arguments
    folder : where it is typed
    log : file for what it prints; standard error goes to LOG.err
    real : a process of its own instead of a fork
    before : called in the fork first
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        log: Path,
        *,
        real: bool = False,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.log, self._code = log, None
        self.pid = _real(words, folder, log) if real else os.fork()
        if self.pid == 0:
            _be(words, folder, log, before)

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or, like a terminal, to all processes that it started."""
        if self.code is None:
            try:
                (os.killpg if group else os.kill)(self.pid, number)
            except ProcessLookupError:  # it has not created its session yet
                os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for the end and return the exit code; one that hangs is killed and reported."""
        limit = time.perf_counter() + LONGEST
        while self.code is None:
            time.sleep(0.002)
            if time.perf_counter() > limit:
                self.send(signal.SIGKILL, group=True)
                raise TimeoutError(f"{self.log}: took more than {LONGEST:.0f} s")
        return int(self.code)

    def sweep_up(self) -> None:
        """Kill processes that it started and left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def told(self) -> str:
        """Return what it has printed to standard error."""
        return Path(f"{self.log}.err").read_text(errors="replace")


def _real(words: Sequence[str], folder: Path, log: Path) -> int:
    module, name = ENTRIES[words[0]]
    code = f"import sys; from {module} import {name}; sys.exit({name}())"
    with log.open("wb") as out, Path(f"{log}.err").open("wb") as err:
        started = subprocess.Popen(
            [sys.executable, "-c", code, *words[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    started.returncode = 0  # we wait for it ourselves
    return started.pid


def _be(
    words: Sequence[str], folder: Path, log: Path, before: Callable[[], None] | None
) -> NoReturn:
    """Become the command, like its installed script, and exit as the interpreter does."""
    code = 1
    try:
        os.setsid()
        for path, number in ((log, 1), (Path(f"{log}.err"), 2)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
            os.close(handle)
        os.chdir(folder)
        sys.argv = list(words)
        if before is not None:
            before()
        module, name = ENTRIES[words[0]]
        getattr(importlib.import_module(module), name)()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
