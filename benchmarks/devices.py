"""Extraction on several devices of one machine, beside another version of spk in one run.

Usage: ``python benchmarks/devices.py OUT.csv [--other FOLDER] [options]``; FOLDER is the root of
another checkout, such as ``git archive REVISION | tar -x -C FOLDER`` leaves it.

Each run is the command as a user types it, on recordings of noise and a random encoder, into a
fresh store, with ``--device cpu,cpu`` unless ``--device`` says otherwise. Sides take turns:
``other``, and ``this`` with units of each of ``--unit-seconds`` (0: as the product has it).
``wall`` and ``cpu`` (of all processes) are s of the whole command, ``encode`` those between the
start of the processes and the last commit, as the command tells them. Ratios to the first side are
of each turn; their median is printed.
"""

import argparse
import csv
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from encoders import write_encoder
from extract_corpus import write_corpus
from extract_sides import SIZES

from spk.manifests.table import check_table, write_table

COLUMNS = ("turn", "side", "device", "segments", "shards", "wall", "cpu", "encode", "load")
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))  # before an installed spk
if (seconds := float(sys.argv.pop(1))):
    from spk.extract.pipeline import multi_device
    multi_device.UNIT_SECONDS = multi_device.LEAST_SECONDS = seconds
from spk.extract.cli import main
main()
"""


def extract(root: Path, work: Path, unit_seconds: float, device: str) -> dict[str, float]:
    """Extract once with the spk of `root`; return what a row says of it."""
    path = work / "path"
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(work / "store", ignore_errors=True)
    path.mkdir()
    (path / "spk").symlink_to(root.resolve())
    words = [str(path), str(unit_seconds), "table.csv", "store", "--audio-root", "."]
    words += ["--encoder", "encoder", "--device", device]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    speed = float(re.search(r"([\d.]+) times real time", done.stdout)[1])
    shards = len(list((work / "store" / "shards").glob("0*.h5")))
    return {"shards": shards, "wall": round(wall, 2), "cpu": round(cpu, 2), "encode": speed}


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="CSV; written anew")
    parser.add_argument("--other", type=Path, help="root of another checkout")
    parser.add_argument("--device", default="cpu,cpu")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--segments", type=int, default=600)
    parser.add_argument("--unit-seconds", type=float, nargs="+", default=[0])
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    """Run all sides by turns; print and write each row as it is made, then the ratios."""
    args, here = parse(), Path(__file__).resolve().parents[1]
    work = Path(tempfile.mkdtemp(prefix="devices-"))
    lengths = np.random.default_rng(0).uniform(1.0, 9.0, args.segments).round(2)
    corpus = argparse.Namespace(channels=1, format="flac")
    table = check_table(write_corpus(work, lengths, corpus))
    write_table(table, work / "table.csv")
    kind, shape = SIZES[args.size]
    write_encoder(work / "encoder", kind, **shape)
    sides = {f"this, units of {s:g} s" if s else "this": (here, s) for s in args.unit_seconds}
    sides = {"other": (args.other, 0.0), **sides} if args.other else sides
    rows = []
    with args.out.open("w", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        sheet.writeheader()
        for turn in range(args.repeat):
            for side, (root, unit_seconds) in sides.items():
                load = round(os.getloadavg()[0], 2)
                row = extract(root, work, unit_seconds, args.device)
                row["encode"] = round(float(lengths.sum()) / row["encode"], 2)
                row |= {"turn": turn, "side": side, "device": args.device, "load": load}
                rows.append(row | {"segments": args.segments})
                print(rows[-1], flush=True)
                sheet.writerow(rows[-1])
                file.flush()
    shutil.rmtree(work)
    first, *others = sides
    for side in others:
        pairs = zip(*([r for r in rows if r["side"] == s] for s in (side, first)), strict=True)
        turns = [{name: a[name] / b[name] for name in ("wall", "cpu", "encode")} for a, b in pairs]
        middle = {name: round(median(t[name] for t in turns), 3) for name in turns[0]}
        print(f"{side} / {first}: {middle}")


if __name__ == "__main__":
    main()
