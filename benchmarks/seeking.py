"""Which containers and codecs of libsndfile can be sought in to the sample? Measured on files.

For every container and codec that can be written: files of many lengths, rates and channels are
decoded once from the start without a seek; then spans at the first, middle and last positions are
read after a seek and compared with that, sample by sample. Run: python benchmarks/seeking.py
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

RATES = (8000, 16000, 44100)
LENGTHS = (799, 16000, 33333, 100001, 160000, 223457)
SPAN = 300
BLOCK = 7001


class Sequential(soundfile.SoundFile):
    """A file that is read from its start; soundfile's own `read` seeks after every block."""

    def seekable(self) -> bool:
        """Say no, so that no seek is made."""
        return False


def voice(count: int, rate: int, channels: int) -> np.ndarray:
    """Return a voiced sound with some noise: (count, channels) float32."""
    times = np.arange(count) / rate
    tones = sum(np.sin(2 * np.pi * 140 * k * times + k) / k for k in range(1, 8))
    sound = tones * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * times))
    sound += 0.05 * np.random.default_rng(count).standard_normal(count)
    return np.stack([0.1 * sound, -0.05 * sound[::-1]][:channels], axis=1).astype(np.float32)


def decode(path: Path, most: int) -> np.ndarray:
    """Return all samples, decoded from the start: (n, channels)."""
    blocks, count = [], 0
    with Sequential(path) as file:
        while count < most and len(block := file.read(BLOCK, "float32", always_2d=True)):
            blocks.append(block)
            count += len(block)
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


def places(count: int) -> list[int]:
    """Return first samples of spans: at the start, the middle, the end and anywhere."""
    ends = (5000, 1500, 1000, 400, 301, 17, 1)
    drawn = np.random.default_rng(count).integers(0, count, 6).tolist()
    chosen = {0, 1, 13, count // 3, count // 2, *(count - end for end in ends), *drawn}
    return sorted(place for place in chosen if 0 <= place < count)


def compare(path: Path, counts: Counter[str]) -> None:
    """Count what a file does: spans equal or not, seeks that fail, a length that is another."""
    with soundfile.SoundFile(path) as file:
        promised = file.frames
    whole = decode(path, 4 * promised + 10**6)
    kind = "equal length" if promised == len(whole) else "longer" if promised < len(whole) else ""
    counts[kind or "header promises more"] += 1
    for place in places(len(whole)):
        try:
            with soundfile.SoundFile(path) as file:
                file.seek(place)
                read = file.read(SPAN, "float32", always_2d=True)
        except (RuntimeError, ValueError):
            counts["seek fails"] += 1
            continue
        expected = whole[place : place + SPAN]
        counts["equal" if np.array_equal(read, expected) else "other samples"] += 1


def measure(container: str, codec: str, folder: Path) -> Counter[str]:
    """Return the counts of one container and codec over all lengths, rates and channels."""
    counts: Counter[str] = Counter()
    path = folder / "x"
    for rate in RATES:
        for channels in (1, 2):
            for length in LENGTHS:
                try:
                    sound = voice(length, rate, channels)
                    soundfile.write(path, sound, rate, format=container, subtype=codec)
                    compare(path, counts)
                except (RuntimeError, ValueError) as problem:
                    counts[f"not: {problem}"[:30]] += 1
    return counts


def main() -> None:
    """Print a line for each container and codec."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 writes there
    print(f"libsndfile {soundfile.__libsndfile_version__}, soundfile {soundfile.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        for container in sorted(soundfile.available_formats()):
            if container == "RAW":
                continue
            for codec in soundfile.available_subtypes(container):
                counts = measure(container, codec, Path(folder))
                summary = ", ".join(f"{kind} {n}" for kind, n in counts.items() if n)
                print(f"{container} {codec}: {summary}", flush=True)


if __name__ == "__main__":
    main()
