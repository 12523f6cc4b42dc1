"""Extraction against the plain loops a user would write, in one run; a row per case, also as CSV.

Usage: ``python benchmarks/extract.py OUT [--rttm FOLDER] [options]``; ``--help`` tells them all.

The sides: ``plain-1`` is transformers with ``output_hidden_states``, one segment at a time in the
order of the table; ``plain-16`` the same in batches of 16 in that order, padded by the Hugging Face
processor; both pool over the real frames. ``ours`` is `spk.extract.run.extract`, files to committed
rows, with default options or those a ``--case`` names (``--case name:option=value,...``; the option
``compile=true`` puts `torch.compile` round each layer, which the product has no option for). All
sides read the same 16-bit recordings of noise with segments whose lengths are drawn from RTTMs, and
use one random encoder of the size asked for.

Every case runs once to warm up on a tenth of the segments (``--warm`` says another share), then
``--repeat`` times, the sides taking turns, and each run is a row. A side that fails is told and
left out from there on. ``cpu_s`` is processor time of the process (system time included): on a
machine shared with others it says more than the wall clock, above all with ``OMP_NUM_THREADS=1``,
since threads that wait for each other use it too. ``product_share`` is the GFLOP/s of the encoder's
products of matrices, without padding, beside those of one large product here. ``difference`` is the
largest distance of a segment's vector at a layer from that of ``plain-1``, relative to its length;
only where there is a ``plain-1`` are features read back, and stored as float32. Ratios are printed
after the rows. Where soundfile is missing, recordings are read through the standard library's
``wave``; the row says so.
"""

import argparse
import csv
import gc
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from encoders import write_encoder
from extract_corpus import chosen_reader, lengths_of, write_corpus
from extract_rows import Row, memory_held, peak, product_ceiling, ratios
from extract_sides import SIZES, Plain, compiled, gflop, read_back, run_ours, run_plain

from spk.common.counts import counted
from spk.extract.cli import KERNELS
from spk.extract.encoder.encoder import Encoder, load_encoder
from spk.extract.options import ExtractOptions, parse_layers
from spk.extract.profiling import STAGES
from spk.extract.verification import relative_difference

KINDS_OF: dict[str, Callable[[str], Any]] = {
    "batch_seconds": float,
    "compile": lambda text: text == "true",
    "dtype": str,
    "layers": str,
    "workers": int,
}


class Bench:
    """All sides over one corpus, by turns; `reference` are the features of ``plain-1``."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work, self.reader = args, work, chosen_reader(args)
        rng = np.random.default_rng(args.seed)
        self.table = write_corpus(work, lengths_of(args.rttm, args.segments, rng), args)
        kind, shape = SIZES[args.size]
        self.folder = write_encoder(work / "encoder", kind, **shape)
        self.cases = dict(map(parse_case, ["ours:", *args.case]))
        self.encoders: dict[tuple[str, bool], Encoder] = {}
        self.ceilings: dict[str, float] = {}
        self.plain: Plain | None = None
        self.reference: np.ndarray | None = None

    def sides(self) -> list[str]:
        """Return the names of all sides, the plain ones first."""
        return [*(f"plain-{size}" for size in self.args.plain), *self.cases]

    def run(self, side: str, table: pd.DataFrame) -> Row:
        """Run one side once."""
        ours, load = side in self.cases, os.getloadavg()[0]
        made = self.encoder(side) if ours else self.plain_model()  # loading is not measured
        ceiling = self.ceiling(self.settings(side)["dtype"])
        base = memory_held(self.args.device)
        begun, cpu = time.perf_counter(), time.process_time()
        shares: dict[str, float] = {}
        features: np.ndarray | None = None
        if ours:
            job, spans = run_ours(made, self.options(side), table, self.work / "store")
            padded, shares = job.padding, spans.shares()
        else:
            features, padded = run_plain(made, int(side.split("-")[1]), table, self.work)
        wall, spent = time.perf_counter() - begun, time.process_time() - cpu
        most = (peak(self.args.device) - base) / 1e9
        if ours and self.reference is not None:
            features = read_back(self.work / "store", table)
        if side == "plain-1":
            self.reference = features
        seconds = float((table["end"] - table["start"]).sum())
        return Row(
            **self.settings(side),
            segments=len(table),
            seconds=round(seconds, 1),
            wall_s=round(wall, 3),
            cpu_s=round(spent, 3),
            times_real_time=round(seconds / wall, 2),
            **{stage.lower(): round(shares.get(stage, np.nan), 4) for stage in STAGES},
            padding=round(padded, 4),
            product_share=round(self.gflop(side, table) * seconds / wall / ceiling, 4),
            peak_gb=round(most, 3),
            difference=self.difference(features),
            load=round(load, 2),
        )

    def settings(self, side: str) -> dict[str, Any]:
        """Return what a row says of its settings."""
        case = self.cases.get(side, {})
        return {
            "side": side,
            "encoder": self.args.size,
            "channels": self.args.channels,
            "device": self.args.device,
            "dtype": case.get("dtype", self.args.dtype),
            "options": " ".join(f"{name}={value}" for name, value in case.items()),
            "reader": f"{self.args.format}, {self.reader}",
            "threads": torch.get_num_threads(),
        }

    def options(self, side: str) -> ExtractOptions:
        """Return a case's options; float32 rows where they are compared."""
        stored = "float32" if 1 in self.args.plain else "float16"
        settings = {"encoder": str(self.folder), "audio_root": str(self.work)}
        settings |= {"device": self.args.device, "dtype": self.args.dtype, "store_dtype": stored}
        settings |= {name: value for name, value in self.cases[side].items() if name != "compile"}
        return ExtractOptions(**settings)

    def encoder(self, side: str) -> Encoder:
        """Return the encoder of a case, loaded once."""
        options, compiles = self.options(side), self.cases[side].get("compile", False)
        if (options.dtype, False) not in self.encoders:
            self.encoders[options.dtype, False] = load_encoder(
                options.encoder, device=options.device, dtype=options.dtype
            )
        if (options.dtype, compiles) not in self.encoders:
            self.encoders[options.dtype, True] = compiled(self.encoders[options.dtype, False])
        return self.encoders[options.dtype, compiles]

    def plain_model(self) -> Plain:
        """Return the plain side's model, loaded once."""
        if self.plain is None:
            self.plain = Plain(self.folder, self.args.device, getattr(torch, self.args.dtype))
        return self.plain

    def ceiling(self, dtype: str) -> float:
        """Return GFLOP/s of large products in a number format, measured once and printed."""
        if dtype not in self.ceilings:
            self.ceilings[dtype] = product_ceiling(self.args.device, getattr(torch, dtype))
            print(f"# products of large {dtype} matrices: {self.ceilings[dtype]:,.0f} GFLOP/s")
        return self.ceilings[dtype]

    def gflop(self, side: str, table: pd.DataFrame) -> float:
        """Return the GFLOP per second of audio that a side has to do."""
        from transformers import Wav2Vec2Config

        config = Wav2Vec2Config.from_pretrained(self.folder)
        layers = self.cases.get(side, {}).get("layers", "all")
        last = max(parse_layers(layers, config.num_hidden_layers))
        return gflop(config, (table["end"] - table["start"]).to_numpy(), last)

    def difference(self, features: np.ndarray | None) -> float:
        """Return how far the features are from the reference, where both have the same layers."""
        reference = self.reference
        if features is None or reference is None or reference.shape != features.shape:
            return float("nan")
        return float(f"{relative_difference(features, reference):.2e}")


