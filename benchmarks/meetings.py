"""The whole way on real voices, command by command: a baseline, untrained encoders, two splits.

Usage: ``python benchmarks/meetings.py MEETINGS OUT [--encoders mfcc,demo] [--splits
chronological]``. MEETINGS holds ``wav`` and ``TextGrid``. Writes ``OUT/meetings.csv``: a row per
encoder, split, classifier and refit (yes: what validation chose is fitted again on train and
validation) with the accuracy at the layer that validation chose, its 95 % interval and log-loss;
how many seconds of audio were encoded per second; the size of the store. The copies under
``benchmarks/results`` are our own runs.
"""

import argparse
import csv
import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd
from encoders import KINDS, write_encoder

CLASSIFIERS = ("centroid", "ridge", "lda", "logistic", "linear-svm", "lightgbm")
BUILT_IN = ("mfcc", "demo")
SPLITS = {"chronological": (), "random": ("--valid-share", "0.2")}


def run(*words: object) -> str:
    """Run a command as a user types it; return what it printed."""
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def tables(meetings: Path, out: Path, methods: str) -> dict[str, Path]:
    """Make the segment table and its splits."""
    print(run("spk-manifests", "rttm", meetings, out / "turns.csv", "--audio-root", meetings))
    chosen = ("spk-manifests", "select", out / "turns.csv", out / "segments.csv")
    print(run(*chosen, "--min-seconds", "1.5"))
    paths = {}
    for method in methods.split(","):
        paths[method] = out / f"{method}.csv"
        split = ("spk-manifests", "split", out / "segments.csv", paths[method])
        print(run(*split, "--method", method, *SPLITS[method]))
        print(run("spk-manifests", "leaks", paths[method]).splitlines()[-1])
    return paths


def scored(table: Path, store: Path, out: Path, classifier: str, refit: str) -> dict[str, object]:
    """Sweep one classifier over all layers; return its test accuracy with the interval.

    Of the same sweep the finished trials are kept, so that refitting tries none again.
    """
    option = "--refit" if refit == "yes" else "--no-refit"
    started = time.perf_counter()
    run("spk-classify", "sweep", table, store, out, "--classifiers", classifier, option)
    seconds = time.perf_counter() - started
    chosen = pd.read_csv(out / "sweep.csv").query("chosen == 'yes'").iloc[0]
    shares = ("valid_accuracy", "test_accuracy", "test_low", "test_high")
    row = {"layers": int(chosen["layers"]), **{name: f"{chosen[name]:.3f}" for name in shares}}
    whole = pd.read_csv(out / "metrics.csv").query("stratum == 'all'").set_index("measure")
    row |= {name: f"{whole.loc[name, 'value']:.3f}" for name in ("log_loss", "majority")}
    return {**row, "sweep_seconds": f"{seconds:.1f}"}


def main(meetings: Path, out: Path, encoders: str, splits: str) -> None:
    """Run everything and write the rows."""
    out.mkdir(parents=True, exist_ok=True)
    split_tables = tables(meetings, out, splits)
    rows = []
    for kind in encoders.split(","):
        store = out / f"features-{kind}"
        encoder = kind if kind in BUILT_IN else write_encoder(out / f"encoder-{kind}", kind)
        extract = (
            "spk-extract",
            next(iter(split_tables.values())),
            store,
            "--audio-root",
            meetings,
        )
        output = run(*extract, "--encoder", encoder, "--verify", "32")
        print(output)
        speed = re.search(r"([\d.]+) times real time", output)
        size = sum(file.stat().st_size for file in store.rglob("*.h5"))
        for method, table in split_tables.items():
            for classifier, refit in product(CLASSIFIERS, ("no", "yes")):
                folder = out / f"{kind}-{method}-{classifier}"
                scores = scored(table, store, folder, classifier, refit)
                row = {"encoder": kind, "split": method, "classifier": classifier, "refit": refit}
                row |= scores
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
    parser.add_argument("--splits", default=",".join(SPLITS))
    parser.add_argument("--encoders", default=",".join((*BUILT_IN, *KINDS)))
    main(**vars(parser.parse_args()))
