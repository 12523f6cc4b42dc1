"""Shared by the fault scripts: a small corpus, stores of it, a command run in this process."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
from click.testing import CliRunner

from spk.extract.store.reader import FeatureStore
from spk.manifests.table import read_table, write_table

ENCODER = "--encoder demo --layers 0,2,5 --workers 0"
ALONE = "--batch-seconds 0.1"  # each segment a batch of its own: the same bits in every run


class Told(NamedTuple):
    """The result of a command; `trace` is its traceback, if any."""

    code: int
    out: str
    err: str
    trace: str

    @property
    def clear(self) -> bool:
        """Whether the command succeeded, or reported its problem in one line."""
        lines = self.err.strip().count("\n") + bool(self.err.strip())
        return not self.trace and (self.code in (0, 3, 4) or lines == 1)


def typed(line: str) -> Told:
    """Run a command line in this process."""
    from spk.classify.cli import main as classify
    from spk.extract.cli import main as extract
    from spk.extract.store.cli import store
    from spk.manifests.cli import main as manifests

    commands = {"spk-manifests": manifests, "spk-extract": extract}
    commands |= {"spk-store": store, "spk-classify": classify}
    name, *words = line.split()
    if name == "spk-finetune":
        from spk.finetune.cli import main as finetune

        commands[name] = finetune
    done = CliRunner().invoke(commands[name], words)
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    trace = "" if ended else "".join(traceback.format_exception(done.exception))
    return Told(done.exit_code, done.stdout, done.stderr, trace)


def must(line: str) -> Told:
    """Run a command line that has no reason to fail."""
    done = typed(line)
    if done.trace or done.code not in (0, 3):
        raise RuntimeError(f"{line}: {done.code} {done.err} {done.trace}")
    return done


@dataclass(frozen=True)
class Corpus:
    """Two short meetings on disk, their table, and the command that extracts their features."""

    folder: Path
    table: Path

    def extract(self, store: Path, more: str = "") -> str:
        """Return the command that extracts to `store`."""
        return (
            f"spk-extract {self.table} {store} --audio-root {self.folder}/wav {ENCODER} {ALONE} "
            + more
        ).strip()


def make_corpus(folder: Path, sessions: int = 2) -> Corpus:
    """Make a corpus with one rejected segment and a split."""
    table = folder / "table.csv"
    must(f"spk-manifests demo {folder} --sessions {sessions} --minutes 1 --speakers 3 --channels 1")
    must(f"spk-manifests textgrid {folder}/TextGrid {folder}/turns.csv --audio-root {folder}/wav")
    must(
        f"spk-manifests split {folder}/turns.csv {table} --gap 0 --test-share 0.3 --valid-share 0.3"
    )
    rows = read_table(table)
    soundfile.write(folder / "wav" / "silent.wav", np.zeros(16000), 16000)
    silent = rows.tail(1).assign(segment_id="silent", audio="silent.wav", start=0.0, end=0.5)
    write_table(pd.concat([rows, silent], ignore_index=True), table)
    return Corpus(folder, table)


def contents(path: Path) -> dict[str, tuple[bytes, ...]]:
    """Return everything that a store has for each segment, checked, as bytes; rejections too."""
    store = FeatureStore.open(path)
    rows = store.rows()
    found: dict[str, tuple[bytes, ...]] = {
        row["segment_id"]: (row["code"].encode(), row["message"].encode())
        for row in store.rejected()
    }
    for place, name in enumerate(rows["segment_id"].tolist()):
        columns = [values[place].tobytes() for key, values in rows.items() if key != "segment_id"]
        found[name] = (*columns, *(one_layer(store, name, layer) for layer in store.layers))
    return found


def one_layer(store: FeatureStore, name: str, layer: int) -> bytes:
    """Return the features of a segment at a layer as bytes."""
    if store.kind == "frames":
        return store.read_frames(name, layer).tobytes()
    return store.read([name], layer).tobytes()


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield an empty folder, in memory if possible, as files are synced to disk."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Yield the folder of a disk of `size` bytes.

    Raises
    ------
    PermissionError
        Mounting is not permitted here.
    """
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={-(-size // 4096) * 4096}", "tmpfs", folder]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        folder.rmdir()
        raise PermissionError(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
        folder.rmdir()


def remount(folder: Path, how: str) -> None:
    """Make a small disk read-only (ro) or writable (rw)."""
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def side_by_side(lines: list[str], delays: list[float]) -> list[Told]:
    """Run commands at the same time, each in a fork of this process; return their results."""
    context = get_context("fork")
    pipes, workers = [], []
    for line, delay in zip(lines, delays, strict=True):
        ours, theirs = context.Pipe(duplex=False)
        workers.append(context.Process(target=_typed_later, args=(line, delay, theirs)))
        start(workers[-1])
        theirs.close()
        pipes.append(ours)
    found = [pipe.recv() for pipe in pipes]
    for worker in workers:
        worker.join()
    return found


def start(process: BaseProcess) -> None:
    """Start a forked process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about the threads of libraries
        process.start()


def _typed_later(line: str, delay: float, pipe: object) -> None:
    time.sleep(delay)
    pipe.send(typed(line))
    sys.stdout.flush()
    os._exit(0)
