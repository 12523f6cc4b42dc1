"""Rows a second that one process writes into a store, beside another version of spk in one run.

Usage: ``python benchmarks/writer.py OUT.csv [--other FOLDER] [options]``; FOLDER is the root of
another checkout, such as ``git archive REVISION | tar -x -C FOLDER`` leaves it.

Each side is a process of its own that writes rows of 25 layers x 2048 numbers in blocks of 64, as a
run hands them on, into a fresh store under ``--work``, and is measured from the first row to the
last commit on disk; sides and number formats take turns. ``cpu_us`` is processor time a row, all
threads and the system's part: on a machine shared with others it says more than the wall clock.
Then the parts, each alone in one thread, in microseconds of processor time a row: what binds a
writer. Ratios are of the best turn of each side.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = ("side", "what", "dtype", "turn", "rows_per_s", "cpu_us", "load")
SHAPE = (25, 2048)
WRITE = """
import json, sys, time
import numpy as np, torch
try:
    from spk.extract.store.writer import StoreWriter
except ImportError:  # where versions before 0.2 have it
    from spk.extract.store import StoreWriter
torch.set_num_threads(1)
store, dtype, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    from spk.extract.encoder.device import convert
except ImportError:
    try:
        from spk.extract.device import convert
    except ImportError:
        convert = None
more = {"convert": convert} if convert else {}  # what a run gives its writer; older ones take none
config = {"schema": 1, "kind": "pooled", "layers": list(range(25)), "dim": 2048, "dtype": dtype}
block = np.random.default_rng(0).standard_normal((64, 25, 2048)).astype(np.float32)
row = dict(duration=1.0, frames=3, audio_bytes=5, audio_crc32=7)
begun, cpu = time.perf_counter(), time.process_time()
with StoreWriter(store, config, **more) as writer:
    # `together` in versions before 0.2
    together = writer.one_commit if hasattr(writer, "one_commit") else writer.together
    for first in range(0, count, 64):
        with together():
            for i in range(64):
                writer.add(f"s{first + i:06d}", block[i], **row)
wall, spent = time.perf_counter() - begun, time.process_time() - cpu
print(json.dumps({"rows_per_s": round(count / wall), "cpu_us": round(spent / count * 1e6, 1)}))
"""
PARTS = """
import hashlib, json, os, sys, time, zlib
import numpy as np, torch
torch.set_num_threads(1)
folder = sys.argv[1]
wide = np.random.default_rng(0).standard_normal((64, 25, 2048)).astype(np.float32)
half = wide.astype(np.float16)
room = np.empty((25, 257, 2048), np.float16)
path = os.path.join(folder, "block")

def write():
    with open(path, "wb") as file:
        for _ in range(4):
            file.write(half)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path)

def by_torch():
    for i in range(64):
        torch.from_numpy(room[:, i]).copy_(torch.from_numpy(wide[i]))

parts = {
    "float16 by numpy": lambda: [row.astype(np.float16) for row in wide],
    "float16 by torch": by_torch,
    "largest number": lambda: [(row.max(), row.min()) for row in wide],
    "CRC-32 of each layer": lambda: [zlib.crc32(layer) for row in half for layer in row],
    "SHA-256": lambda: hashlib.sha256(half),
    "write and fsync, 256 rows": write,
}
for name, do in parts.items():
    best = np.inf
    for _ in range(5):
        cpu = time.process_time()
        do()
        best = min(best, time.process_time() - cpu)
    count = 256 if do is write else 64
    print(json.dumps({"what": name, "cpu_us": round(best / count * 1e6, 1)}))
"""


def run(root: Path, work: Path, code: str, *words: str) -> list[dict[str, object]]:
    """Run code in a process of its own that imports spk from `root`; return the rows it prints."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "path").mkdir(parents=True)
    (work / "path" / "spk").symlink_to(root.resolve())
    first = f"import sys; sys.path.insert(0, {str(work / 'path')!r})"  # before an installed spk
    done = subprocess.run(
        [sys.executable, "-c", first + code, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Measure all sides by turns; print and write each row as it is made, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="CSV; written anew")
    parser.add_argument("--other", type=Path, help="root of another checkout")
    parser.add_argument("--work", type=Path, help="folder to work in, on the disk that counts")
    parser.add_argument("--rows", type=int, default=3072)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="writer-", dir=args.work))
    sides = {"this": Path(__file__).resolve().parents[1]}
    sides = {"other": args.other, **sides} if args.other else sides
    best: dict[tuple[str, str], dict[str, float]] = {}
    with args.out.open("w", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        sheet.writeheader()

        def write(row: dict[str, object]) -> None:
            row["load"] = round(os.getloadavg()[0], 2)
            print(row, flush=True)
            sheet.writerow(row)
            file.flush()

        for turn in range(args.repeat):
            for dtype in ("float16", "float32"):
                for side, root in sides.items():
                    words = str(work / "turn" / "store"), dtype, str(args.rows)
                    (row,) = run(root, work / "turn", WRITE, *words)
                    write({"side": side, "what": "store", "dtype": dtype, "turn": turn, **row})
                    before = best.setdefault((side, dtype), {"rows_per_s": 0, "cpu_us": 1e9})
                    before["rows_per_s"] = max(before["rows_per_s"], row["rows_per_s"])
                    before["cpu_us"] = min(before["cpu_us"], row["cpu_us"])
        for row in run(sides["this"], work / "turn", PARTS, str(work)):
            write({"side": "part", "dtype": "float16", **row})
    shutil.rmtree(work)
    for dtype in ("float16", "float32") if args.other else ():
        this, other = best["this", dtype], best["other", dtype]
        print(
            f"{dtype}: {this['rows_per_s'] / other['rows_per_s']:.2f} times as many rows a second; "
            f"by processor time {other['cpu_us'] / this['cpu_us']:.2f}"
        )


if __name__ == "__main__":
    main()
