"""Time and peak memory of the commands on large tables and stores, and how they grow.

Usage: ``python benchmarks/scale.py OUT [SEGMENTS] [ROWS]``. Makes a synthetic table of a third of
SEGMENTS (a million), and of all of them, and runs every command that reads a table; the same for
`spk-store` and stores of ROWS (200,000) of one layer of 4 numbers: so small that the number of
rows counts, not their bytes. A step is linear where three times the rows take about three times as
long. Each command is a process of its own; its peak is what the kernel noted of its memory (VmHWM).
Prints a row per command and writes OUT/scale.csv.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = ("command", "rows", "seconds", "peak_mb")
ENTRY = """
import sys
from spk.{room} import {name} as command
try:
    command(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak[0], file=sys.stderr)
"""
COMMANDS = {
    "spk-manifests": ("manifests.cli", "main"),
    "spk-extract": ("extract.cli", "main"),
    "spk-store": ("extract.store.cli", "store"),
}
TABLE = """
import sys
import numpy as np
import pandas as pd
from spk.manifests.table import segment_id, write_table
count, path = int(sys.argv[1]), sys.argv[2]
rng, sessions = np.random.default_rng(0), max(1, count // 500)
session = np.array([f"20990101_L_R{n // 100:05d}S{n % 100:02d}C01" for n in range(sessions)])
number = np.arange(count) % sessions
start = (np.arange(count) // sessions) * 4.0 + rng.uniform(0, 3, count).round(4)
end = start + rng.uniform(0.5, 6, count).round(4)
person = [f"{n:03d}-M" for n in rng.integers(1, 6, count)]
names = session[number]
write_table(pd.DataFrame({
    "segment_id": [segment_id(*one) for one in zip(names, person, start, end)],
    "audio": [f"{name}.flac" for name in names],
    "start": start, "end": end,
    "speaker": [f"{name}_{one}" for name, one in zip(names, person)],
    "session": names, "line": np.arange(count) // sessions,
}), path)
"""
STORE = """
import sys
import numpy as np
from spk.extract.store.writer import StoreWriter
first, stop, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = {"kind": "pooled", "layers": [0], "dim": 4, "dtype": "float16", "pooling": "mean"}
rng = np.random.default_rng(0)
with StoreWriter(path, config) as writer:
    for n in range(first, stop):
        row = rng.normal(size=(1, 4)).astype(np.float32)
        name = f"20990101_L_R001S01C01_001-M_{n:09d}"
        writer.add(name, row, duration=1.5, frames=74, audio_bytes=9, audio_crc32=n)
"""


def make(code: str, *words: object) -> None:
    """Run a program that makes data, in a process of its own: its memory is not measured."""
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)


def measured(line: str, rows: int) -> dict[str, object]:
    """Run a command; return its time (s) and peak (MB)."""
    name, *words = line.split()
    room, function = COMMANDS[name]
    code = ENTRY.format(room=room, name=function)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{line}: {done.stdout[-500:]}{done.stderr[-500:]}")
    shown = " ".join(word for word in line.split()[:2] + words[-1:] if not word.startswith("/"))
    peak = int(done.stderr.split()[-1]) / 1e3
    row = dict(zip(COLUMNS, (shown, rows, round(seconds, 1), round(peak)), strict=True))
    print(f"{shown:34}: rows {rows:>9,} {seconds:8.1f} s {peak:7.0f} MB", flush=True)
    return row


def of_tables(out: Path, count: int) -> list[dict[str, object]]:
    """Measure what reads a table of so many segments."""
    table = out / f"table-{count}.csv"
    make(TABLE, count, table)
    chosen, divided = out / f"chosen-{count}.csv", out / f"split-{count}.csv"
    lines = [
        f"spk-manifests describe {table}",
        f"spk-manifests select {table} {chosen} --max-overlap 0.5",
        f"spk-manifests split {chosen} {divided}",
        f"spk-manifests leaks {divided}",
        f"spk-extract {divided} {out}/none --encoder demo --plan",
    ]
    return [measured(line, count) for line in lines]


def of_stores(out: Path, count: int) -> list[dict[str, object]]:
    """Measure what works on a store of so many rows: written as two halves, and merged."""
    halves = [out / f"half-{count}-{n}" for n in (0, 1)]
    for number, half in enumerate(halves):
        make(STORE, number * (count // 2), (number + 1) * (count // 2), half)
    whole = out / f"store-{count}"
    lines = [
        f"spk-store merge {halves[0]} {halves[1]} {whole}",
        f"spk-store info {whole}",
        f"spk-store verify {whole}",
    ]
    return [measured(line, count) for line in lines]


def main(out: str, segments: str, rows: str) -> None:
    """Measure at a third and at the whole of each size; print and write the rows."""
    folder = Path(out)
    folder.mkdir(parents=True)
    measurements = [row for part in (3, 1) for row in of_tables(folder, int(segments) // part)]
    sizes = [int(rows) // part // 2 * 2 for part in (3, 1)]
    measurements += [row for size in sizes for row in of_stores(folder, size)]
    with (folder / "scale.csv").open("w", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(measurements)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and memory of the commands at scale.")
    parser.add_argument("out")
    parser.add_argument("segments", nargs="?", default="1000000")
    parser.add_argument("rows", nargs="?", default="200000")
    main(**vars(parser.parse_args()))
