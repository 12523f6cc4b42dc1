"""Kill an extraction at random moments and compare the resumed store with an uninterrupted one.

Usage: ``python benchmarks/kills.py TABLE AUDIO_ROOT ENCODER OUT [KILLS]``. After every ``kill -9``
the store must open, ``spk-store verify`` must be clean, and every committed row must equal the
uninterrupted run's to the last bit; at the end both hold the same rows.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from spk.extract import FeatureStore

COMMIT_NOTE = "commits are at least 256 rows or what a minute gave"


def command(table: str, store: Path, root: str, encoder: str) -> list[str]:
    """Return the extraction as a user types it."""
    # Small batches: many moments between commits and between batches.
    options = ["--audio-root", root, "--encoder", encoder, "--batch-seconds", "20"]
    return ["spk-extract", table, str(store), *options]


def lost_or_changed(store: Path, reference: FeatureStore) -> int:
    """Return how many rows of a store differ from the reference in any bit."""
    found = FeatureStore.open(store)
    ids = found.ids()
    if not len(ids):
        return 0
    same = np.ones(len(ids), dtype=bool)
    for layer in found.layers:
        same &= (found.read(ids, layer) == reference.read(ids, layer)).all(axis=1)
    return int((~same).sum())


def main(table: str, root: str, encoder: str, out: str, kills: str = "20") -> None:
    """Run, kill, look; print one row per kill and the sum."""
    folder = Path(out)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    subprocess.run(command(table, folder / "whole", root, encoder), check=True, capture_output=True)
    whole = time.perf_counter() - started
    reference = FeatureStore.open(folder / "whole")
    rng, store = random.Random(0), folder / "killed"
    print(f"uninterrupted: {len(reference.ids())} rows in {whole:.1f} s; {COMMIT_NOTE}")
    rows = wrong = finished = 0
    for kill in range(int(kills)):
        process = subprocess.Popen(command(table, store, root, encoder), stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.2) * whole)
        finished += process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (store / "store.json").exists():
            print(f"kill {kill}: no store yet")
            continue
        subprocess.run(["spk-store", "verify", str(store)], check=True, capture_output=True)
        wrong += lost_or_changed(store, reference)
        held = len(FeatureStore.open(store).ids())
        print(f"kill {kill}: {held} rows (+{held - rows}), {wrong} wrong so far", flush=True)
        if held < rows:
            sys.exit(f"kill {kill}: {rows - held} committed rows are lost")
        rows = held
        if rows == len(reference.ids()):  # begin anew, so that every kill has something to hit
            store, rows = folder / f"killed-{kill}", 0
    subprocess.run(command(table, store, root, encoder), check=True, capture_output=True)
    equal = sorted(FeatureStore.open(store).ids()) == sorted(reference.ids())
    wrong += lost_or_changed(store, reference)
    print(f"{kills} kills ({finished} came after the end): {wrong} wrong rows; resumed: {equal}")
    sys.exit(0 if equal and not wrong else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
