"""Meetings made of the voices beside the project: to choose by, so that others can be quoted.

Usage: ``python benchmarks/voices_meetings.py VOICES MEETINGS``, then what is to be chosen, such as
``python benchmarks/audit.py MEETINGS OUT``. VOICES has a folder per corpus with a recording per
speaker; MEETINGS receives ``wav``, ``TextGrid`` (RTTMs) and ``people.csv``: eight meetings of each
of two corpora, five speakers in each, turns of 0.4 to 12 s in random order, a random decaying
echo per speaker and noise 15 dB below the speech. The shipped encoder was trained on these voices.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from scipy.signal import fftconvolve

CORPORA, MEETINGS, SPEAKERS = ("librispeech", "speechocean762"), 8, 5
RATE, NOISE, LEVEL = 16000, 10 ** (-15 / 20), 0.05
DECAY = 6.9  # natural logarithm of 60 dB


def in_a_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return speech with a random echo of 0.2 to 0.5 s, at a level of 1."""
    count = int(rng.uniform(0.2, 0.5) * RATE)
    echo = rng.normal(size=count) * np.exp(-DECAY * np.arange(count) / count)
    echo *= 0.3 / np.sqrt(np.sum(echo**2))
    echo[0] = 1
    wet = fftconvolve(samples, echo)[: len(samples)]
    return wet / np.sqrt(np.mean(wet**2))


def turns_of(samples: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut speech into turns of 0.4 to 12 s, half of them below 2.2 s."""
    turns, place = [], 0
    while place < len(samples) - RATE // 2:
        seconds = np.clip(rng.lognormal(np.log(2.2), 0.8), 0.4, 12)
        turns.append(samples[place : place + int(seconds * RATE)])
        place += int(seconds * RATE)
    return turns


def meeting(files: list[Path], rng: np.random.Generator) -> tuple[np.ndarray, list[tuple]]:
    """Return a meeting's samples and its turns (speaker, start, end) in s."""
    turns = [
        (file.stem, part)
        for file in files
        for part in turns_of(in_a_room(soundfile.read(file)[0], rng), rng)
    ]
    parts, rows, place = [np.zeros(RATE // 2)], [], RATE // 2
    for number in rng.permutation(len(turns)):
        name, samples = turns[number]
        gap = int(rng.uniform(0.1, 0.8) * RATE)
        rows.append((name, place / RATE, (place + len(samples)) / RATE))
        parts += [samples, np.zeros(gap)]
        place += len(samples) + gap
    whole = np.concatenate(parts)
    return LEVEL * (whole + NOISE * rng.normal(size=len(whole))), rows


def main(voices: Path, meetings: Path) -> None:
    """Write the meetings."""
    rng, people = np.random.default_rng(7), []
    for name in ("wav", "TextGrid"):
        (meetings / name).mkdir(parents=True, exist_ok=True)
    for corpus in CORPORA:
        files = sorted((voices / corpus).glob("*.ogg"))
        order = rng.permutation(len(files))
        for number in range(MEETINGS):
            session = f"{corpus}{number:02d}"
            present = [files[k] for k in order[number * SPEAKERS : (number + 1) * SPEAKERS]]
            samples, rows = meeting(present, rng)
            soundfile.write(meetings / "wav" / f"{session}.flac", samples, RATE)
            lines = [
                f"SPEAKER {session} 1 {start:.4f} {end - start:.4f} <NA> <NA> {name} <NA> <NA>\n"
                for name, start, end in rows
            ]
            (meetings / "TextGrid" / f"{session}.rttm").write_text("".join(lines))
            people += [(session, file.stem, file.stem) for file in present]
    who = pd.DataFrame(people, columns=["session", "speaker", "person"])
    who.to_csv(meetings / "people.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Meetings made of single voices.")
    parser.add_argument("voices", type=Path)
    parser.add_argument("meetings", type=Path)
    main(**vars(parser.parse_args()))
