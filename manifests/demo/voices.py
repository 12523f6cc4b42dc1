"""Synthetic voices: a source and a filter per person, in NumPy alone.

Source: glottal pulses with jitter and shimmer under a tone contour, plus breath. Filter: five
formant resonances that glide from vowel to vowel, scaled by the length of the vocal tract, and a
spectral tilt (Fant, Acoustic Theory of Speech Production, 1960; formant values after Peterson and
Barney, JASA 24, 1952, and Mandarin's y). Consonants are short bands of noise. Every frame is
filtered in the frequency domain, all frames of a turn at once.

The voices differ in pitch, formants and timbre, as people's do, and vary from turn to turn. They
speak vowels, not words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 16000  # Hz
HOP = 160  # samples; frames of 2 * HOP overlap by half
BINS = 640  # transform length: a frame and 20 ms for the resonances to ring out
VOWELS = {  # Hz of the first three formants of a man
    "啊": (730, 1150, 2440),
    "哦": (500, 850, 2500),
    "鹅": (480, 1250, 2450),
    "衣": (280, 2250, 2950),
    "乌": (310, 800, 2300),
    "鱼": (290, 1950, 2350),
}
TIMBRE = 2.0  # dB by which spectra differ besides formants and tilt; larger is easier to tell apart
TONES = ((1.15, 1.15), (0.9, 1.2), (0.85, 0.8), (1.25, 0.75))  # pitch at begin, end, of its mean


@dataclass(frozen=True)
class Voice:
    """What makes a person's speech theirs."""

    sex: str  # "F" or "M"
    pitch: float  # Hz
    liveliness: float  # how far tones go, 1 = as in `TONES`
    tract: float  # formant scale, 1 = a man of average size
    formants: tuple[float, ...]  # own deviation of each of the five formants, factor
    bandwidth: float  # factor
    tilt: float  # dB per octave above 500 Hz
    timbre: tuple[float, ...]  # dB at nine frequencies from 0 to 8 kHz, closer at the bottom
    breath: float  # noise beside the pulses, of their level
    jitter: float  # of a period
    pace: float  # s per syllable


def draw_voices(rng: np.random.Generator, sexes: str) -> list[Voice]:
    """Draw voices, one per letter of `sexes`, spread out so that no two are alike."""
    count = len(sexes)
    tilt, breath = _spread(rng, count, -16, 2), _spread(rng, count, 0.01, 0.12)
    size, pitch = _spread(rng, count, 0, 1), _spread(rng, count, 0, 1)
    timbre = _apart(rng, count)
    return [
        Voice(
            sex=sex,
            pitch=float(175 + 85 * pitch[index] if sex == "F" else 88 + 62 * pitch[index]),
            liveliness=rng.uniform(0.5, 1.3),
            tract=float(0.92 + 0.14 * size[index] + 0.16 * (sex == "F")),
            formants=tuple(rng.normal(1, (0.03, 0.04, 0.05, 0.07, 0.07))),
            bandwidth=rng.uniform(0.8, 1.6),
            tilt=float(tilt[index]),
            breath=float(breath[index]),
            timbre=tuple(timbre[index]),
            jitter=rng.uniform(0.004, 0.02),
            pace=rng.uniform(0.17, 0.26),
        )
        for index, sex in enumerate(sexes)
    ]


def _apart(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Draw `count` timbres, each the least similar of 30 candidates to those before."""
    drawn: list[np.ndarray] = []
    for _ in range(count):
        candidates = rng.normal(0, TIMBRE, (30, 9))
        distance = [
            min([float(np.std(candidate - other)) for other in drawn], default=0)
            for candidate in candidates
        ]
        drawn.append(candidates[int(np.argmax(distance))])
    return drawn


def _spread(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """Draw one number from each of `count` equal parts of low..high, in random order."""
    places = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    return low + (high - low) * places


def speak(voice: Voice, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Synthesise speech of one voice.

    Parameters
    ----------
    voice
        The speaker's voice.
    samples
        Length in samples at 16 kHz, > 0.
    rng
        Draws what is said, and how.

    Returns
    -------
    signal
        (samples,) float32, root mean square 1 within a few dB; begins and ends at 0.
    text
        One vowel per syllable.
    """
    count = max(1, round(samples / RATE / voice.pace))
    syllables = _balanced(rng, len(VOWELS), count)
    edges = _edges(rng, count, samples)
    frames = samples // HOP + 2
    times = np.arange(frames) * HOP
    source = _pulses(voice, _pitch(voice, rng, edges, samples), rng)
    source += voice.breath * rng.standard_normal(samples, np.float32)
    loud, hiss = _loudness(rng, edges, times)
    spectrum = _frames(source, frames) * _filter(voice, syllables, edges, times, rng)
    noise = _frames(rng.standard_normal(samples, np.float32), frames) * _hiss_filter(voice, rng)
    signal = _overlap_add(spectrum * loud[:, None] + noise * hiss[:, None], samples)
    fade = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (0.01 * RATE))
    signal *= fade / (np.sqrt(np.mean(signal**2)) + 1e-6)
    return signal.astype(np.float32), "".join(list(VOWELS)[index] for index in syllables)


