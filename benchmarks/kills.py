"""Kill an extraction at random moments and compare the resumed store with an uninterrupted one.

Usage: ``python benchmarks/kills.py TABLE AUDIO_ROOT ENCODER OUT [KILLS]``. A third of the kills
come at any moment of a run, a third once the writer is at work, and a third inside a commit: as
soon as a half-written shard is seen, or up to 0.5 ms later. After every ``kill -9`` the store must
open, ``spk-store verify`` must be clean, no committed row may be missing and each must equal the
uninterrupted run's; at the end both hold the same rows and rejected segments.

A resumed run cuts what is left into other batches, and kernels add up in another order there, so
values are compared twice: to the last bit, and relative to the length of the vector.
"""

import argparse
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from spk.extract import FeatureStore
from spk.extract.verify import relative_difference

MOMENTS = ("any", "working", "commit")
SAME = 1e-3  # relative; float16 keeps 11 bits (4.9e-4 of each value)
DONE = (0, 3)  # exit codes: all done, and done with some segments rejected
LONGEST = 600.0  # s to wait for the moment of a kill


def command(table: str, store: Path, root: str, encoder: str) -> list[str]:
    """Return the extraction as a user types it."""
    # Small batches: many moments between commits and between batches.
    options = ["--audio-root", root, "--encoder", encoder, "--batch-seconds", "20"]
    return ["spk-extract", table, str(store), *options]


def finish(words: list[str]) -> None:
    """Run an extraction to its end, or stop with what it says."""
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode not in DONE:
        sys.exit(done.stdout + done.stderr)


def half_written(store: Path, pid: int) -> bool:
    """Tell whether a commit of this process has begun and has not ended."""
    try:
        names = [file.name for file in (store / "shards").iterdir()]
    except FileNotFoundError:
        return False
    return any(name.startswith(f".writing-{pid}-") for name in names)


def at_work(store: Path, pid: int) -> bool:
    """Tell whether this process holds the lock."""
    try:
        return f'"pid": {pid},' in (store / "lock").read_text()
    except FileNotFoundError:
        return False


def wait_for(moment: str, store: Path, run: subprocess.Popen, whole: float, rng: random.Random):
    """Return when the kill is due, or the run is over."""
    if moment == "any":
        time.sleep(rng.uniform(0.0, 1.0) * whole)
        return
    reached = {"working": at_work, "commit": half_written}[moment]
    limit = time.perf_counter() + LONGEST
    while not reached(store, run.pid) and run.poll() is None and time.perf_counter() < limit:
        pass  # asleep it would miss a commit, which takes some milliseconds
    time.sleep(rng.uniform(0.0, 0.0005 if moment == "commit" else 0.3 * whole))


def differences(store: FeatureStore, reference: FeatureStore) -> tuple[int, int]:
    """Return how many rows differ in any bit, and how many by more than `SAME` or in identity."""
    ids = store.ids().tolist()
    if not ids:
        return 0, 0
    order = [{name: i for i, name in enumerate(reference.ids().tolist())}[name] for name in ids]
    whole = reference.rows()
    columns = [values != whole[name][order] for name, values in store.rows().items()]
    bits = wrong = np.any(columns, axis=0)
    for layer in store.layers:
        found, expected = store.read(ids, layer), reference.read(ids, layer)
        bits = bits | (found != expected).any(axis=1)
        far = [relative_difference(*pair) > SAME for pair in zip(found, expected, strict=True)]
        wrong = wrong | np.array(far)
    return int(bits.sum()), int(wrong.sum())


def killed(words: list[str], moment: str, store: Path, whole: float, rng: random.Random) -> Counter:
    """Start an extraction and kill it at a moment; return what kind of kill it was."""
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(moment, store, run, whole, rng)
    ended = run.poll() is not None
    run.kill()
    run.wait()
    torn = half_written(store, run.pid)
    return Counter({"after the end": int(ended), "inside a commit": int(torn)})


def main(table: str, root: str, encoder: str, out: str, kills: str = "21") -> None:
    """Run, kill, look; print one row per kill and the sum."""
    folder = Path(out)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    finish(command(table, folder / "whole", root, encoder))
    whole = time.perf_counter() - started
    reference = FeatureStore.open(folder / "whole")
    print(f"uninterrupted: {len(reference)} rows in {whole:.1f} s")
    rng, store, rows, sums = random.Random(0), folder / "killed", 0, Counter()
    for kill in range(int(kills)):
        moment = MOMENTS[kill % len(MOMENTS)]
        kind = killed(command(table, store, root, encoder), moment, store, whole, rng)
        sums.update(kind)
        if not (store / "store.json").exists():
            print(f"kill {kill} ({moment}): no store yet", flush=True)
            continue
        subprocess.run(["spk-store", "verify", str(store)], check=True, capture_output=True)
        found = FeatureStore.open(store)
        _, wrong = differences(found, reference)
        sums["wrong rows"] += wrong
        if len(found) < rows:
            sys.exit(f"kill {kill}: {rows - len(found)} committed rows are lost")
        what = f"{len(found)} rows (+{len(found) - rows})"
        print(
            f"kill {kill} ({moment}{', torn' * kind['inside a commit']}): {what}, {wrong} wrong",
            flush=True,
        )
        rows = len(found)
        if rows == len(reference):  # begin anew, so that every kill has something to hit
            store, rows = folder / f"killed-{kill}", 0
    finish(command(table, store, root, encoder))
    last = FeatureStore.open(store)
    sums["rows of other bits at the end"], wrong = differences(last, reference)
    equal = {*last.ids()} == {*reference.ids()} and not wrong and not sums["wrong rows"]
    equal = equal and sorted(map(str, last.rejected())) == sorted(map(str, reference.rejected()))
    print(f"{kills} kills: {dict(sums)}; the resumed store equals the other: {equal}")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill an extraction at random moments.")
    for name in ("table", "root", "encoder", "out"):
        parser.add_argument(name)
    parser.add_argument("kills", nargs="?", default="21")
    main(**vars(parser.parse_args()))
