"""Extraction against the plain loops a user would write, in one run; a row per case, also as CSV.

Usage: ``python benchmarks/extract.py OUT [--rttm FOLDER] [options]``; ``--help`` tells them all.

The sides: ``plain-1`` is transformers with ``output_hidden_states``, one segment at a time in the
order of the table; ``plain-16`` the same in batches of 16 in that order, padded by the Hugging Face
processor; both pool over the real frames. ``ours`` is `spk.extract.run.extract`, files to committed
rows, with default options or those a ``--case`` names (``--case name:option=value,...``). All sides
read the same 16-bit recordings of noise with segments whose lengths are drawn from RTTMs, and use
one random encoder of the size asked for.

Every case runs once to warm up on a tenth of the segments, then ``--repeat`` times, the sides
taking turns, and each run is a row. ``cpu_s`` is processor time of the process (system time
included): on a machine shared with others it says more than the wall clock, above all with
``OMP_NUM_THREADS=1``, since threads that wait for each other use it too. ``difference`` is the
largest distance of a segment's vector at a layer from that of ``plain-1``, relative to its length.
Ratios are printed after the rows. Where soundfile is missing, recordings are read through the
standard library's ``wave``; the row says so.
"""

import argparse
import csv
import importlib.util
import os
import platform
import shutil
import sys
import time
import wave
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent))
from encoders import write_encoder  # beside this script

from spk.extract.encoder import Encoder, load_encoder
from spk.extract.job import Job
from spk.extract.options import Options, parse_layers
from spk.extract.plan import choose_segments
from spk.extract.run import configuration
from spk.extract.spans import STAGES, Spans
from spk.extract.store import FeatureStore, StoreWriter
from spk.extract.verify import relative_difference

RATE = 16000
BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "conv_dim": (512,) * 7,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}
LARGE = {
    **BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
NANO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_dim": (16,) * 7}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "nano": ("layer", {**NANO, "intermediate_size": 64}),  # for many segments
    "tiny": ("layer", {}),
    "base": ("group", BASE),
    "large": ("layer", LARGE),
}
KINDS_OF: dict[str, Callable[[str], Any]] = {
    "batch_seconds": float,
    "buckets": lambda text: text == "true",
    "dtype": str,
    "layers": str,
    "workers": int,
}


@dataclass(frozen=True)
class Row:
    """One run of one side."""

    side: str
    encoder: str
    segments: int
    seconds: float  # s of audio
    channels: int
    device: str
    dtype: str
    options: str
    reader: str
    wall_s: float
    cpu_s: float
    times_real_time: float
    decode: float  # shares of the time of all stages; empty where they were not measured
    transfer: float
    cnn: float
    layers: float
    pooling: float
    writing: float
    padding: float  # share of what was encoded
    peak_gb: float  # main memory of the process so far; on a GPU that of the GPU in this run
    difference: float
    load: float  # of the machine before the run, one minute's average