def _balanced(rng: np.random.Generator, kinds: int, count: int) -> np.ndarray:
    """Draw `count` numbers from 0 to kinds - 1, each about equally often, deck by deck."""
    decks = [rng.permutation(kinds) for _ in range(-(-count // kinds))]
    return np.concatenate(decks)[:count]


def _edges(rng: np.random.Generator, count: int, samples: int) -> np.ndarray:
    """Draw the boundaries of the syllables (count + 1,), in samples."""
    lengths = rng.uniform(0.6, 1.4, count)
    return np.concatenate([[0], np.cumsum(lengths) / lengths.sum()]) * samples


def _pitch(voice: Voice, rng: np.random.Generator, edges: np.ndarray, samples: int) -> np.ndarray:
    """Return the pitch (samples,) in Hz: one tone per syllable, falling over the turn."""
    tones = np.array(TONES)[rng.integers(len(TONES), size=len(edges) - 1)]
    points = np.stack([edges[:-1] + 0.2 * np.diff(edges), edges[1:]], axis=1).ravel()
    contour = np.interp(np.arange(samples), points, tones.ravel())
    declination = np.linspace(1.05, 0.93, samples)
    level = voice.pitch * rng.normal(1, 0.06)
    return level * declination * (1 + voice.liveliness * (contour - 1))


def _pulses(voice: Voice, pitch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return glottal pulses (samples,), each split over the two samples it falls between."""
    phase = np.cumsum(pitch) / RATE
    count = int(phase[-1])
    marks = np.arange(1, count + 1) + voice.jitter * rng.standard_normal(count)
    places = np.interp(marks, phase, np.arange(len(pitch)))
    height = np.sqrt(RATE / voice.pitch) * (1 + 0.06 * rng.standard_normal(count))
    first = np.minimum(places.astype(int), len(pitch) - 2)
    part = np.clip(places - first, 0, 1)
    pulses = np.zeros(len(pitch) + 1, np.float32)
    np.add.at(pulses, first, height * (1 - part))
    np.add.at(pulses, first + 1, height * part)
    return pulses[: len(pitch)]


def _loudness(
    rng: np.random.Generator, edges: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of the voice and of the consonants' noise, per frame."""
    index = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    place = (times - edges[index]) / np.diff(edges)[index]  # 0..1 within the syllable
    stress = rng.uniform(0.6, 1.2, len(edges) - 1)[index]
    consonant = (_balanced(rng, 5, len(edges) - 1) < 3)[index]
    voiced = np.clip((place - 0.25 * consonant) / 0.15, 0, 1) * np.clip((1 - place) / 0.12, 0.1, 1)
    strength = rng.uniform(0.05, 0.3, len(edges) - 1)[index]
    hiss = consonant * strength * np.clip((0.3 - place) / 0.1, 0, 1)
    return (stress * voiced).astype(np.float32), hiss.astype(np.float32)


def _filter(
    voice: Voice,
    syllables: np.ndarray,
    edges: np.ndarray,
    times: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the vocal tract's response (frames, bins), complex64."""
    vowels = np.array(list(VOWELS.values()))[syllables] * rng.normal(1, 0.04, (len(syllables), 3))
    middle = (edges[:-1] + edges[1:]) / 2
    z = np.exp(-2j * np.pi * np.arange(BINS // 2 + 1) / BINS).astype(np.complex64)
    response = np.broadcast_to(_tilt(voice, rng) * (1 - z), (len(times), len(z)))
    for index, own in enumerate(voice.formants):
        centre = vowels[:, index] if index < 3 else np.full(len(middle), (3500, 4400)[index - 3])
        track = np.interp(times, middle, centre) * voice.tract * own
        width = voice.bandwidth * (50 + 0.03 * track)
        response = response * _resonance(track, width, z)
    return response


def _resonance(centre: np.ndarray, width: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return a two-pole resonance (frames, bins) with gain 1 at 0 Hz (Klatt, JASA 67, 1980)."""
    radius = np.exp(-np.pi * width / RATE)
    first = (2 * radius * np.cos(2 * np.pi * centre / RATE)).astype(np.float32)[:, None]
    second = (-(radius**2)).astype(np.float32)[:, None]
    return (1 - first - second) / (1 - z * (first + second * z))


def _tilt(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    frequency = np.arange(BINS // 2 + 1) * RATE / BINS
    slope = voice.tilt + rng.normal(0, 0.3)
    points = 8000 * np.linspace(0, 1, len(voice.timbre)) ** 2
    level = slope * np.log2(np.maximum(frequency / 500, 1)) + np.interp(
        frequency, points, voice.timbre
    )
    return (10 ** (level / 20)).astype(np.float32)


def _hiss_filter(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    frequency = np.arange(BINS // 2 + 1) * RATE / BINS
    centre = 4300 * voice.tract * voice.formants[4] * rng.normal(1, 0.05)
    return np.exp(-(((frequency - centre) / 1200) ** 2)).astype(np.float32)


def _frames(signal: np.ndarray, frames: int) -> np.ndarray:
    """Return the spectra (frames, bins) of half-overlapping Hann windows, the first at -HOP."""
    padded = np.zeros((frames + 1) * HOP, np.float32)
    padded[HOP : HOP + len(signal)] = signal
    window = np.hanning(2 * HOP + 1)[:-1].astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP]
    return np.fft.rfft(views * window, BINS).astype(np.complex64)


def _overlap_add(spectra: np.ndarray, samples: int) -> np.ndarray:
    """Return the signal (samples,) from spectra as made by `_frames`."""
    pieces = np.fft.irfft(spectra, BINS).reshape(len(spectra), BINS // HOP, HOP)
    total = np.zeros((len(spectra) + BINS // HOP, HOP))
    for part in range(BINS // HOP):
        total[part : part + len(spectra)] += pieces[:, part]
    return total.ravel()[HOP : HOP + samples]