def parse_case(text: str) -> tuple[str, dict[str, Any]]:
    """Return a case's name and options: ``name:option=value,...``."""
    name, _, rest = text.partition(":")
    pairs = [pair.split("=") for pair in rest.split(",") if pair]
    return name, {key: KINDS_OF[key](value) for key, value in pairs}


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="CSV that rows are added to")
    parser.add_argument("--work", type=Path, default=Path("bench-work"), help="folder to work in")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--segments", type=int, default=100)
    parser.add_argument("--rttm", type=Path, help="folder of RTTMs that lengths are drawn from")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--format", choices=("wav", "flac"), default="flac")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--plain", type=int, nargs="*", default=[1, 16], help="batch sizes")
    parser.add_argument("--case", nargs="*", default=[], help="name:option=value,... of ours")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--warm", type=float, default=0.1, help="share of the segments to warm up")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def tried(bench: Bench, side: str, table: pd.DataFrame) -> Row | None:
    """Return the row of a side's run; where it fails tell why, and free what it held."""
    try:
        return bench.run(side, table)
    except Exception:
        traceback.print_exc()
        print(f"# {side}: failed, see above; left out", flush=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def rows_of(bench: Bench) -> list[Row]:
    """Run all sides by turns; print each row and add it to the CSV."""
    args, sides, rows = bench.args, bench.sides(), []
    names, new = [field.name for field in fields(Row)], not args.out.exists()
    if not new and args.out.read_text().partition("\n")[0] != ",".join(names):
        sys.exit(f"{args.out}: columns are others than {names}; name another file")
    for side in list(sides):
        if tried(bench, side, bench.table.head(max(2, round(args.segments * args.warm)))) is None:
            sides.remove(side)
    bench.reference = None
    print(",".join(names))
    with args.out.open("a", newline="") as file:
        sheet = csv.DictWriter(file, names, lineterminator="\n")
        if new:
            sheet.writeheader()
        for _ in range(args.repeat):
            for side in list(sides):
                row = tried(bench, side, bench.table)
                if row is None:
                    sides.remove(side)
                    continue
                rows.append(row)
                print(",".join(str(value) for value in vars(rows[-1]).values()), flush=True)
                sheet.writerow(vars(rows[-1]))
                file.flush()
    return rows


def main() -> None:
    """Run all sides and print the ratios."""
    args = parse()
    os.environ.update(KERNELS | os.environ)  # as the command does
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    bench = Bench(args, args.work)
    print(
        f"# {processor()}, {counted(os.cpu_count() or 1, 'core')}, torch {torch.__version__}",
        end=", ",
    )
    print(f"{torch.get_num_threads()} threads")
    print("\n".join(ratios(rows_of(bench))))
    shutil.rmtree(args.work)


def processor() -> str:
    """Return the processor's name as Linux has it, else as Python does."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


if __name__ == "__main__":
    main()
