"""The whole way on real voices, command by command: untrained encoders, two splits.

Usage: ``python benchmarks/meetings.py MEETINGS OUT``. MEETINGS holds ``wav`` and ``TextGrid``.
Writes ``OUT/meetings.csv``: a row per encoder, split and classifier with the accuracy at the layer
that validation chose and its 95 % interval; how many seconds of audio were encoded per second; the
size of the store. The copy under ``benchmarks/results`` is our own run.
"""

import argparse
import csv
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from encoders import KINDS, write_encoder

CLASSIFIERS = ("centroid", "ridge", "lda", "logistic", "linear-svm", "lightgbm")
SPLITS = {"chronological": (), "random": ("--valid-share", "0.2")}


def run(*words: object) -> str:
    """Run a command as a user types it; return what it printed."""
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def tables(meetings: Path, out: Path) -> dict[str, Path]:
    """Make the segment table and its splits."""
    print(run("spk-manifests", "rttm", meetings, out / "turns.csv", "--audio-root", meetings))
    chosen = ("spk-manifests", "select", out / "turns.csv", out / "segments.csv")
    print(run(*chosen, "--min-seconds", "1.5"))
    found = {}
    for method, options in SPLITS.items():
        found[method] = out / f"{method}.csv"
        split = ("spk-manifests", "split", out / "segments.csv", found[method])
        print(run(*split, "--method", method, *options))
        print(run("spk-manifests", "leaks", found[method]).splitlines()[-1])
    return found


def scored(table: Path, store: Path, out: Path, classifier: str) -> dict[str, object]:
    """Sweep one classifier over all layers; return its test accuracy with the interval."""
    started = time.perf_counter()
    run("spk-classify", "sweep", table, store, out, "--classifiers", classifier)
    seconds = time.perf_counter() - started
    chosen = pd.read_csv(out / "sweep.csv").query("chosen == 'yes'").iloc[0]
    shares = ("valid_accuracy", "test_accuracy", "test_low", "test_high")
    found = {"layers": int(chosen["layers"]), **{name: f"{chosen[name]:.3f}" for name in shares}}
    return {**found, "sweep_seconds": f"{seconds:.1f}"}


def main(meetings: Path, out: Path) -> None:
    """Run everything and write the rows."""
    out.mkdir(parents=True, exist_ok=True)
    split_tables = tables(meetings, out)
    rows = []
    for kind in (*KINDS, "demo"):
        store = out / f"features-{kind}"
        encoder = "demo" if kind == "demo" else write_encoder(out / f"encoder-{kind}", kind)
        extract = ("spk-extract", split_tables["chronological"], store, "--audio-root", meetings)
        told = run(*extract, "--encoder", encoder, "--verify", "32")
        print(told)
        speed = re.search(r"([\d.]+) times real time", told)
        size = sum(file.stat().st_size for file in store.rglob("*.h5"))
        for method, table in split_tables.items():
            for classifier in CLASSIFIERS:
                found = scored(table, store, out / f"{kind}-{method}-{classifier}", classifier)
                row = {"encoder": kind, "split": method, "classifier": classifier, **found}
                row |= {"times_real_time": speed and speed[1], "store_bytes": size}
                print(row, flush=True)
                rows.append(row)
    with (out / "meetings.csv").open("w", newline="") as file:
        sheet = csv.DictWriter(file, rows[0], lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(rows)
    print(out / "meetings.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The whole way on real voices.")
    parser.add_argument("meetings", type=Path)
    parser.add_argument("out", type=Path)
    main(**vars(parser.parse_args()))
