"""What `extract.py` reads: recordings of noise, a table of segments, the audio library."""

import argparse
import importlib.util
import sys
import wave
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

RATE = 16000


def lengths_of(folder: Path | None, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` lengths in s, 1.5 to 30: drawn from RTTMs, else log-normal about 3 s."""
    if folder is None:
        return np.clip(rng.lognormal(1.1, 0.6, count), 1.5, 30.0)
    lengths = [
        float(line.split()[4])
        for file in sorted(folder.glob("*.rttm"))
        for line in file.read_text().splitlines()
        if line.startswith("SPEAKER")
    ]
    usable = np.array([length for length in lengths if 1.5 <= length <= 30.0])
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
        samples = np.frombuffer(bytearray(self._file.readframes(count)), np.int16).reshape(
            -1, self.channels
        )
        return samples if dtype == "int16" else samples / np.float32(32768)


def chosen_reader(args: argparse.Namespace) -> str:
    """Return what reads recordings; put the standard library in soundfile's place if it must be."""
    if importlib.util.find_spec("soundfile"):
        return "soundfile"
    if args.format != "wav":
        sys.exit(f"--format: value is {args.format!r} without soundfile; pass --format wav")
    stand_in: Any = ModuleType("soundfile")
    stand_in.SoundFile = _Wave
    stand_in.__spec__ = ModuleSpec("soundfile", None)  # transformers asks whether it is installed
    sys.modules["soundfile"] = stand_in
    return "wave (standard library)"
