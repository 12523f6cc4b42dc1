"""Sections of the probe that run on the host: the machine, the writer, threads that decode."""

import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from findings import Findings, wait_for
from inputs import RATE, Inputs

from spk.extract.audio import ReadOptions, Segment, read_segment
from spk.extract.encoder.device import convert
from spk.extract.store.writer import StoreWriter

PACKAGES = ("transformers", "lightning", "soundfile", "h5py", "numpy", "triton", "spk-toolkit")


def machine(inputs: Inputs, findings: Findings) -> None:
    """Tell what the machine and its software are."""
    facts = {"torch": torch.__version__, "python": platform.python_version()}
    findings.say("machine", **facts, cores=os.cpu_count(), load=os.getloadavg())
    findings.say("versions", **{name: _version(name) for name in PACKAGES})
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    words = " ".join(line for line in lines if line.startswith("flags")).split()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    findings.say("cpu", name=named[:1], sha_ni="sha_ni" in words, f16c="f16c" in words)
    if inputs.device.type == "cuda":
        card = torch.cuda.get_device_properties(inputs.device)
        cudnn = torch.backends.cudnn.version()
        gb = round(card.total_memory / 1e9, 1)
        findings.say("gpu", name=card.name, sm=card.multi_processor_count, gb=gb, cudnn=cudnn)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def writer(inputs: Inputs, findings: Findings) -> None:
    """Measure rows a second into a store, and what the disk takes."""
    count = 3072 if inputs.device.type == "cuda" else 128
    block = np.random.default_rng(0).standard_normal((64, 25, 2048)).astype(np.float32)
    row = {"duration": 1.0, "frames": 3, "audio_bytes": 5, "audio_crc32": 7}
    for dtype in ("float16", "float32"):
        config = {"schema": 1, "kind": "pooled", "layers": list(range(25)), "dim": 2048}
        with tempfile.TemporaryDirectory() as folder:
            begun, cpu = time.perf_counter(), time.process_time()
            store = Path(folder) / "store"
            with StoreWriter(store, {**config, "dtype": dtype}, convert=convert) as store_writer:
                for first in range(0, count, 64):
                    with store_writer.one_commit():
                        for i in range(64):
                            store_writer.add(f"s{first + i:06d}", block[i], **row)
            wall, spent = time.perf_counter() - begun, time.process_time() - cpu
        rows = {"rows_a_second": round(count / wall), "rows_a_cpu_second": round(count / spent)}
        findings.say("writer", dtype=dtype, **rows)
    findings.say("disk, fsync each 64 MB", mb_per_s=_disk(1 if count < 1000 else 4))


def _disk(blocks: int) -> int:
    block = os.urandom(1 << 26)
    with tempfile.TemporaryFile() as file:
        begun = time.perf_counter()
        for _ in range(blocks):
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return round(blocks * len(block) / (time.perf_counter() - begun) / 1e6)


def decode(inputs: Inputs, findings: Findings) -> None:
    """Measure threads that decode, alone and beside a loop that launches small work."""
    import soundfile

    gpu, rng = inputs.device.type == "cuda", np.random.default_rng(0)
    minutes = 10 if gpu else 1
    noise = np.cumsum(rng.integers(-60, 61, (minutes * 60 * RATE, 8)), 0) % 16384 - 8192
    with tempfile.TemporaryDirectory() as folder:
        for name, most in (("mono.flac", 1500), ("eight.flac", 300), ("mono.wav", 3000)):
            path, count = f"{folder}/{name}", most if gpu else 4
            samples = noise.astype(np.int16)
            soundfile.write(path, samples if "eight" in name else samples[:, 0], RATE)
            starts = rng.uniform(0, minutes * 60 - 31, count)
            pairs = zip(starts.tolist(), inputs.lengths(count, 3).tolist(), strict=True)
            segments = [Segment(f"s{i}", path, a, a + b) for i, (a, b) in enumerate(pairs)]
            for threads in (1, 4, 8, 16) if gpu else (1, 2):
                _decode(segments, threads, inputs.device, findings)
    small, begun = torch.zeros(4, device=inputs.device), time.perf_counter()
    for _ in range(20000):
        small.add_(1.0)
    wait_for(inputs.device)
    spent = time.perf_counter() - begun
    findings.say("launching alone", us_a_launch=round(spent / 20000 * 1e6, 2))


def _decode(
    segments: list[Segment], threads: int, device: torch.device, findings: Findings
) -> None:
    audio = sum(segment.duration for segment in segments)
    small, launches = torch.zeros(4, device=device), 0

    def read(segment: Segment) -> int:
        return len(read_segment(segment, ReadOptions(integers=True)).samples)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(read, segments))
        alone = time.perf_counter() - begun
        waiting, begun = [pool.submit(read, segment) for segment in segments], time.perf_counter()
        while not all(future.done() for future in waiting[-4:]):
            for _ in range(200):
                small.add_(1.0)
            launches += 200
        beside = time.perf_counter() - begun
    findings.say(
        "decode",
        file=Path(segments[0].path).name,
        threads=threads,
        times_real_time=round(audio / alone),
        beside_launching=round(audio / beside),
        us_a_launch=round(beside / max(launches, 1) * 1e6, 2),
    )
