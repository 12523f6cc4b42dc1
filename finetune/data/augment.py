"""Random waveform augmentation for training: speed, reverberation, noise and gain, in this order.

Each kind has a probability and its own generator, spawned from the one given, so that no kind's
result depends on another's setting. Nothing else is random: the same seed, epoch and segment give
the same bytes in any process on a machine (other machines may round differently).

Reverberation preserves the RMS level; noise is added to the result. An encoder that scales every
segment to unit variance (as those with layer norm do) does not see the gain.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ...common.audio.containers import SUFFIXES
from ...common.audio.decoding import count_samples, read_header
from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import list_files
from ...common.options import numbers
from ...extract.audio import ReadOptions, Rejected, Segment, read_segment

if TYPE_CHECKING:
    from ..config import FinetuneConfig


NOISE_SLOPES = {"white": 0, "pink": 1, "brown": 2}  # power falls as 1 / frequency ** slope
LOWEST = 20.0  # Hz, the lower end of hearing; coloured noise is flat below


def rng_of(seed: int, epoch: int, segment_id: str) -> np.random.Generator:
    """Return the random generator of a segment in an epoch, a pure function of the arguments.

    It does not depend on the process, its hash seed, the worker or the batch.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{segment_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def draw_channel(config: FinetuneConfig, count: int, rng: np.random.Generator) -> str | None:
    """Return a random channel index below `count` with probability `channel_prob`, else None.

    Two numbers are drawn either way, so that later draws stay the same.
    """
    applies, place = rng.random(2)
    return str(int(place * count)) if applies < config.channel_prob else None


class Augmenter:
    """The waveform augmentations that a `FinetuneConfig` asks for, at `rate` (Hz).

    The headers of noise and impulse response files are read once, here.

    Raises
    ------
    InputError
        A folder is missing, holds no audio, or holds a file that can't be read; or torchaudio is
        needed and cannot be imported.
    """

    def __init__(self, config: FinetuneConfig, rate: int) -> None:
        self._config = config
        self._rate = rate
        self._noises = _clips(config.noise_dir, "--noise-dir")
        self._responses = _clips(config.reverb_dir, "--reverb-dir")
        self._kinds: tuple[tuple[float, Callable], ...] = (
            (config.speed_prob, self._speed),
            (config.reverb_prob, self._reverb),
            (config.noise_prob, self._noise),
            (config.gain_prob, self._gain),
        )
        if config.speed_prob or config.noise_prob:
            _functional()  # fail now, not in a worker, if it cannot be imported

    @property
    def active(self) -> bool:
        """Whether any waveform augmentation has a probability above 0."""
        return any(probability for probability, _ in self._kinds)

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment samples (n,) float32; return (m,) float32.

        Only speed makes m differ from n, and m may fall below the encoder's receptive field. If
        nothing applies, `samples` itself is returned.
        """
        for (probability, change), own in zip(self._kinds, rng.spawn(4), strict=True):
            if own.random() < probability:
                samples = np.ascontiguousarray(change(samples, own), dtype=np.float32)
        return samples

    def _speed(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return change_speed(samples, float(rng.choice(numbers(self._config.speed_factors))))

    def _reverb(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._responses:
            response = measured_room(
                self._responses[rng.integers(len(self._responses))], self._rate
            )
        else:
            seconds = _within(self._config.reverb_seconds, rng)
            response = simulated_room(seconds, self._rate, rng)
        return reverberate(samples, response)

    def _noise(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        snr = _within(self._config.noise_snr, rng)
        if self._noises:
            clip = self._noises[rng.integers(len(self._noises))]
            noise = recorded_noise(clip, len(samples), self._rate, rng.random())
        else:
            noise = coloured_noise(len(samples), self._config.noise_color, self._rate, rng)
        return add_noise(samples, noise, snr)

    def _gain(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return samples * 10 ** (_within(self._config.gain_db, rng) / 20)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play samples (n,) `factor` times as fast, tempo and pitch together: (ceil(n / factor),).

    The factor is rounded to two decimals: finer ones would need resampling filters of gigabytes.

    Source: Ko et al. 2015, Audio augmentation for speech recognition (0.9, 1.0, 1.1).
    """
    import torch

    # torchaudio truncates factor * frequency, and 0.57 * 100 is 56.99...; adding a half avoids that
    hundredths = round(100 * factor) + 0.5
    # In float64, so that rounding that depends on the number of threads vanishes in float32.
    whole = torch.from_numpy(samples.astype(np.float64))
    changed, _ = _functional().speed(whole, 100, hundredths / 100)
    return changed.numpy().astype(np.float32)


def simulated_room(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a room's impulse response whose energy falls by 60 dB in `seconds` (RT60): (n,).

    The direct path, 1, comes first. After it Gaussian noise decays exponentially; its expected
    energy is that of the direct path, as at the room's critical distance.

    Source: Polack 1988, La transmission de l'énergie sonore dans les salles (the model of the
    tail); Kuttruff, Room Acoustics (the critical distance).
    """
    count = max(2, math.ceil(seconds * rate))
    envelope = 10 ** (-3 * np.arange(1, count) / (seconds * rate))  # amplitude: -60 dB at RT60
    tail = envelope / math.sqrt(np.square(envelope).sum())
    return np.concatenate(([1.0], rng.standard_normal(count - 1) * tail))


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve samples (n,) with a response (k,), cut to n and scaled to the original RMS level.

    If the result is silent, the samples are returned unchanged.

    Source: Ko et al. 2017, A study on data augmentation of reverberant speech.
    """
    from scipy.signal import fftconvolve  # torch's rounding depends on its number of threads

    before = samples.astype(np.float64)
    after = fftconvolve(before, response[: len(samples)].astype(np.float64))[: len(samples)]
    level = _norm(after)
    return after * (_norm(before) / level) if level > 0 else samples


def coloured_noise(count: int, color: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise (count,) whose power falls as 1, 1/f (pink) or 1/f² (brown).

    It has no constant part. Below `LOWEST` the spectrum is flat; otherwise inaudible rumble would
    dominate a segment's level, the more so the longer the segment is.

    Source: Timmer & König 1995, On generating power law noise (Gaussian spectrum, shaped by FFT).
    """
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    shape = np.maximum(frequencies, LOWEST) ** (-NOISE_SLOPES[color] / 2)
    shape[0] = 0
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) * shape, count)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add noise (n,) to samples (n,) at a signal-to-noise ratio in dB; silent noise adds nothing.

    Source: Snyder et al. 2015, MUSAN: a music, speech, and noise corpus; Snyder et al. 2018,
    X-vectors (mixing it in at a drawn ratio).
    """
    import torch

    level = _norm(noise.astype(np.float64))
    if level == 0:
        return samples
    tensors = (samples.astype(np.float64), noise / level, np.float64(snr))
    return _functional().add_noise(*(torch.as_tensor(tensor) for tensor in tensors)).numpy()


@dataclass(frozen=True)
class Clip:
    """An audio file: its path, length in samples, and rate in Hz."""

    path: str
    count: int
    rate: int


def recorded_noise(clip: Clip, count: int, rate: int, place: float) -> np.ndarray:
    """Return `count` samples at `rate` (Hz) of a file's first channel, from a position 0..1.

    A shorter file is repeated, starting from that position.
    """
    needed = math.ceil(count * clip.rate / rate)
    if needed < clip.count:
        return _read(clip, int(place * (clip.count - needed + 1)), needed, rate)[:count]
    whole = _read(clip, 0, clip.count, rate)
    return np.resize(np.roll(whole, -int(place * len(whole))), count)


def measured_room(clip: Clip, rate: int) -> np.ndarray:
    """Return a file's impulse response at `rate` (Hz), from its peak (the direct path) on.

    Raises
    ------
    InputError
        The file is silent.
    """
    response = _read(clip, 0, clip.count, rate)
    if not response.any():
        raise InputError(
            f"{clip.path}: all {counted(clip.count, 'sample', 'is')} equal, expected an impulse "
            "response; remove the file from --reverb-dir"
        )
    return response[np.abs(response).argmax() :]


def _read(clip: Clip, first: int, count: int, rate: int) -> np.ndarray:
    """Read samples of a file's first channel, resampled to `rate`; silence becomes zeros."""
    span = (first / clip.rate, (first + count) / clip.rate)
    try:
        read_options = ReadOptions(rate=rate, resample=True, shortest=1)
        return read_segment(Segment(clip.path, clip.path, *span), read_options).samples
    except Rejected as rejection:
        if rejection.code == "silent":
            return np.zeros(math.ceil(count * rate / clip.rate), dtype=np.float32)
        raise InputError(
            f"{clip.path}: samples from {span[0]:.4f} s on are refused ({rejection.message}), "
            "expected audio that decodes; remove the file or write it again"
        ) from None


def _clips(folder: str | Path | None, option: str) -> tuple[Clip, ...]:
    """Return the audio files below a folder, sorted by name for a machine-independent order."""
    if folder is None:
        return ()
    if not Path(folder).is_dir():
        raise InputError(
            f"{option}: {str(folder)!r} is not a folder, expected one that holds .wav or "
            ".flac files; name a folder"
        )
    paths = [path for path in list_files(folder, SUFFIXES) if path.is_file()]
    if not paths:
        raise InputError(
            f"{option}: audio files in {str(folder)!r} are 0, expected .wav or others that "
            "libsndfile reads; name another folder"
        )
    return tuple(_clip(path, option) for path in sorted(paths, key=Path.as_posix))


def _clip(path: Path, option: str) -> Clip:
    try:
        header = read_header(path)
    except InputError as problem:
        raise InputError(f"{problem}, or remove the file from {option}") from None
    count = count_samples(header)
    if count == 0:
        raise InputError(f"{path}: samples are 0, expected 1 or more; remove it from {option}")
    return Clip(str(path), count, header.rate)


def _norm(samples: np.ndarray) -> float:
    return math.sqrt(np.square(samples).sum())  # np.linalg.norm's rounding depends on BLAS threads


def _within(limits: str, rng: np.random.Generator) -> float:
    low, high = numbers(limits)
    return rng.uniform(low, high)


def _functional() -> ModuleType:
    """Import `torchaudio.functional` when first needed, or raise `InputError`."""
    from ...extract.encoder.torchaudio_import import import_torchaudio

    functional: ModuleType = import_torchaudio().functional
    return functional