def lengths_of(folder: Path | None, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` lengths in s, 1.5 to 30: drawn from RTTMs, else log-normal about 3 s."""
    if folder is None:
        return np.clip(rng.lognormal(1.1, 0.6, count), 1.5, 30.0)
    found = [
        float(line.split()[4])
        for file in sorted(folder.glob("*.rttm"))
        for line in file.read_text().splitlines()
        if line.startswith("SPEAKER")
    ]
    usable = np.array([length for length in found if 1.5 <= length <= 30.0])
    return rng.choice(usable, count)


def write_corpus(folder: Path, lengths: np.ndarray, args: argparse.Namespace) -> pd.DataFrame:
    """Write recordings of ten minutes and return a table of segments that follow each other."""
    rng = np.random.default_rng(1)
    noise = rng.integers(-9000, 9000, (600 * RATE, args.channels), dtype=np.int16)
    rows: list[dict[str, Any]] = []
    start, file, name = 0.0, 0, ""
    for i, length in enumerate(lengths.tolist()):
        if not rows or start + length > 600:
            start, file = 0.0, file + 1
            name = f"{file:03d}.{args.format}"
            write_recording(folder / name, np.roll(noise, file * RATE, axis=0))
        times = {"start": start, "end": start + length}
        rows.append({"segment_id": f"s{i:06d}", "audio": name, **times, "speaker": "a"})
        start += length
    return pd.DataFrame(rows).assign(session="s")


def write_recording(path: Path, samples: np.ndarray) -> None:
    """Write int16 samples (n, channels); WAV by the standard library, which every machine has."""
    if path.suffix != ".wav":
        import soundfile

        soundfile.write(path, samples, RATE)
        return
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, RATE, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())


class _Wave:
    """The part of soundfile.SoundFile that spk uses, by the standard library, for 16-bit WAV."""

    subtype = "PCM_16"

    def __init__(self, path: str) -> None:
        self._file = wave.open(path, "rb")  # noqa: SIM115 (closed on leaving)
        self.samplerate, self.channels = self._file.getframerate(), self._file.getnchannels()
        self.frames = self._file.getnframes()

    def __enter__(self) -> "_Wave":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, place: int) -> None:
        self._file.setpos(place)

    def read(self, count: int, dtype: str, always_2d: bool) -> np.ndarray:
        found = np.frombuffer(bytearray(self._file.readframes(count)), np.int16).reshape(
            -1, self.channels
        )
        return found if dtype == "int16" else found / np.float32(32768)


def chosen_reader(args: argparse.Namespace) -> str:
    """Return what reads recordings; put the standard library in soundfile's place if it must be."""
    if importlib.util.find_spec("soundfile"):
        return "soundfile"
    if args.format != "wav":
        sys.exit("--format: value is 'flac' and soundfile is missing; pass --format wav")
    stand_in: Any = ModuleType("soundfile")
    stand_in.SoundFile = _Wave
    sys.modules["soundfile"] = stand_in
    return "wave (standard library)"


class Plain:
    """The loop a user would write."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        self.processor = AutoFeatureExtractor.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().to(device, dtype)
        self.device, self.dtype = device, dtype

    @torch.inference_mode()
    def features(self, waveforms: list[np.ndarray]) -> np.ndarray:
        """Return mean and deviation of every state over each segment's own frames."""
        made = self.processor(
            waveforms,
            sampling_rate=RATE,
            padding=True,
            return_tensors="pt",
            return_attention_mask=True,
        )
        mask = made["attention_mask"].to(self.device)
        out = self.model(
            made["input_values"].to(self.device, self.dtype),
            attention_mask=mask if len(waveforms) > 1 else None,
            output_hidden_states=True,
        )
        states = (*out.hidden_states[:-1], out.last_hidden_state)
        counts = self.model._get_feat_extract_output_lengths(mask.sum(1)).tolist()
        rows = [
            torch.stack(
                [
                    torch.cat([state[i, :n].float().mean(0), state[i, :n].float().std(0, False)])
                    for state in states
                ]
            )
            for i, n in enumerate(counts)
        ]
        return torch.stack(rows).cpu().numpy()


def run_plain(plain: Plain, size: int, table: pd.DataFrame, root: Path) -> tuple[Any, float]:
    """Return features (segments, layers, dim) in the table's order, and the share of padding."""
    import soundfile

    found, real, padded = [], 0, 0
    for first in range(0, len(table), size):
        waveforms = []
        for line in table.iloc[first : first + size].itertuples():
            begin, end = round(line.start * RATE), round(line.end * RATE)
            with soundfile.SoundFile(str(root / line.audio)) as file:
                file.seek(begin)
                block = file.read(end - begin, dtype="float32", always_2d=True)
            waveforms.append(np.ascontiguousarray(block[:, 0]))
        real += sum(map(len, waveforms))
        padded += len(waveforms) * max(map(len, waveforms))
        found.append(plain.features(waveforms))
    return np.concatenate(found), 1 - real / padded


def run_ours(
    encoder: Encoder, options: Options, table: pd.DataFrame, store: Path
) -> tuple[np.ndarray, Job, Spans]:
    """Return features in the table's order; they were committed to a fresh store."""
    shutil.rmtree(store, ignore_errors=True)
    spans, layers = Spans(), parse_layers(options.layers, encoder.layer_count)
    with StoreWriter(store, configuration(encoder, layers, options)) as writer:
        job = Job(encoder, layers, options, writer, print, spans)
        job.run(choose_segments(table, options), lambda: False)
    opened, names = FeatureStore.open(store), table["segment_id"].tolist()
    return np.stack([opened.read(names, layer) for layer in layers], axis=1), job, spans


class Bench:
    """All sides over one corpus, by turns; `reference` are the features of ``plain-1``."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work, self.reader = args, work, chosen_reader(args)
        rng = np.random.default_rng(args.seed)
        self.table = write_corpus(work, lengths_of(args.rttm, args.segments, rng), args)
        kind, shape = SIZES[args.size]
        self.folder = write_encoder(work / "encoder", kind, **shape)
        self.cases = dict(map(parse_case, ["ours:", *args.case]))
        self.encoders: dict[str, Encoder] = {}
        self.plain: Plain | None = None
        self.reference: np.ndarray | None = None

    def sides(self) -> list[str]:
        """Return the names of all sides, the plain ones first."""
        return [*(f"plain-{size}" for size in self.args.plain), *self.cases]

    def run(self, side: str, table: pd.DataFrame) -> Row:
        """Run one side once."""
        base, load = held(self.args.device), os.getloadavg()[0]
        begun, cpu = time.perf_counter(), time.process_time()
        if side in self.cases:
            options = self.options(side)
            encoder = self.encoder(options)
            begun, cpu = time.perf_counter(), time.process_time()  # without the loading
            features, job, spans = run_ours(encoder, options, table, self.work / "store")
            wall, spent, padded = job.wall, time.process_time() - cpu, job.padding
            shares: dict[str, float] = spans.shares()
        else:
            model = self.plain_model()
            begun, cpu = time.perf_counter(), time.process_time()
            features, padded = run_plain(model, int(side.split("-")[1]), table, self.work)
            wall, spent = time.perf_counter() - begun, time.process_time() - cpu
            shares = {}
        if side == "plain-1":
            self.reference = features
        seconds = float((table["end"] - table["start"]).sum())
        return Row(
            **self.told(side),
            segments=len(table),
            seconds=round(seconds, 1),
            wall_s=round(wall, 3),
            cpu_s=round(spent, 3),
            times_real_time=round(seconds / wall, 2),
            **{stage.lower(): round(shares.get(stage, np.nan), 4) for stage in STAGES},
            padding=round(padded, 4),
            peak_gb=round((peak(self.args.device) - base) / 1e9, 3),
            difference=self.difference(features, side),
            load=round(load, 2),
        )

    def told(self, side: str) -> dict[str, Any]:
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
        }

    def options(self, side: str) -> Options:
        """Return a case's options."""
        known = {"encoder": str(self.folder), "audio_root": str(self.work)}
        known |= {"device": self.args.device, "dtype": self.args.dtype, "store_dtype": "float32"}
        return Options(**{**known, **self.cases[side]})

    def encoder(self, options: Options) -> Encoder:
        """Return the encoder in a case's number format, loaded once."""
        if options.dtype not in self.encoders:
            self.encoders[options.dtype] = load_encoder(
                options.encoder, device=options.device, dtype=options.dtype
            )
        return self.encoders[options.dtype]

    def plain_model(self) -> Plain:
        """Return the plain side's model, loaded once."""
        if self.plain is None:
            self.plain = Plain(self.folder, self.args.device, getattr(torch, self.args.dtype))
        return self.plain

    def difference(self, features: np.ndarray, side: str) -> float:
        """Return how far the features are from the reference, where both have the same layers."""
        if self.reference is None or self.reference.shape != features.shape:
            return float("nan")
        return float(f"{relative_difference(features, self.reference):.2e}")


def parse_case(text: str) -> tuple[str, dict[str, Any]]:
    """Return a case's name and options: ``name:option=value,...``."""
    name, _, rest = text.partition(":")
    pairs = [pair.split("=") for pair in rest.split(",") if pair]
    return name, {key: KINDS_OF[key](value) for key, value in pairs}


def held(device: str) -> int:
    """Return the bytes held now, and begin to watch the peak anew."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def peak(device: str) -> int:
    """Return the most bytes held since then: of the GPU's memory, or on a CPU of main memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """Return a size out of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def matmul_ceiling(device: str, dtype: torch.dtype) -> float:
    """Return GFLOP/s of the best of ten products of large matrices."""
    size = 8192 if device.startswith("cuda") else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = np.inf
    for _ in range(10):
        begun = time.perf_counter()
        (a @ b).sum().item()  # which waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best / 1e9


def ratios(rows: list[Row]) -> list[str]:
    """Return each side's speed over the others', median (lowest to highest) of the turns."""
    by_side: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_side[row.side].append(row)
    lines = []
    for name in ("plain-1", "plain-16", "ours"):
        for side, runs in by_side.items():
            if name in by_side and side != name and (name != "ours" or "plain" not in side):
                pairs = list(zip(by_side[name], runs, strict=True))
                wall = [a.wall_s / b.wall_s for a, b in pairs]
                cpu = [a.cpu_s / b.cpu_s for a, b in pairs]
                lines.append(
                    f"{side} is {median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f}) times as "
                    f"fast as {name}; by processor time {median(cpu):.2f} ({min(cpu):.2f} to "
                    f"{max(cpu):.2f})"
                )
    return lines


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
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run all sides by turns, print each row, add it to the CSV, print the ratios."""
    args = parse()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    bench = Bench(args, args.work)
    ceiling = matmul_ceiling(args.device, getattr(torch, args.dtype))
    print(f"# {platform.processor()} {os.cpu_count()} cores, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, matrix products {ceiling:.0f} GFLOP/s")
    names, new = [field.name for field in fields(Row)], not args.out.exists()
    for side in bench.sides():
        bench.run(side, bench.table.head(max(2, args.segments // 10)))
    bench.reference = None
    rows = []
    print(",".join(names))
    with args.out.open("a", newline="") as file:
        sheet = csv.DictWriter(file, names, lineterminator="\n")
        if new:
            sheet.writeheader()
        for _ in range(args.repeat):
            for side in bench.sides():
                rows.append(bench.run(side, bench.table))
                print(",".join(str(value) for value in vars(rows[-1]).values()), flush=True)
                sheet.writerow(vars(rows[-1]))
                file.flush()
    print("\n".join(ratios(rows)))
    shutil.rmtree(args.work)


if __name__ == "__main__":
    main()
