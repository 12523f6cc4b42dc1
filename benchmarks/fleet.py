"""A fleet of fine-tunes on real voices, killed on its way, against frozen features.

Usage: ``python benchmarks/fleet.py MEETINGS OUT [KILLS]``. MEETINGS holds ``wav`` and ``TextGrid``.
The encoder is the small random one of the default's shape (`encoders.py`); the settings are the
preset ``transfer`` with the half of its layers frozen, and rates for an encoder that knows nothing
yet; none of them was chosen on these meetings. One fleet runs undisturbed; another is killed with
``kill -9`` at random moments, must go on each time, and must end with the same bits. The frozen
side is `spk-classify sweep` on the same segments, which chooses layer and classifier on validation.
Writes ``OUT/compare.csv``; the copies under ``benchmarks/results`` are our own run.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from encoders import write_encoder
from meetings import run, tables

from spk.common.counts import counted

SETTINGS = (
    *("--config", "transfer", "--freeze-encoder-layers", "4", "--cache-prefix"),
    *("--learning-rate", "1e-3", "--head-learning-rate", "1e-3", "--accelerator", "cpu"),
)


def fleet(table: Path, meetings: Path, encoder: Path, folder: Path) -> list[str]:
    """Return the fine-tuning as a user types it."""
    words = ["spk-finetune", "fit", str(table), "--audio-root", str(meetings), *SETTINGS]
    return [*words, "--encoder", str(encoder), "--log-dir", str(folder)]


def killed(words: list[str], seconds: float) -> bool:
    """Start a fleet and kill it after so many seconds; tell whether it was still at work."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def progress(folder: Path) -> str:
    """Return how far a fleet is: finished sessions, epochs of the others."""
    finished = len(list(folder.glob("version_*/result.json")))
    histories = list(folder.glob("version_*/metrics.csv"))
    open_ones = [path for path in histories if not (path.parent / "result.json").is_file()]
    epochs = sum(len(pd.read_csv(path)) for path in open_ones)
    return (
        f"{counted(finished, 'session')} finished, {counted(epochs, 'epoch')} of the next one kept"
    )


def unequal(whole: Path, stopped: Path) -> list[str]:
    """Return the files of two fleets that differ in a bit of a model, a score or a history."""
    differing = []
    for path in sorted(whole.glob("version_*/*.csv")):
        tables = [pd.read_csv(root / path.relative_to(whole)) for root in (whole, stopped)]
        first, second = (table.drop(columns="seconds", errors="ignore") for table in tables)
        if not first.equals(second):
            differing.append(str(path.relative_to(whole)))
    for path in sorted(whole.glob("version_*/checkpoints/*-best.ckpt")):
        pair = [root / path.relative_to(whole) for root in (whole, stopped)]
        first, second = (torch.load(file, weights_only=True)["state_dict"] for file in pair)
        same = first.keys() == second.keys()
        if not same or not all(torch.equal(first[name], second[name]) for name in first):
            differing.append(str(path.relative_to(whole)))
    return differing


def main(meetings: Path, out: Path, kills: int) -> None:
    """Run both fleets and the frozen side, and compare."""
    out.mkdir(parents=True)
    table = tables(meetings, out)["chronological"]
    encoder = write_encoder(out / "encoder", "layer")
    extract = ("spk-extract", table, out / "features", "--audio-root", meetings)
    print(run(*extract, "--encoder", encoder))
    print(run("spk-classify", "sweep", table, out / "features", out / "frozen"))
    started = time.perf_counter()
    print(run(*fleet(table, meetings, encoder, out / "whole")))
    whole = time.perf_counter() - started
    print(f"undisturbed: {whole:.0f} s")
    rng, words = random.Random(0), fleet(table, meetings, encoder, out / "killed")
    for kill in range(kills):
        # Each run gets about its share of the whole, so that kills fall all along the way.
        at_work = killed(words, rng.uniform(0.5, 1.2) * whole / kills + 10)
        print(f"kill {kill}{'' if at_work else ' (after the end)'}: {progress(out / 'killed')}")
    print(run(*words))
    differing = unequal(out / "whole", out / "killed")
    print(f"{kills} kills; files that differ from the undisturbed fleet's: {differing or 'none'}")
    sides = (out / "frozen" / "predictions.csv", out / "killed" / "predictions.csv")
    print(run("spk-classify", "compare", *sides, "--output", out / "compare.csv"))
    sys.exit(bool(differing))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fleet killed on its way, against frozen.")
    parser.add_argument("meetings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("kills", type=int, nargs="?", default=4)
    main(**vars(parser.parse_args()))
